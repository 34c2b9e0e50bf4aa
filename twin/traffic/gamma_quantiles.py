"""Quantiles of the Gamma distribution from exp alone, with the same bits on every processor.

With y = log(X / E X), a Gamma variable X of shape a has the log-concave density f(y) proportional to
`exp(a (y + 1 - e^y))`. Its integral over a grid of y gives the distribution function up to a factor that cancels, so
that neither the Gamma function nor its incomplete integral is needed, for any shape from 1e-3 to 1e12.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin import portable
from twin.compiled import allocating

Floats = NDArray[np.float64]

#: Quantiles are cut below this multiple of the mean: exp of the least y.
LEAST = 1e-12
#: The grid reaches to where the log density has fallen by this much, and has so many cells.
_FALL, _CELLS = 36.0, 2500


@allocating
def _log_density(shape: float, y: float) -> float:
    """`a (y + 1 - e^y)`, 0 at its peak y = 0; by its series near there, where the terms cancel."""
    if abs(y) < 1e-3:
        return -shape * y * y * (0.5 + y * (1.0 / 6.0 + y / 24.0))
    return shape * (y + 1.0 - portable.exp(y))


@allocating
def _reach(shape: float, sign: float, furthest: float) -> float:
    """Where the log density has fallen by `_FALL` on one side of the peak, or `furthest`, by bisection."""
    near, far = 0.0, furthest
    if _log_density(shape, sign * far) > -_FALL:
        return far
    for _ in range(80):
        middle = 0.5 * (near + far)
        if _log_density(shape, sign * middle) > -_FALL:
            near = middle
        else:
            far = middle
    return far


@allocating
def _quantiles(shape: float, z: Floats, least: float) -> Floats:
    low, high = -_reach(shape, -1.0, -least), _reach(shape, 1.0, 60.0)
    n = _CELLS
    h = (high - low) / n
    density, slope, below, inside = np.empty(n + 1), np.empty(n + 1), np.empty(n + 1), np.empty(n)
    for i in range(n + 1):
        y = low + i * h
        density[i] = portable.exp(_log_density(shape, y))
        slope[i] = density[i] * shape * -(portable.exp(y) - 1.0)
    # What lies below the grid, where f falls as e^(a y): all of it for a small shape, nothing for a large one.
    below[0] = density[0] / shape if low <= least else 0.0
    for i in range(n):
        # Trapezoid with the end correction of Euler and Maclaurin: exact for cubics.
        inside[i] = 0.5 * h * (density[i] + density[i + 1]) + h * h / 12.0 * (slope[i] - slope[i + 1])
        below[i + 1] = below[i] + inside[i]
    total = below[n]
    above = np.zeros(n + 1)
    for i in range(n - 1, -1, -1):
        above[i] = above[i + 1] + inside[i]
    out = np.empty(len(z))
    for k in range(len(z)):
        # The smaller tail, so that neither loses digits.
        upper = z[k] > 0.0
        target = portable.normal_tail(abs(z[k])) * total
        if not upper and target <= below[0]:
            out[k] = least
            continue
        first, last = 0, n
        while last - first > 1:
            middle = (first + last) // 2
            if above[middle] > target if upper else below[middle] < target:
                first = middle
            else:
                last = middle
        # Newton within the cell on the cubic whose ends and slopes are those of the distribution function.
        wanted = above[first] - target if upper else target - below[first]
        cell = inside[first]
        t = wanted / cell if cell > 0.0 else 0.0
        f0, f1 = density[first] * h, density[first + 1] * h
        for _ in range(30):
            value = t * (f0 + t * ((3.0 * cell - 2.0 * f0 - f1) + t * (f0 + f1 - 2.0 * cell)))
            rate = f0 + t * (2.0 * (3.0 * cell - 2.0 * f0 - f1) + 3.0 * t * (f0 + f1 - 2.0 * cell))
            if rate <= 0.0:
                break
            t = min(max(t - (value - wanted) / rate, 0.0), 1.0)
        out[k] = low + (first + t) * h
    return out


def log_gamma_quantiles(shape: float, z: Floats) -> Floats:
    """log(quantile / mean) of a Gamma variable of this shape at standard normal quantiles z; same shape as z.

    Quantiles below `LEAST` times the mean are cut to it.
    """
    return np.asarray(_quantiles(shape, np.ascontiguousarray(z), portable.log(LEAST)))
