"""Simulated rays in resumable shards: random mixes x settings x calibrations, each followed to its boundary.

A shard depends on seed, calibration and index alone and is written whole: a run that was stopped anywhere and
continued gives the same bytes as one that was not.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from surrogates.residual.around import random_calibration
from surrogates.residual.mixes import HARD, USUAL, Draw, draw
from surrogates.residual.search import boundary
from surrogates.residual.shards import METRICS, Ray, shard_path, write_header, write_shard
from surrogates.steady_state.model import largest_load
from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.figures.health import stable
from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.flags import GRID_FLAGS, setting_choices
from twin.server.memory import memory_error
from twin.server.settings import EngineSetting

log = logging.getLogger(__name__)

#: `simulate(column, calibration, seed, TTFT promise in s)`.
Simulate = Callable[[Column, Calibration, int, float], SimulationResult]
#: Keys of `RaySpec` that may be raised later: what is there stays.
GROWING = frozenset({"rays", "around", "rays_around"})
#: Columns inside and outside of the healthy part of a ray lie at these multiples of theta*.
INSIDE, OUTSIDE = (0.3, 0.97), (1.03, 1.5)
#: The search starts within this distance of the physics' guess, in log(factor): where noise makes several boundaries,
#: the one nearest to the guess must not be found every time.
START = 0.1
#: Tokens/s from which a boundary is sought that the physics does not see.
LIGHT_TPS = 1000.0


@dataclass(frozen=True, slots=True)
class RaySpec:
    """What to simulate.

    Args:
        calibrations: shipped calibrations. rays: of each, rounded up to whole shards, so that more can be added.
        around: calibrations drawn at random around them in turn (`surrogates.residual.around`). rays_around: of each.
        hard: share of the rays that are drawn where the physics is weakest (`mixes.HARD`).
        inside, outside: columns between 30 and 97 % of the boundary, and between 103 and 150 %.
        grid: flags of the engine, `max_loras` and `max_lora_rank` as lists; what does not fit is left out.
    """

    calibrations: tuple[str, ...]
    rays: Annotated[int, Range(0)]
    around: Annotated[int, Range(0)]
    rays_around: Annotated[int, Range(0)]
    grid: Any
    seed: Annotated[int, Range(0)] = 0
    hard: Annotated[float, Range(0, 1)] = 0.0
    horizon_s: Annotated[float, Range(above=0, unit="seconds")] = 3600.0
    inside: Annotated[int, Range(0)] = 5
    outside: Annotated[int, Range(0)] = 1
    shard_size: Annotated[int, Range(1)] = 20

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"rays.{name}")

    def counts(self, shipped: Sequence[Calibration]) -> dict[str, tuple[Calibration, int]]:
        """All calibrations by name, each with its number of rays."""
        found = {c.name: (c, self.rays) for c in shipped}
        for k in range(self.around):
            c = random_calibration(shipped[k % len(shipped)], self.seed, k)
            found[c.name] = (c, self.rays_around)
        return found

    def shards(self, counts: Mapping[str, tuple[Calibration, int]]) -> list[tuple[str, int]]:
        """Calibration and number of every shard, in the order in which they are made: all calibrations grow alike."""
        tasks = []
        for name, (_, rays) in counts.items():
            whole = -(-rays // self.shard_size)
            tasks += [((k + 0.5) / whole, name, k) for k in range(whole)]
        return [(name, k) for _, name, k in sorted(tasks)]


def usable_settings(grid: Any, calibration: Calibration) -> list[EngineSetting]:
    """Settings of a grid under which vLLM starts.

    Raises:
        InputError: there is none.
    """
    choices = setting_choices(grid, calibration.stamp.gpu_type, where="grid", lists=GRID_FLAGS)
    usable = [s for s in choices if memory_error(s, calibration) is None]
    if not usable:
        raise InputError(
            f"under no setting of the grid does the KV cache of {calibration.name!r} hold the longest request",
            where="grid",
            remedy="use fewer slots, lower ranks or a smaller max_model_len",
        )
    return usable


def make_rays(
    folder: Path,
    spec: RaySpec,
    shipped: Sequence[Calibration],
    simulate: Simulate,
    *,
    threads: int = 2,
    on_shard: Callable[[], None] = lambda: None,
) -> int:
    """Simulates all shards that are missing in `folder`; returns how many were made.

    The kernel releases the GIL, so threads run in parallel. On an interrupt the finished shards stay.

    Raises:
        InputError: the folder holds rays made with other options.
    """
    counts = spec.counts(shipped)
    settings = {name: usable_settings(spec.grid, c) for name, (c, _) in counts.items()}
    write_header(folder, asdict(spec), [c for c, _ in counts.values()], GROWING)
    missing = [(name, k) for name, k in spec.shards(counts) if not shard_path(folder, name, k).is_file()]
    log.info("%d shards are to be made in %s", len(missing), folder)
    stop = threading.Event()

    def stoppable(column: Column, calibration: Calibration, seed: int, slo_s: float) -> SimulationResult:
        if stop.is_set():
            raise InterruptedError
        return simulate(column, calibration, seed, slo_s)

    def make(name: str, shard: int) -> None:
        first, calibration = shard * spec.shard_size, counts[name][0]
        which = range(first, first + spec.shard_size)
        made = [trace(spec, k, settings[name], calibration, stoppable) for k in which]
        write_shard(shard_path(folder, name, shard), made)

    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(make, *task) for task in missing]
        try:
            for job in as_completed(jobs):
                job.result()
                on_shard()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return len(missing)


def physics_guess(drawn: Draw, calibration: Calibration) -> float:
    """theta* of a mix by the physics alone; NaN if it sees no healthy factor."""
    column = Column(drawn.mix.adapters(), drawn.setting)
    return float(largest_load([column], calibration, default_ttft_slo_s=drawn.slo_s)[0])


def start_of(drawn: Draw, guess: float, rng: np.random.Generator) -> float:
    """Factor from which the boundary is sought."""
    return (guess if math.isfinite(guess) else light_factor(drawn)) * math.exp(rng.uniform(-START, START))


def light_factor(drawn: Draw) -> float:
    """Factor that makes a mix a light load."""
    mix = drawn.mix
    return LIGHT_TPS / float((mix.rate_req_per_s * (mix.prompt_mean + mix.output_mean)).sum())


def trace(
    spec: RaySpec, index: int, settings: Sequence[EngineSetting], calibration: Calibration, simulate: Simulate
) -> Ray:
    """Draws a ray, finds its boundary and simulates columns on both sides of it."""
    rng = np.random.default_rng([spec.seed, index, *calibration.name.encode()])
    hard = spec.hard > 0.0 and rng.random() < spec.hard
    drawn = draw(rng, settings, HARD if hard else USUAL)
    loads: list[float] = []
    results: list[SimulationResult] = []

    def run(factor: float) -> list[SimulationResult]:
        column = Column(drawn.mix.adapters(factor), drawn.setting)
        loads.append(factor)
        results.append(simulate(column, calibration, drawn.simulation_seed, drawn.slo_s))
        return results[-1:]

    guess = physics_guess(drawn, calibration)
    theta = boundary(start_of(drawn, guess, rng), run)
    # Drawn in any case, so that what follows does not depend on what was found.
    within = INSIDE[0] + (INSIDE[1] - INSIDE[0]) * (np.arange(spec.inside) + rng.random(spec.inside)) / spec.inside
    beyond = np.exp(rng.uniform(math.log(OUTSIDE[0]), math.log(OUTSIDE[1]), spec.outside))
    if math.isfinite(theta):
        for share in np.append(within, beyond).tolist():
            run(theta * share)
    metrics = {name: np.array([float(r.row[name]) for r in results]) for name in METRICS}
    healthy = np.array([stable([r]).healthy for r in results])
    return Ray(calibration.name, index, drawn, guess, theta, np.array(loads), healthy, metrics)
