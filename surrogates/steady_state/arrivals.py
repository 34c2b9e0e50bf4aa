"""Requests of one adapter in service: how many, whether any, and how often its slot is needed again.

Gaps between arrivals are Gamma with coefficient of variation `cv`, that is with shape `k = 1 / cv^2`. With offered load
`x` = rate x mean stay the number in service has mean x. All functions are of x alone: twice the rate is twice the stay.

*Exponential stays.* In a GI/M/infinity station, seen at any time, the variance is `x f` with

    f = 1 + h - x,    h = 1 / ((1 + 1/(k x))^k - 1),

because `h = phi / (1 - phi)` for the Laplace transform `phi` of the gap at 1 / stay is the mean number that an arrival
finds (L. Takacs, "Introduction to the Theory of Queues", 1962, chapter 3). Poisson arrivals (k = 1) give h = x, f = 1.
The distribution is taken as negative binomial (binomial for f < 1) with this mean and variance, so that
P(none) = f^(-x / (f - 1)), which is exp(-x) for f = 1.

*Constant stays.* Nobody is in service if nobody came for x: P(none) = Q(k + 1, k x) - x Q(k, k x), the stationary
probability of a Gamma gap's rest (Q: the upper incomplete gamma function). For bursts this differs from exponential
stays by a factor of up to two.

*Stays that vary.* Between the two, and in proportion to the spread of the stays: `EXPONENTIAL_CV`.
"""

from __future__ import annotations

import math

from surrogates.steady_state.special import gamma_tail
from twin.compiled import compiled

#: Below this distance of f from 1, log(f) / (f - 1) is its series.
_NEAR_ONE = 1e-5
#: Spread of the stays (CV) for which `activity` is that of the exponential formula: measured in the twin for lengths of
#: CV 0 to 1.5 and arrivals of CV 1.5 to 10, where the share of the exponential formula is 0.8 x CV within 0.1.
EXPONENTIAL_CV = 1.25


@compiled
def arrivals_find(x: float, k: float) -> float:
    """h: mean requests in service that an arrival finds."""
    growth = k * math.log1p(1.0 / (k * x))
    if growth > 700.0:
        return 0.0
    return 1.0 / math.expm1(growth)


@compiled
def variance_factor(x: float, k: float) -> float:
    """f: variance / mean of the requests in service; 1 for Poisson arrivals, up to (1 + cv^2) / 2 for a large x."""
    if k == 1.0:
        return 1.0
    # Where x is large, h - x loses digits: its limit is (1/k - 1) / 2 - (1/k^2 - 1) / (12 x).
    if x > 1e6:
        return 0.5 * (1.0 + 1.0 / k) - (1.0 / (k * k) - 1.0) / (12.0 * x)
    return max(1.0 + arrivals_find(x, k) - x, 1e-9)


@compiled
def _log_over_distance(f: float) -> float:
    """log(f) / (f - 1)."""
    d = f - 1.0
    if abs(d) < _NEAR_ONE:
        return 1.0 - d * (0.5 - d / 3.0)
    return math.log(f) / d


@compiled
def log_absence(x: float, k: float) -> float:
    """log P(no request in service) for exponential stays."""
    return -x * _log_over_distance(variance_factor(x, k))


@compiled
def _exponential_slope(x: float, k: float) -> float:
    """-d P(none) / dx of `log_absence`."""
    f = variance_factor(x, k)
    d = f - 1.0
    if abs(d) < _NEAR_ONE:
        value, of_f = 1.0 - 0.5 * d, -0.5 + 2.0 * d / 3.0
    else:
        value = math.log(f) / d
        of_f = (1.0 / f - value) / d
    if x > 1e6:
        return 0.0
    # h' = h^2 q / ((1 + 1/(k x)) x^2) with q = (1 + 1/(k x))^k = 1 + 1/h.
    h = arrivals_find(x, k)
    f_slope = h * (h + 1.0) / ((1.0 + 1.0 / (k * x)) * x * x) - 1.0
    slope = math.exp(-x * value) * (value + x * of_f * f_slope)
    return min(max(slope, 0.0), 1.0)


@compiled
def activity(x: float, k: float, exponential: float) -> tuple[float, float]:
    """A = P(a request in service), and dA / dx.

    dA / dx is the share of arrivals that find none of their own: in a stationary stream -dP(no arrival for t) / dt =
    rate x P(gap > t). An adapter starts to need its slot `rate x dA / dx` times a second.

    Args:
        exponential: weight of exponential against constant stays, 0..1.
    """
    if k == 1.0:
        return -math.expm1(-x), math.exp(-x)
    active, slope = 0.0, 0.0
    if exponential > 0.0:
        active, slope = -exponential * math.expm1(log_absence(x, k)), exponential * _exponential_slope(x, k)
    if exponential < 1.0:
        y = k * x
        gap_longer = gamma_tail(k, y)
        # Q(k + 1, y) = Q(k, y) + y^k exp(-y) / Gamma(k + 1)
        none = (1.0 - x) * gap_longer + math.exp(k * math.log(y) - y - math.lgamma(k + 1.0))
        active += (1.0 - exponential) * (1.0 - min(max(none, 0.0), 1.0))
        slope += (1.0 - exponential) * gap_longer
    return active, slope
