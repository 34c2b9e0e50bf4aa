"""A share of bad trials: how many trials rule it out, and how many bad ones may be among them.

For figures with a heavy tail: an hour in which half of the requests are late, once in twenty hours, moves no mean and
no spread until it is seen. What *can* be ruled out without any assumption on the figures is the share of such hours.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=1024)
def allowed_failures(share: float, error: float, looks: tuple[int, ...]) -> tuple[int, ...]:
    """Most bad trials at each look with which a share of `share` or more is ruled out; -1 where nothing rules it out.

    An exact group-sequential test: where the true share is `share` or more, the chance that any of the first j looks
    accepts is at most `error * j / len(looks)` (alpha spending; the binomial walk is summed).

    Args:
        looks: ascending numbers of trials.
    """
    alive = np.ones(1)  # chance of each number of failures, not having been accepted yet
    accepted, done = 0.0, 0
    allowed = []
    for j, trials in enumerate(looks, start=1):
        for _ in range(done, trials):
            following = np.zeros(len(alive) + 1)
            following[:-1] += alive * (1 - share)
            following[1:] += alive * share
            alive = following
        done = trials
        below = np.cumsum(alive)
        # Rounding in the sums must not forbid a number that spends exactly the allowance.
        most = int(np.searchsorted(below, (error * j / len(looks) - accepted) * (1 + 1e-9), side="right")) - 1
        allowed.append(most)
        if most >= 0:
            accepted += float(below[most])
            alive[: most + 1] = 0.0
    return tuple(allowed)
