"""Elementary functions with the same bits on every processor.

Requests, and the workloads that they are drawn from, are promised to be the same bytes everywhere. exp, log and the
power of libraries do not keep that promise: NumPy dispatches them to AVX-512 or AVX2 kernels, glibc to variants with
and without FMA, numba to either, and their last bits differ. Here they are made from operations that IEEE 754 defines
to the bit (+, -, x, /, square root), from the bits of numbers, and from tables that `decimal` rounds correctly,
in double precision. Numba compiles without `fastmath`, so that LLVM neither contracts a x b + c into a fused operation
nor reorders sums.

Errors, against 50 digits (tests/twin/test_portable.py): exp below 1 unit in the last place (3 where |x| > 700), log
below 2, log1p below 3, power below 2 + 2 |y log x|; the normal distribution below 1e-15 absolute and 1e-12 relative.

Sources: P. T. P. Tang, "Table-driven implementation of the exponential function", ACM TOMS 15 (1989), and "... of the
logarithm function", ACM TOMS 16 (1990); G. Marsaglia, "Evaluating the normal distribution", J. Stat. Softw. 11 (2004).
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.compiled import allocating

Floats = NDArray[np.float64]

#: Cells of the tables: exp on 2^(j/128), log on 1 + j/128.
_CELLS = 128
_INV_SQRT_2PI = 0.3989422804014327
#: Where the normal tail's continued fraction takes over from the series, and its terms there.
_TAIL, _TAIL_TERMS = 3.0, 80


def _in_two(value: Decimal, bits: int) -> tuple[float, float]:
    """A number as a multiple of 2^-bits and the rest, so that small multiples of the first are exact."""
    high = float(round(value * 2**bits)) / 2.0**bits
    return high, float(value - Decimal(high))


with localcontext(prec=60):
    _LN2 = Decimal(2).ln()
    _INV_CELL = float(_CELLS / _LN2)
    _CELL_HIGH, _CELL_LOW = _in_two(_LN2 / _CELLS, 43)
    _LN2_HIGH, _LN2_LOW = _in_two(_LN2, 42)
    _POWERS = np.array([float((_LN2 * j / _CELLS).exp()) for j in range(_CELLS)])
    _LOGS = np.array([_in_two((1 + Decimal(j) / _CELLS).ln(), 42) for j in range(_CELLS + 1)])


@allocating
def exp(x: float) -> float:
    """e^x = 2^(k/128) e^r with |r| <= ln 2 / 256: a table, and a polynomial in r."""
    if not -708.0 < x < 709.0:
        if x != x:
            return x
        if x >= 709.782712893384:
            return np.inf
        if x <= -745.1332191019412:
            return 0.0
        half = exp(0.5 * x)
        return half * half
    k = np.floor(x * _INV_CELL + 0.5)
    r = (x - k * _CELL_HIGH) - k * _CELL_LOW
    p = r + r * r * (0.5 + r * (0.16666666666666666 + r * (0.041666666666666664 + r * 0.008333333333333333)))
    cell = np.int64(k)
    table = _POWERS[cell & 127]
    return float((table + table * p) * np.int64(((cell >> 7) + 1023) << 52).view(np.float64))


@allocating
def log(x: float) -> float:
    """Natural logarithm of x = 2^e m: a table at F near m, and the series of log(m / F)."""
    if not 2.2250738585072014e-308 <= x < np.inf:
        if x == np.inf or x != x:
            return x
        if x <= 0.0:
            return -np.inf if x == 0.0 else np.nan
        return log(x * 18014398509481984.0) - 54.0 * (_LN2_HIGH + _LN2_LOW)
    bits = np.float64(x).view(np.int64)
    e = float((bits >> 52) - 1023)
    fraction = bits & 0xFFFFFFFFFFFFF
    m = np.int64(fraction | 0x3FF0000000000000).view(np.float64)
    j = ((fraction >> 44) + 1) >> 1
    near = 1.0 + j * 0.0078125
    u = 2.0 * (m - near) / (m + near)
    z = u * u
    series = u * z * (0.08333333333333333 + z * (0.0125 + z * 0.002232142857142857))
    return float((e * _LN2_HIGH + _LOGS[j, 0]) + (u + (series + (e * _LN2_LOW + _LOGS[j, 1]))))


@allocating
def log1p(x: float) -> float:
    """log(1 + x) without loss for small x (Kahan: the rounding error of 1 + x cancels)."""
    u = 1.0 + x
    if u == 1.0 or u == np.inf:
        return x
    return log(u) * (x / (u - 1.0))


@allocating
def power(x: float, y: float) -> float:
    """x^y for x >= 0."""
    if y == 0.0:
        return 1.0
    if x == 0.0:
        return 0.0 if y > 0.0 else np.inf
    return exp(y * log(x))


@allocating
def normal_tail(z: float) -> float:
    """P(Z > z) of a standard normal Z: Marsaglia's series around zero (2004), Laplace's continued fraction beyond."""
    x = abs(z)
    if x < _TAIL:
        total, term, k = x, x, 1.0
        while total + term != total:
            k += 2.0
            term *= x * x / k
            total += term
        inside = _INV_SQRT_2PI * exp(-0.5 * x * x) * total
        return 0.5 - inside if z > 0.0 else 0.5 + inside
    if x > 39.0:
        return 0.0 if z > 0.0 else 1.0
    fraction = x
    for k in range(_TAIL_TERMS, 0, -1):
        fraction = x + k / fraction
    tail = _INV_SQRT_2PI * exp(-0.5 * x * x) / fraction
    return tail if z > 0.0 else 1.0 - tail


@allocating
def _exps(values: Floats) -> Floats:
    out = np.empty(len(values), np.float64)
    for i in range(len(values)):
        out[i] = exp(values[i])
    return out


@allocating
def _logs(values: Floats) -> Floats:
    out = np.empty(len(values), np.float64)
    for i in range(len(values)):
        out[i] = log(values[i])
    return out


@allocating
def _normal_tails(values: Floats) -> Floats:
    out = np.empty(len(values), np.float64)
    for i in range(len(values)):
        out[i] = normal_tail(values[i])
    return out


def _over(compiled: Any, x: ArrayLike) -> Floats:
    values = np.asarray(x, np.float64)
    return np.asarray(compiled(np.ascontiguousarray(values).ravel())).reshape(values.shape)


def exps(x: ArrayLike) -> Floats:
    """`exp` of every entry."""
    return _over(_exps, x)


def logs(x: ArrayLike) -> Floats:
    """`log` of every entry."""
    return _over(_logs, x)


def powers(x: ArrayLike, y: float) -> Floats:
    """`power(x, y)` of every entry of x > 0, one exponent."""
    return exps(y * logs(x))


def normal_cdf(z: ArrayLike) -> Floats:
    """P(Z <= z) of a standard normal Z, every entry."""
    return _over(_normal_tails, -np.asarray(z, np.float64))


def interpolate(x: ArrayLike, xs: Floats, ys: Floats) -> Floats:
    """Straight lines through the points (xs, ys), xs ascending, (n,); the end values beyond them. As `numpy.interp`."""
    values = np.asarray(x, np.float64)
    left = np.clip(np.searchsorted(xs, values, side="right") - 1, 0, len(xs) - 2)
    inside = np.clip(values, xs[0], xs[-1])
    slope = (ys[left + 1] - ys[left]) / (xs[left + 1] - xs[left])
    between = slope * (inside - xs[left]) + ys[left]
    return np.where(inside == xs[left + 1], ys[left + 1], between)


@allocating
def _dot(a: Floats, b: Floats) -> float:
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


def dot(a: ArrayLike, b: ArrayLike) -> float:
    """Sum of products in order, (n,) and (n,): BLAS chooses the order of its sums by the processor."""
    return float(_dot(np.ascontiguousarray(a, np.float64), np.ascontiguousarray(b, np.float64)))
