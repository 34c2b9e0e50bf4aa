"""Fresh seeds, one after the other, as long as a question is open; shared by `twin.confidence.decide` and
`twin.confidence.comparison`.

A short window is no cheap stand-in for an hour: 600 s are *biased* (starved throughput -12 %, queues still
growing), and no number of seeds repairs that. Questions of health refuse windows below half an hour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from twin.confidence.sequential import looks
from twin.config.ranges import Range, check, check_fields
from twin.errors import InputError

if TYPE_CHECKING:
    from twin.figures.result import SimulationResult
    from twin.server.calibration import Calibration
    from twin.server.column import Column

Array = NDArray[np.float64]
#: One simulation under a seed.
Run = Callable[[int], "SimulationResult"]
Stopped = Literal["decided", "budget"]

#: Seeds start here; neither training nor verification uses these.
FIRST_SEED = 500_000
MIN_SEEDS = 3
#: Shortest window that a label may rest on, seconds.
MIN_HORIZON_S = 1800.0


def runner(column: Column, calibration: Calibration, *, horizon_s: float = 3600.0, **options: Any) -> Run:
    """`simulate` as a function of the seed; `options` go to `twin.simulation.simulate`."""
    from twin.simulation import simulate

    return lambda seed: simulate(column, calibration, horizon_s=horizon_s, seed=seed, **options)


def why(stopped: Stopped, error: float) -> str:
    return f"error below {100 * error:g} %" if stopped == "decided" else "seed budget spent"


def relative_width(low: float, high: float, mean: float) -> float:
    half = (high - low) / 2
    return 0.0 if half == 0 else half / abs(mean) if mean else math.inf


@dataclass(frozen=True, slots=True)
class Budget:
    """How many seeds a question may take, and how sure the answer must be.

    Args:
        error: probability that the answer is wrong, at most.
        min_seeds, max_seeds: seeds before the first look, and in all.
        first_seed: seeds count up from here.
        threads: simulations at the same time.
    """

    error: Annotated[float, Range(above=0, below=0.5, hint="a probability, e.g. 0.01")]
    min_seeds: Annotated[int, Range(MIN_SEEDS, hint="a spread needs at least 3 seeds")]
    max_seeds: int
    first_seed: Annotated[int, Range(0)]
    threads: Annotated[int, Range(1)]

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.max_seeds, "max_seeds", Range(self.min_seeds, whole=True, hint="at least min_seeds"))

    def seeds(self, count: int) -> tuple[int, ...]:
        """The first `count` seeds."""
        return tuple(range(self.first_seed, self.first_seed + count))


def short_window(results: Sequence[Any]) -> str:
    """What is wrong with the length of the windows; empty if nothing."""
    return short_windows(min(r.horizon_s for r in results))


def short_windows(seconds: float) -> str:
    """What is wrong with windows of this length; empty if nothing."""
    if seconds >= MIN_HORIZON_S:
        return ""
    return (
        f"windows of {seconds:g} s are below {MIN_HORIZON_S:g} s: they are biased, not only noisy (600 s: starved "
        "throughput -12 %)"
    )


def refuse_short(results: Sequence[Any]) -> None:
    problem = short_window(results)
    if problem:
        raise InputError(problem, remedy="simulate an hour (horizon_s=3600); it costs some 0.1 s")


def figure(result: SimulationResult, metric: str) -> float:
    if metric not in result.row:
        raise InputError(f"unknown figure {metric!r}", remedy=f"choose one of: {', '.join(result.row)}")
    return result.row[metric]


def sequential_values(
    values_of: Callable[[int], float], decided: Callable[[Array, float], bool], budget: Budget
) -> tuple[Array, float, Stopped]:
    """Values until `decided(values, alpha)`, alpha being each look's part of the error probability."""
    schedule = looks(budget.min_seeds, budget.max_seeds)
    alpha = budget.error / len(schedule)
    values = np.empty(0)
    with ThreadPoolExecutor(max_workers=budget.threads) as pool:
        for count in schedule:
            fresh = pool.map(values_of, budget.seeds(count)[len(values) :])
            values = np.append(values, list(fresh))
            if np.isfinite(values).all() and decided(values, alpha):
                return values, alpha, "decided"
    return values, alpha, "budget"
