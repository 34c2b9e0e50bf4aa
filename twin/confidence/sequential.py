"""Sequential statistics: repeated looks at growing data without spending the error probability twice.

Two tools, both valid whatever the data make us do next (stop, go on), because the chance that *any* look errs is
at most the stated one:

* means: looks at numbers of values fixed in advance; the error probability is shared equally among them (union
  bound), and each look draws a Student-t limit. Assumes that values of different seeds are independent and about
  normal, nothing about their variance;
* shares: an exact group-sequential test of a probability, looked at after every trial. The chance to cross the
  boundary within n trials is kept below `error * n / (n + 3)` by summing the binomial walk (alpha spending: Lan and
  DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70, 1983). Assumes nothing but
  independent seeds.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Trials after which half of the error probability may have been spent. With 3, five unanimous trials suffice for an
#: error of 0.05 (2^-5 = 0.05 * 5 / 8), the fewest that any test can do with; much is left for the trials after it.
SPENDING_TRIALS = 3


def looks(min_seeds: int, max_seeds: int) -> list[int]:
    """Numbers of seeds at which means are judged: min, twice that, ..., max."""
    counts = [min_seeds]
    while counts[-1] < max_seeds:
        counts.append(min(2 * counts[-1], max_seeds))
    return counts


def mean_limit(values: Array, alpha: float, *, upper: bool) -> float:
    """One-sided limit of the mean of `values` (S,) at error probability `alpha`, by Student's t.

    Equal values (all seeds without a late request) have no spread: the limit is their mean.
    """
    from scipy.special import stdtrit

    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.inf
    if spread == 0.0:
        return mean
    width = (
        float(stdtrit(len(values) - 1, 1 - alpha)) * spread / math.sqrt(len(values)) if len(values) > 1 else math.inf
    )
    return mean + width if upper else mean - width


def mean_interval(values: Array, alpha: float) -> tuple[float, float]:
    """Two-sided limits of the mean of `values` (S,), error probability `alpha` in total."""
    return mean_limit(values, alpha / 2, upper=False), mean_limit(values, alpha / 2, upper=True)


def spent(error: float, trials: int) -> float:
    """Error probability that may have been spent after so many trials; below `error` for ever."""
    return error * trials / (trials + SPENDING_TRIALS)


@lru_cache(maxsize=256)
def success_boundary(probability: float, error: float, max_trials: int) -> tuple[int, ...]:
    """Fewest successes that prove, after 1, 2, ... trials, that the true probability is above `probability`.

    `trials + 1` where no number of successes does. At a true probability of `probability` or less the chance that
    any of the first n counts reaches the boundary is at most `spent(error, n)`.
    """
    alive = np.ones(1)  # chance of each number of successes, not having crossed yet
    crossed = 0.0
    boundary = []
    for n in range(1, max_trials + 1):
        following = np.zeros(n + 1)
        following[:-1] += alive * (1 - probability)
        following[1:] += alive * probability
        tail = np.cumsum(following[::-1])[::-1]
        room = spent(error, n) - crossed
        # Rounding in the sums must not forbid a boundary that spends exactly the allowance.
        least = int(np.searchsorted(-tail, -room * (1 + 1e-9)))
        boundary.append(least)
        crossed += float(tail[least]) if least <= n else 0.0
        following[least:] = 0.0
        alive = following
    return tuple(boundary)
