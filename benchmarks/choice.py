"""Would the twin choose another placement than the planning model?

    python -m benchmarks.choice [workloads=[default,servegen_40]] [gpus=3] [placements=8] [hours=10] [data=DIR]

Local search from different seeds ends in different placements of nearly the same value. All of them are simulated on
the same seeds, an hour each: a row is a placement, in the order of the planning model, and how much better (-) or worse
(+) than the model's first one it is in the twin, with the standard error of the paired difference. What the twin's own
choice among them gains is what a search by simulation could gain at this point.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import composed
from placement.config import Run, load_run
from placement.pipeline.clock import Clock
from placement.pipeline.job import posed
from placement.problem.problem import Placement, PlacementProblem
from placement.solvers.greedy import Greedy
from placement.solvers.milp import MilpSolver
from placement.solvers.perturb import iterate
from placement.solvers.search_state import state_of
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.server.column import Column
from twin.simulation import simulate

#: Columns that a search asks the planning model for, and the most seconds it may take; seeds of the hours.
WORK, SECONDS, FIRST_SEED = 25_000, 120.0, 800_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    workloads: tuple[str, ...] = ("default",)
    gpus: Annotated[int, Range(1, 1000)] = 3
    placements: Annotated[int, Range(2, 100)] = 8
    hours: Annotated[int, Range(2, 1000)] = 10
    data: str = ""


def candidates(problem: PlacementProblem, count: int) -> list[tuple[float, Placement]]:
    """Placements of different searches, best first by the planning model."""
    starts = [
        report.placement
        for report in (
            Greedy(effort=0.001).solve(problem, time_limit_s=SECONDS),
            MilpSolver().solve(problem, time_limit_s=SECONDS),
        )
        if report.placement is not None
    ]
    found = []
    for k in range(count):
        rng, end = np.random.default_rng(k), time.perf_counter() + SECONDS
        state = iterate(state_of(problem, starts[k % len(starts)]), rng, work=WORK, deadline=end)
        found.append((state.merit(), state.placement()))
    return sorted(found, key=lambda f: f[0])


def hourly_e2e_s(run: Run, problem: PlacementProblem, placement: Placement, hours: int) -> NDArray[np.float64]:
    """Mean E2E latency of a placement in each hour, s, (hours,)."""
    columns = placement.columns(problem)

    def hour(job: tuple[Column, int]) -> float:
        found = simulate(
            job[0], run.calibration_of(job[0].setting), seed=job[1], default_ttft_slo_s=run.constraint.slo.ttft_p99_s
        )
        return job[0].rate_req_per_s * found.prediction_row()["e2e_mean_s"]

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        loads = list(pool.map(hour, [(c, FIRST_SEED + n) for c in columns for n in range(hours)]))
    totals: NDArray[np.float64] = np.array(loads).reshape(len(columns), hours).sum(axis=0)
    return totals / problem.context.total_rate_req_per_s


def run(options: Options) -> int:
    gains = {}
    for name in options.workloads:
        made = load_run(composed(name, options.data, [f"hardware.count={options.gpus}"], objective="latency"))
        problem, _, _ = posed(made, Clock(SECONDS))
        base: NDArray[np.float64] | None = None
        best = 0.0
        for value, placement in candidates(problem, options.placements):
            simulated = hourly_e2e_s(made, problem, placement, options.hours)
            base = simulated if base is None else base
            difference = 100 * (simulated - base) / base.mean()
            error = float(difference.std(ddof=1)) / math.sqrt(options.hours)
            best = min(best, float(difference.mean()))
            print(
                f"{name:16s} planned {value:7.4f} s, simulated {simulated.mean():7.4f} s, "
                f"{difference.mean():+.2f} % +- {error:.2f}",
                flush=True,
            )
        gains[name] = round(-best, 3)
    print(json.dumps({"gain_of_the_twins_choice_percent": gains}))
    return 0


APP = command("benchmarks.choice", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
