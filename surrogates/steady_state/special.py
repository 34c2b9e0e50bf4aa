"""Probabilities that have no closed form: gamma tails and the wait for one of several servers."""

from __future__ import annotations

import math

from twin.compiled import compiled

_SQRT_HALF = 0.7071067811865476
#: Terms after which series and fractions are cut; they end earlier for all arguments that occur.
_TERMS = 2000


@compiled
def normal_tail(z: float) -> float:
    """P(Z > z) of a standard normal Z."""
    return 0.5 * math.erfc(z * _SQRT_HALF)


@compiled
def normal_quantile(tail: float) -> float:
    """z with P(Z > z) = `tail` (Abramowitz and Stegun 26.2.23, within 5e-4)."""
    p = min(tail, 1.0 - tail)
    t = math.sqrt(-2.0 * math.log(max(p, 1e-300)))
    z = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    return z if tail <= 0.5 else -z


@compiled
def gamma_tail(shape: float, x: float) -> float:
    """Q(shape, x) = P(X > x) for X Gamma with this shape and scale 1.

    Series below the mean, Lentz's continued fraction above (Numerical Recipes, 3rd ed., section 6.2).
    """
    if x <= 0.0:
        return 1.0
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1.0:
        term = 1.0 / shape
        total, a = term, shape
        for _ in range(_TERMS):
            a += 1.0
            term *= x / a
            total += term
            if term < total * 1e-15:
                break
        return max(0.0, 1.0 - total * scale)
    b = x + 1.0 - shape
    c, d = 1e300, 1.0 / b
    fraction = d
    for i in range(1, _TERMS):
        a = -i * (i - shape)
        b += 2.0
        d = 1.0 / (a * d + b) if abs(a * d + b) > 1e-300 else 1e300
        c = b + a / c if abs(b + a / c) > 1e-300 else 1e-300
        fraction *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return min(1.0, scale * fraction)


@compiled
def rough_gamma_tail(shape: float, x: float) -> float:
    """`gamma_tail` by the cube root that is nearly normal (Wilson and Hilferty 1931): 2e-3 off, ten times as fast."""
    if x <= 0.0:
        return 1.0
    spread = 1.0 / (9.0 * shape)
    return normal_tail(((x / shape) ** (1.0 / 3.0) - 1.0 + spread) / math.sqrt(spread))


@compiled
def erlang_c(servers: float, offered: float) -> float:
    """P(wait > 0) with `offered` requests on average at `servers` servers, both real; 1 where there is no rest.

    A. K. Erlang's second formula from his first, which is continued to a real number of servers by the incomplete
    gamma function: 1 / B = integral_0^inf exp(-t) (1 + t / a)^s dt, B = a^s exp(-a) / Gamma(s + 1, a).
    """
    if servers <= offered:
        return 1.0
    if offered <= 1e-12:
        return 0.0
    log_b = servers * math.log(offered) - offered - math.lgamma(servers + 1.0)
    if log_b < -600.0:
        return 0.0
    blocked = min(1.0, math.exp(log_b) / max(gamma_tail(servers + 1.0, offered), 1e-300))
    return blocked / (1.0 - offered / servers * (1.0 - blocked))


@compiled
def next_part(a: float, of_a: float, b: float, of_b: float, c: float, of_c: float) -> float:
    """Where to look for the root between a and b, as a share of the way to b, with a third point beyond one of them.

    On the parabola through all three in the function's values if it is monotone between them, else in the middle (T. R.
    Chandrupatla 1997).
    """
    xi, phi = (a - b) / (c - b), (of_a - of_b) / (of_c - of_b)
    if not (phi * phi < xi and (1.0 - phi) * (1.0 - phi) < 1.0 - xi):
        return 0.5
    first = of_a / (of_b - of_a) * of_c / (of_b - of_c)
    second = (c - a) / (b - a) * of_a / (of_c - of_a) * of_b / (of_c - of_b)
    return min(max(first + second, 1e-6), 1.0 - 1e-6)
