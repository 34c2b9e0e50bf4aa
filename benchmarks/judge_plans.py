"""Plans of the named workloads, judged by the rule of the first version and by the present one, side by side.

Plans come straight from the solver: no verification loop corrects them, so that both judges see the same GPUs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.judge_power import verifier
from benchmarks.old_judge import old_accepts
from benchmarks.workloads import WORKLOADS, composed
from placement.config import load_run
from placement.pipeline import run_pipeline
from placement.pipeline.check import with_peaks
from placement.report.progress import progress
from twin.errors import InfeasibleError, InputError, NoSolutionError

if TYPE_CHECKING:
    from placement.report.result import Result
    from twin.figures.result import SimulationResult
    from twin.server.column import Column


@dataclass(frozen=True, slots=True)
class Judged:
    """One plan under both judges: GPUs that each accepts, refutes or leaves open, and seconds."""

    workload: str
    solver: str
    gpus: int
    old_accepted: int
    accepted: int
    refuted: int
    undecided: int
    peaks_broken: int
    hours: int
    solve_s: float
    judge_s: float
    problem: str = ""


def judged_plans(suite: str, solvers: Sequence[str], data: str, time_limit_s: float) -> Iterator[Judged]:
    """Plans and judges every workload of a suite; one whose trace is missing is left out with the reason."""
    for name, named in WORKLOADS.items():
        if named.large and suite == "quick":
            continue
        for solver in solvers:
            try:
                yield _judged(name, solver, data, time_limit_s)
            except (InputError, InfeasibleError, NoSolutionError) as error:
                yield Judged(name, solver, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, error.problem)


def _judged(name: str, solver: str, data: str, time_limit_s: float) -> Judged:
    began = time.perf_counter()
    config = composed(name, data, [f"solver={solver}", f"time_limit_s={time_limit_s:g}", "verify=none"])
    result = run_pipeline(load_run(config), progress(quiet=True))
    solved = time.perf_counter()
    judge = verifier("quick")
    run = replace(result.run, verifier=judge)
    checked = judge.columns(result.columns, run.calibrations, run.constraint, round_=0)
    checked = with_peaks(run, result, checked)
    finished = time.perf_counter()
    return Judged(
        workload=name,
        solver=solver,
        gpus=len(result.gpus),
        old_accepted=old_accepted(result),
        accepted=len(checked.having("accepted")),
        refuted=len(checked.having("refuted")),
        undecided=len(checked.having("undecided", "untested")),
        peaks_broken=sum(bool(p.broken) for p in checked.peaks),
        hours=sum(len(v.seeds) for v in checked.gpus),
        solve_s=solved - began,
        judge_s=finished - solved,
    )


def old_accepted(result: Result) -> int:
    """GPUs that the first version's rule accepts."""
    from twin.simulation import simulate

    run = result.run

    def verdict(column: Column) -> bool:
        def hour(seed: int) -> SimulationResult:
            return simulate(
                column,
                run.calibration_of(column.setting),
                seed=1_000_000 + seed,
                default_ttft_slo_s=run.constraint.slo.ttft_p99_s,
            )

        return old_accepts(hour, run.constraint)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return sum(pool.map(verdict, result.columns))
