"""Which of two columns, settings or policies has more of a figure: paired seeds (common random numbers)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twin.confidence.seeds import (
    FIRST_SEED,
    MIN_SEEDS,
    Budget,
    Run,
    Stopped,
    figure,
    sequential_values,
    short_window,
    why,
)
from twin.confidence.sequential import mean_interval
from twin.config.ranges import Range, check

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figure of b minus that of a, the same seeds for both.

    Args:
        mean, low, high: of the differences; limits hold with probability `1 - error`.
        larger: "a", "b", "equal" (the whole interval lies within the tolerance) or None (open).
        variance_reduction: (variance of a + variance of b) / variance of the differences: how many times more
            pairs of *independent* seeds the same interval would take. Infinite if the differences do not vary.
        correlation: of a and b over the seeds; NaN if one of them does not vary.
        a, b: values of each seed, (S,).
    """

    metric: str
    mean: float
    low: float
    high: float
    error: float
    stopped: Stopped
    larger: Literal["a", "b", "equal"] | None
    variance_reduction: float
    correlation: float
    a: Array
    b: Array
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.metric}: b - a = {self.mean:.6g} [{self.low:.6g}, {self.high:.6g}], {len(self.seeds)} seeds "
            f"({why(self.stopped, self.error)}); common random numbers save a factor {self.variance_reduction:.3g}"
        )


def compare(
    run_a: Run,
    run_b: Run,
    metric: str,
    *,
    tolerance: float = 0.0,
    error: float = 0.05,
    min_seeds: int = MIN_SEEDS,
    max_seeds: int = 48,
    first_seed: int = FIRST_SEED,
    threads: int = 2,
) -> Comparison:
    """Which of two columns, settings or policies has the larger mean of a figure, by common random numbers.

    Both see the same seeds; the paired differences b - a get a Student-t interval at `error / number of looks`.
    Stops when the interval leaves zero, or lies within +- `tolerance` (then they are `equal`), or the budget ends.
    The same seed draws the same requests as long as the adapters and their traffic are the same (settings and
    policies); for other traffic pass `requests=` through `runner`, or see how little `variance_reduction` is.

    Raises:
        InputError: unknown figure or impossible numbers.
    """
    check(tolerance, "tolerance", Range(0, hint="in the figure's unit"))
    pairs: dict[int, tuple[float, float]] = {}
    notes: set[str] = set()

    def difference(seed: int) -> float:
        a, b = run_a(seed), run_b(seed)
        notes.update(filter(None, [short_window([a, b])]))
        pairs[seed] = figure(a, metric), figure(b, metric)
        return pairs[seed][1] - pairs[seed][0]

    def outcome(values: Array, alpha: float) -> Literal["a", "b", "equal"] | None:
        low, high = mean_interval(values, alpha)
        if low > tolerance or (low > 0 and tolerance == 0):
            return "b"
        if high < -tolerance or (high < 0 and tolerance == 0):
            return "a"
        return "equal" if -tolerance <= low and high <= tolerance else None

    budget = Budget(error, min_seeds, max_seeds, first_seed, threads)
    values, alpha, stopped = sequential_values(difference, lambda v, al: outcome(v, al) is not None, budget)
    seeds = budget.seeds(len(values))
    a, b = (np.array([pairs[s][i] for s in seeds]) for i in (0, 1))
    low, high = mean_interval(values, alpha)
    apart, together = float(a.var(ddof=1) + b.var(ddof=1)), float(values.var(ddof=1))
    varies = a.std() > 0 and b.std() > 0
    return Comparison(
        metric=metric,
        mean=float(values.mean()),
        low=low,
        high=high,
        error=error,
        stopped=stopped,
        larger=outcome(values, alpha) if stopped == "decided" else None,
        variance_reduction=apart / together if together > 0 else math.inf,
        correlation=float(np.corrcoef(a, b)[0, 1]) if varies else math.nan,
        a=a,
        b=b,
        seeds=seeds,
        notes=tuple(sorted(notes)),
    )
