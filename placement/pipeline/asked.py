"""How much less load the twin asks for where it refuses most of a placement.

A planning model that is wrong about one GPU is mended on that GPU. Where it is wrong about the workload (bursts that
its training never saw), every mending is refused again. Then the twin is asked at which load the refused GPUs would be
healthy, and everything is planned again with that much more room.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from placement.config import Run
from placement.pipeline.clock import Clock
from placement.problem import timing
from placement.problem.problem import GpuAssignment, Placement, PlacementProblem
from placement.solvers.greedy import Greedy
from placement.verify.alike import groups_alike
from placement.verify.pool import impatient
from placement.verify.verifier import OWN_WINDOWS, one_window
from twin.server.column import Column
from twin.server.settings import EngineSetting

if TYPE_CHECKING:
    from twin.figures.result import SimulationResult

Array = NDArray[np.float64]

#: Shares of the load that the twin is asked about; simulated hours of each, the first few alone; GPUs asked about.
LOADS: tuple[float, ...] = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
HOURS, ASKED = (6, 30), 2
#: Slots beside the GPU's own, in doublings.
SLOTS = (0.0, 1.0, 2.0)
FAR = 100.0
#: Room beyond what the twin was content with, as a share of the load: some of its hours may have been lucky.
MORE = 0.03
#: First of the seeds, which no verification uses; share of the time left for the search.
SEED, AGAIN = 500_000_000, 0.2


def judging_s(run: Run, problem: PlacementProblem, placement: Placement) -> float:
    """Seconds that the first look at a placement like this one takes, by one hour of its busiest GPU; 0 = not known."""
    hours, horizon_s = getattr(run.verifier, "hours", 0), getattr(run.verifier, "horizon_s", 0.0)
    if not hours or not horizon_s:
        return 0.0
    columns = placement.columns(problem)
    groups = groups_alike(columns, run.constraint.slo)
    busiest = columns[groups[0][0]]
    for seed in (SEED, SEED + 1):  # the first one loads what was compiled
        began = timing.now()
        one_window(busiest, run.calibration_of(busiest.setting), run.constraint, seed, horizon_s)
    windows = sum(max(hours, OWN_WINDOWS * len(group)) for group in groups)
    threads = getattr(run.verifier, "threads", None) or os.cpu_count() or 1
    return (timing.now() - began) * windows / threads


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
    run: Run, problem: PlacementProblem, gpus: Sequence[GpuAssignment], deadline: float, more: float = MORE
) -> dict[int, float]:
    """What share of its load each of the first few GPUs carries in the twin, less `more`: place -> share."""
    told = {}
    for k, gpu in enumerate(gpus[:ASKED]):
        column = Column(tuple(problem.items[i] for i in gpu.items), problem.options[gpu.option].setting)
        told[k] = _healthy_load(run, column, deadline) - more
    return {k: load for k, load in told.items() if np.isfinite(load)}


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
    # Types of GPU are farther from one another than numbers of slots.
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
