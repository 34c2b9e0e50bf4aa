"""Fresh rays for `benchmarks.surrogates`: drawn and labelled by the twin at call time, several seeds pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogates.residual.mixes import Draw, draw
from surrogates.residual.rays import physics_guess, start_of, usable_settings
from surrogates.residual.search import boundary
from twin.figures.health import MAX_ADAPTER_LATE_SHARE, MAX_LATE_SHARE, stable
from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.settings import DEFAULT_MAX_LORA_RANKS, DEFAULT_MAX_LORAS
from twin.simulation import simulate

Floats = NDArray[np.float64]

GRID = {"max_loras": list(DEFAULT_MAX_LORAS), "max_lora_rank": list(DEFAULT_MAX_LORA_RANKS)}
#: Columns inside (labels of N, ITL, TTFT and lateness) and outside of the healthy part (lateness only): ranges of
#: load / theta*, and columns in each. What is within 2 % of the boundary is not asked for.
INSIDE, NEAR_INSIDE, OUTSIDE = (0.3, 0.98), (0.8, 0.98), (1.02, 1.25)
COLUMNS = (3, 1, 2)
#: Figures of the twin that are compared.
METRICS = ("requests_in_system", "running", "itl_mean_ms", "ttft_mean_s", "ttft_p99_s")


@dataclass(frozen=True, slots=True)
class Label:
    """What the twin says of one ray.

    Args:
        theta: of all seeds pooled. theta_again: with as many other seeds; NaN = not asked.
        loads: of the columns, factors on the rates, (C,). healthy: in the twin, all seeds pooled, (C,).
        in_time: late shares of all requests and of an adapter are within their limits, (C,).
        metrics: by name and seed, (C, S).
    """

    calibration: Calibration
    draw: Draw
    theta: float
    theta_again: float
    loads: Floats
    healthy: NDArray[np.bool_]
    in_time: NDArray[np.bool_]
    metrics: dict[str, Floats]


def label_ray(calibration: Calibration, seed: int, index: int, seeds: int, again: bool) -> Label:
    """Draws a ray and asks the twin for its boundary and for columns on both sides."""
    rng = np.random.default_rng([seed, index, *calibration.name.encode(), 7])
    drawn = draw(rng, usable_settings(GRID, calibration))

    def run(factor: float, first: int) -> list[SimulationResult]:
        column = Column(drawn.mix.adapters(factor), drawn.setting)
        return [
            simulate(column, calibration, seed=drawn.simulation_seed + first + k, default_ttft_slo_s=drawn.slo_s)
            for k in range(seeds)
        ]

    guess = physics_guess(drawn, calibration)
    theta = boundary(start_of(drawn, guess, rng), lambda factor: run(factor, 0))
    start = start_of(drawn, guess, rng)
    theta_again = boundary(start, lambda factor: run(factor, seeds)) if again else math.nan
    parts = zip((INSIDE, NEAR_INSIDE, OUTSIDE), COLUMNS, strict=True)
    shares = np.concatenate([rng.uniform(*between, count) for between, count in parts])
    if not math.isfinite(theta):
        shares = shares[:0]
    results = [run(theta * share, 0) for share in shares.tolist()]
    return Label(
        calibration,
        drawn,
        theta,
        theta_again,
        theta * shares,
        np.array([stable(r).healthy for r in results], np.bool_),
        np.array([_in_time(r) for r in results], np.bool_),
        {name: np.array([[x.row[name] for x in r] for r in results]).reshape(-1, seeds) for name in METRICS},
    )


def _in_time(results: Sequence[SimulationResult]) -> bool:
    late = np.mean([r.row["late_fraction"] for r in results])
    return bool(
        late <= MAX_LATE_SHARE and np.mean([r.row["adapter_late_fraction"] for r in results]) <= MAX_ADAPTER_LATE_SHARE
    )


def label_rays(
    tasks: Sequence[tuple[Calibration, int]], *, seed: int, seeds: int, threads: int, repeat_every: int
) -> list[Label]:
    """Labels of rays given as calibration and index, in order; every so manieth is labelled twice."""

    def job(task: tuple[int, tuple[Calibration, int]]) -> Label:
        k, (calibration, index) = task
        return label_ray(calibration, seed, index, seeds, again=k % repeat_every == 0)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(job, enumerate(tasks)))
