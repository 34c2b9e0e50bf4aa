"""Where a ray leaves the healthy set: the largest factor on all rates of a mix, found by bisection in the twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from twin.figures.health import stable
from twin.figures.result import SimulationResult

#: First step of the search, and the width at which it ends, in log(factor).
FIRST_STEP, WIDTH = 0.08, 0.01
#: Factors farther than this from the guess are not looked at, in log(factor).
FARTHEST = 4.0

#: What the seeds asked for say about a mix at a factor.
Simulate = Callable[[float], Sequence[SimulationResult]]


def boundary(guess: float, simulate: Simulate) -> float:
    """Largest healthy factor by the rule `stable`, within half a percent; NaN if there is none within `FARTHEST`.

    Args:
        guess: a factor to start from; a good one saves simulations.
    """

    def healthy(log_factor: float) -> bool:
        return stable(simulate(math.exp(log_factor))).healthy

    start = math.log(guess)
    step, low, high = FIRST_STEP, start, start
    upwards = healthy(start)
    while True:
        # Within rounding: start - (start - FARTHEST) may be less than FARTHEST.
        if max(high - start, start - low) > FARTHEST - WIDTH:
            return math.nan
        if upwards:
            high = min(low + step, start + FARTHEST)
            if not healthy(high):
                break
            low = high
        else:
            low = max(high - step, start - FARTHEST)
            if healthy(low):
                break
            high = low
        step *= 2.0
    while high - low > WIDTH:
        middle = 0.5 * (low + high)
        if healthy(middle):
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))
