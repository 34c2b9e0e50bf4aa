"""The room that a workload needs beyond the planning model's margin, where the twin refuses most of a placement.

A planning model that is wrong about one GPU is mended on that GPU. Where it is wrong about the workload (bursts that
its training never saw), every mending is refused again. Then the twin is asked at which load the refused GPUs would be
healthy, and everything is planned again with that much more room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from placement.config import Run
from placement.pipeline.clock import Clock, Progress
from placement.problem import timing
from placement.problem.problem import GpuAssignment, Placement, PlacementProblem
from placement.report.result import Result
from placement.solvers.greedy import Greedy
from placement.solvers.mending import warned
from placement.verify.pool import impatient
from placement.verify.verifier import one_window
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.wording import percent

if TYPE_CHECKING:
    from twin.figures.result import SimulationResult

Array = NDArray[np.float64]

#: Shares of the load that the twin is asked about; simulated hours of each, the first few alone; GPUs asked about.
LOADS: tuple[float, ...] = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
HOURS, ASKED = (6, 30), 2
#: Slots beside the GPU's own, in doublings.
SLOTS = (0.0, 1.0, 2.0)
#: Between types of GPU, in doublings of slots: another type is never the nearest one.
FAR = 100.0
#: Room beyond what the twin was content with, as a share of the load: some of its hours may have been lucky.
MORE = 0.03
#: All is planned again where at least this share of the GPUs is not accepted; so many times at most.
MOST_REFUSED, MOST_ASKED = 0.5, 4
#: Least share of a GPU's load that is taken for the room that others need.
LEAST = 0.5
#: Share of the time left for asking the twin.
ASKING = 0.3
#: First of the seeds, which no verification uses; share of the time left for the search.
SEED, AGAIN = 500_000_000, 0.2


def mostly_refused(result: Result, unwanted: Sequence[int]) -> bool:
    """Whether the planning model is wrong about the workload, not about a GPU, and the twin may be asked once more."""
    if result.problem.model is None or result.room_asked >= MOST_ASKED:
        return False
    return len(unwanted) >= MOST_REFUSED * len(result.gpus)


def replanned(run: Run, result: Result, unwanted: Sequence[int], progress: Progress, clock: Clock) -> bool:
    """Plans again with as much more room as these GPUs need in the twin; False where nothing was found."""
    assert result.placement is not None
    gpus = [result.placement.gpus[k] for k in unwanted]
    began = timing.now()
    with progress.stage(f"{len(unwanted)} GPUs at lighter loads"), clock.phase("hours at lighter loads"):
        loads = healthy_loads(run, result.problem, gpus, began + clock.left_s(ASKING))
    result.room_asked += 1
    if not np.nanmin(loads, initial=1.0) < 1.0:
        return False
    banned = warned(result.problem, gpus)
    with progress.stage("planning with more room"), clock.phase("planning with more room"):
        problem, found = planned_again(run, with_room(banned, loads), clock)
    result.rounds += 1
    result.solver_s += timing.now() - began
    if found is None:
        return False
    low, high = float(np.nanmin(loads)), float(np.nanmax(loads))
    result.warnings.append(
        f"the twin did not accept {len(unwanted)} of {len(result.gpus)} GPUs: they keep the rule at {percent(low)} of "
        f"their load{' or less' if low <= LOADS[-1] else ''}, at {percent(high)} with other slots; all was planned "
        "again with more room"
    )
    result.verification, result.simulated_objective, result.simulated_terms = None, None, {}
    result.placement, result.problem = found, problem
    if problem.max_gpus is not None and result.original.max_gpus is not None:
        result.original = replace(result.original, max_gpus=max(problem.max_gpus, result.original.max_gpus))
    return True


def healthy_loads(run: Run, problem: PlacementProblem, gpus: Sequence[GpuAssignment], deadline: float) -> Array:
    """The largest share of its load with which a GPU's hours keep the rule under each option, (O,).

    The busiest GPUs are asked about, under their own setting and with more slots; NaN where nobody asked.
    """
    settings = [o.setting for o in problem.options]
    slots = np.log2([max(s.max_loras, 1) for s in settings])
    loads = np.full(len(settings), np.nan)
    busiest = sorted(gpus, key=lambda g: -sum(problem.items[i].rate_req_per_s for i in g.items))
    for gpu in busiest[:ASKED]:
        for more in SLOTS:
            own = settings[gpu.option]
            alike = [k for k, s in enumerate(settings) if _kind(s) == _kind(own)]
            option = min(alike, key=lambda k: abs(slots[k] - slots[gpu.option] - more))
            column = Column(tuple(problem.items[i] for i in gpu.items), settings[option])
            found = _healthy_load(run, column, deadline)
            loads[option] = found if np.isnan(loads[option]) else np.fmin(loads[option], found)
    return loads


def _kind(setting: EngineSetting) -> tuple[str, int]:
    return setting.gpu_type, setting.max_lora_rank


def own_loads(
    run: Run, problem: PlacementProblem, gpus: Sequence[GpuAssignment], deadline: float, round_: int
) -> dict[int, float]:
    """What share of its load each of the first few GPUs carries in the twin, less more with each round."""
    told = {}
    for k, gpu in enumerate(gpus[:ASKED]):
        column = Column(tuple(problem.items[i] for i in gpu.items), problem.options[gpu.option].setting)
        told[k] = max(_healthy_load(run, column, deadline) - MORE * round_, LOADS[-1])
    return {k: load for k, load in told.items() if np.isfinite(load)}


def room_of(problem: PlacementProblem, gpus: Sequence[GpuAssignment], asked: Mapping[int, float]) -> Array:
    """What GPUs carry by `own_loads` as loads of their options, (O,), so that the next ones are not as full."""
    loads = np.full(len(problem.options), np.nan)
    for k, share in asked.items():
        option = gpus[k].option
        loads[option] = np.fmin(loads[option], max(share, LEAST))
    return loads


def _healthy_load(run: Run, column: Column, deadline: float) -> float:
    low, high = 0, len(LOADS) - 1  # the lightest is taken as healthy
    while low < high:
        if timing.up(deadline, "hours at lighter loads"):
            return math.nan
        middle = (low + high) // 2
        low, high = (low, middle) if _keeps(run, column, LOADS[middle]) else (middle + 1, high)
    return LOADS[high]


def _keeps(run: Run, column: Column, load: float) -> bool:
    lighter = replace(column, adapters=tuple(a.scaled(load) for a in column.adapters))
    calibration = run.calibration_of(column.setting)
    window_s = getattr(run.verifier, "horizon_s", 3600.0)
    results: list[SimulationResult] = []
    with impatient() as pool:
        for hours in HOURS:
            seeds = range(SEED + len(results), SEED + hours)
            results += pool.map(
                lambda seed: one_window(lighter, calibration, run.constraint, seed, window_s),
                seeds,
            )
            if run.constraint.broken(results) or any(map(run.constraint.broken_window, results)):
                return False
    return True


def with_room(problem: PlacementProblem, loads: Array) -> PlacementProblem:
    """The problem in which every GPU keeps more room: as much as loads of these shares need, (O,).

    Options that nobody asked about (NaN) keep at least as much as the nearest one in slots that somebody did.
    """
    room = np.maximum(problem.reserve or np.zeros(len(problem.options)), 0.0)
    told = np.flatnonzero(np.isfinite(loads))
    room[told] += MORE - np.log(loads[told])
    slots = np.log2([max(o.setting.max_loras, 1) for o in problem.options]) + FAR * problem.option_type
    nearest = told[np.abs(slots[:, None] - slots[told]).argmin(axis=1)]
    return replace(problem, reserve=tuple(np.maximum(room, room[nearest]).tolist()))


def planned_again(run: Run, problem: PlacementProblem, clock: Clock) -> tuple[PlacementProblem, Placement | None]:
    """A placement from scratch; the fleet grows where that is allowed."""
    free = any(t.count is None for t in run.gpu_types)
    if free:
        problem = replace(problem, max_gpus=None)
    quick = Greedy(seed=run.options.seed, local_search=False, quick=True)
    first = quick.solve(problem, time_limit_s=clock.left_s(AGAIN)).placement
    if first is None:
        return problem, None
    if not run.objective.prices_gpus and free:
        problem = replace(problem, max_gpus=run.objective.fleet_size(len(first.gpus), None))
    report = run.solver.solve(problem, time_limit_s=clock.left_s(AGAIN), warm_start=first)
    if report.termination == "interrupted":
        raise KeyboardInterrupt
    return problem, report.placement or first
