"""A derived law after a few measured runs: Bayesian linear regression with physical signs.

With relative step times of runs, `x_i c / y_i = 1 + noise`, and the prior `c ~ N(m, S)`, the most probable law
minimises `sum_i w_i (x_i c / y_i - 1)^2 / s^2 + (c - m)' S^-1 (c - m)` over `c >= 0`: non-negative least squares with
the prior as 21 more rows. Weights are Huber's, as in `profiling.fit.regression`. The covariance is that of the normal
distribution without the signs, `(X' W X / s^2 + S^-1)^-1`, and of what the law's form misses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from profiling.derive.prior import Prior
from profiling.fit.micro import Row

Array = NDArray[np.float64]

#: Relative standard deviation of a run's step time around the law, with what the law's form cannot describe of it; a
#: little more than what the law of all runs leaves (2 %), because a handful of runs is no fair sample of them.
NOISE = 0.05
#: Relative standard deviation of the law's form, which no number of runs takes away: twice what it leaves of the step
#: times of runs, because near saturation the batch grows with the step, and the time between tokens errs by more.
MISFIT = 0.04
#: Relative error beyond which a run loses weight.
HUBER = 0.05
ITERATIONS = 8
#: Least standard deviation of a coefficient relative to its mean, and absolute: keeps the covariance regular.
LEAST_RELATIVE, LEAST = 1e-3, 1e-5


def posterior(prior: Prior, rows: Sequence[Row], noise: float = NOISE) -> tuple[Array, Array]:
    """(most probable coefficients, their covariance), (21,) and (21, 21); the prior's own without rows."""
    m = prior.mean
    s = prior.covariance + np.diag((LEAST_RELATIVE * m + LEAST) ** 2)
    if not rows:
        return m.copy(), s
    precision = np.linalg.inv(s)
    root = np.linalg.cholesky((precision + precision.T) / 2).T
    y = np.array([r.target_ms for r in rows])
    x = np.array([r.features for r in rows]) / y[:, None]
    weight = np.array([r.weight for r in rows])
    robust = np.ones(len(rows))
    c = m
    for _ in range(ITERATIONS):
        w = np.sqrt(weight * robust) / noise
        c, _ = nnls(np.vstack([x * w[:, None], root]), np.concatenate([w, root @ m]))
        error = np.abs(x @ c - 1)
        robust = np.minimum(1.0, HUBER / np.maximum(error, 1e-12))
    w2 = weight * robust / noise**2
    covariance = np.linalg.inv((x * w2[:, None]).T @ x + precision)
    return np.asarray(c), covariance + np.outer(MISFIT * c, MISFIT * c)
