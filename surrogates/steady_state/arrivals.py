"""Requests of one adapter in service: how many, whether any, and how often its slot is needed again.

Gaps between arrivals are Gamma with coefficient of variation `cv`, that is with shape `k = 1 / cv^2`; a request stays
for an exponential time. With offered load `x` = rate x mean stay, the number in service of this GI/M/infinity station
has mean x and, seen at any time, variance `x f` with

    f = 1 + h - x,    h = 1 / ((1 + 1/(k x))^k - 1),

because `h = phi / (1 - phi)` for the Laplace transform `phi` of the gap at 1 / stay is the mean number that an arrival
finds (L. Takacs, "Introduction to the Theory of Queues", 1962, chapter 3). Poisson arrivals (k = 1) give h = x and
f = 1. The distribution is taken as negative binomial (binomial for f < 1) with this mean and variance, so that

    P(none) = f^(-x / (f - 1)),

which is exp(-x) for f = 1. The naive P(none) = P(last arrival is older than a stay) is wrong by a factor of two for
bursty adapters. All functions are of x alone: a rate that is doubled is a stay that is doubled.
"""

from __future__ import annotations

import math

from twin.compiled import compiled

#: Below this distance of f from 1, log(f) / (f - 1) is its series.
_NEAR_ONE = 1e-5


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
    """log P(no request in service)."""
    return -x * _log_over_distance(variance_factor(x, k))


@compiled
def activity_slope(x: float, k: float) -> float:
    """-d P(none) / dx: the share of arrivals that find nobody of their own who came within the stay.

    In a stationary stream `-dP(no arrival for t) / dt = rate x P(gap > t)`: with x = rate t this is the survival
    function of the gap, consistent with `log_absence`. An adapter starts to need its slot `rate x slope` times a second.
    """
    if k == 1.0:
        return math.exp(-x)
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
