"""Lengths known by mean and two quantiles, cut at the longest request that is served."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: 95 % quantile of the standard normal distribution.
Z95 = 1.6448536269514722
#: Widest spread read from quantiles (a CV of 2.9). Beyond it lengths have two modes, and no lognormal fits.
SIGMA_MAX = 1.5


def sigma_of_quantiles(p50: Floats, p95: Floats) -> Floats:
    """Standard deviation of the log of a lognormal length, from its quantiles in tokens; any shape."""
    from twin import portable  # compiled code: only where it is asked for

    low = np.maximum(p50, 1.0)
    return np.clip(portable.logs(np.maximum(p95, low) / low) / Z95, 0.0, SIGMA_MAX)


def cut_lognormal(mean: Floats, sigma: Floats, limit: Floats | float) -> tuple[Floats, Floats, Floats]:
    """E[min(X, limit)], E[min(X, limit)^2] and P(X > limit) of lognormal X with this mean; shapes broadcast.

    `E[X^k; X <= limit] = mean^k exp((k^2 - k) sigma^2 / 2) Phi(z - k sigma)` with z the limit's standard score.
    """
    from twin import portable  # compiled code: only where it is asked for

    mean = np.maximum(mean, 1.0)
    bound = np.broadcast_to(np.asarray(limit, np.float64), mean.shape)
    spread = np.maximum(sigma, 1e-9)
    finite = np.isfinite(bound)
    z = np.where(finite, (portable.logs(np.where(finite, bound, 1.0) / mean) + spread * spread / 2) / spread, np.inf)
    z = np.where(sigma > 1e-9, z, np.where(mean > bound, -np.inf, np.inf))
    above = portable.normal_cdf(-z)
    rest = np.where(finite, bound, 0.0) * above
    first = mean * portable.normal_cdf(z - spread) + rest
    second = (
        mean * mean * portable.exps(spread * spread) * portable.normal_cdf(z - 2 * spread)
        + np.where(finite, bound, 0.0) * rest
    )
    return first, second, above
