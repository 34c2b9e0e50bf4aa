"""Do plans keep what they promise? Whole runs on the named workloads, planned against simulated.

    python -m benchmarks.plans [suite=quick|full] [objectives=[latency,gpu_count]] [solvers=[portfolio]] [data=FOLDER]
        [surrogate=neural] [time_limit_s=60] [workloads=[...]]

A row is one run of `python -m placement` on a named workload (`benchmarks.workloads`). `simulated` is the objective on
fresh seeds (`hours` an hour each, seeds that no verification uses). E2E and ITL are simulated / planned - 1, by
traffic: on these seeds, and before the run's own hours corrected the model's level. `refuted` counts GPUs that the
twin refuted in the first round, before anything was mended. Fleets of `latency` are what the workload needs and a
quarter more.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np

from benchmarks.workloads import WORKLOADS, composed
from placement.config import load_run
from placement.pipeline import run_pipeline
from placement.report.figures import simulated_objective
from placement.report.progress import progress
from placement.report.result import Result
from placement.verify.verdict import ColumnVerdict, Verification
from surrogates.pieces.exact import Level
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InfeasibleError, InputError, NoSolutionError
from twin.server.column import Column

QUICK = ("default", "published_192", "servegen_40")
#: Seeds that no verification uses, and what is read of an hour.
FIRST_SEED = 900_000_000
FIGURES = ("e2e_mean_s", "itl_mean_ms", "ttft_mean_s", "ttft_p99_s", "kv_usage")
HEADER = (
    "workload", "objective", "solver", "status", "GPUs", "value", "simulated", "bound", "E2E %", "before", "ITL %",
    "before", "refuted", "rounds", "s", "",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    suite: str = "quick"
    objectives: tuple[str, ...] = ("latency", "gpu_count")
    solvers: tuple[str, ...] = ("portfolio",)
    surrogate: str = "neural"
    workloads: tuple[str, ...] = ()
    data: str = ""
    time_limit_s: Annotated[float, Range(above=0, high=86_400, unit="seconds")] = 60.0
    hours: Annotated[int, Range(1, 1000)] = 6
    #: One more option of every run, e.g. `hardware.count=3`.
    hardware: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Errors are simulated / planned - 1; NaN = nothing was simulated."""

    workload: str
    objective: str
    solver: str
    status: str
    gpus: int = 0
    value: float = math.nan
    simulated: float = math.nan
    bound: float = math.nan
    e2e_error: float = math.nan
    itl_error: float = math.nan
    e2e_before: float = math.nan
    itl_before: float = math.nan
    refuted: int = 0
    undecided: int = 0
    rounds: int = 0
    seconds: float = 0.0
    cut: str = ""
    problem: str = ""


def plan(name: str, objective: str, solver: str, options: Options) -> Row:
    """Runs one plan."""
    began = time.perf_counter()
    more = [
        f"solver={solver}", f"surrogate={options.surrogate}",
        f"time_limit_s={options.time_limit_s:g}", *((options.hardware,) if options.hardware else ()),
    ]  # fmt: skip
    try:
        config = composed(name, options.data, more, objective=objective)
        result = run_pipeline(load_run(config), progress(quiet=True))
    except (InputError, InfeasibleError, NoSolutionError) as error:
        took_s = time.perf_counter() - began
        return Row(name, objective, solver, "no plan", seconds=took_s, problem=error.problem)
    seconds = time.perf_counter() - began
    first = result.history[0] if result.history else {}
    simulated, e2e, itl = fresh(result, options.hours)
    level = next(iter((result.levels or {}).values()), Level())
    return Row(
        workload=name, objective=objective, solver=solver, status=result.status, gpus=len(result.gpus),
        value=result.objective, simulated=_known(simulated), bound=_known(result.bound),
        e2e_error=e2e, itl_error=itl, e2e_before=e2e + level.in_system - 1, itl_before=itl + level.decoding - 1,
        refuted=int(first.get("refuted", 0)), undecided=int(first.get("undecided", 0)),
        rounds=result.rounds, seconds=seconds, cut=", ".join(result.cut),
    )  # fmt: skip


def fresh(result: Result, hours: int) -> tuple[float | None, float, float]:
    """Objective on fresh seeds, and simulated / planned - 1 of mean E2E (by requests) and mean ITL (by tokens)."""
    from twin.simulation import simulate

    run = result.run
    jobs = [(column, FIRST_SEED + n) for column in result.columns for n in range(hours)]

    def hour(job: tuple[Column, int]) -> dict[str, float]:
        found = simulate(
            job[0], run.calibration_of(job[0].setting), seed=job[1], default_ttft_slo_s=run.constraint.slo.ttft_p99_s
        )
        return found.prediction_row()

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        rows = list(pool.map(hour, jobs))
    told = [
        {name: float(np.nanmean([r[name] for r in rows[k * hours : (k + 1) * hours]])) for name in FIGURES}
        for k in range(len(result.gpus))
    ]
    assert result.placement is not None
    verdicts = tuple(ColumnVerdict("accepted", "", (), t) for t in told)
    value, _ = simulated_objective(result.problem, result.placement, Verification(verdicts))
    planned = result.problem.columns_of([g.items for g in result.gpus], [g.option for g in result.gpus])
    in_system = planned.rate_req_per_s * np.array([t["e2e_mean_s"] for t in told])
    decoding = planned.output_tokens_per_s * np.array([t["itl_mean_ms"] for t in told]) / 1000
    return (
        value,
        float(in_system.sum() / planned.requests_in_system.sum() - 1),
        float(decoding.sum() / planned.decoding.sum() - 1),
    )


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def run(options: Options) -> int:
    names = options.workloads or (QUICK if options.suite == "quick" else tuple(WORKLOADS))
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise InputError(f"workload {unknown[0]!r} is not known", remedy=f"use some of {', '.join(WORKLOADS)}")
    rows = []
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|")
    for name in names:
        for objective in options.objectives:
            for solver in options.solvers:
                row = plan(name, objective, solver, options)
                rows.append(row)
                percents = [f"{100 * e:+.1f}" for e in (row.e2e_error, row.e2e_before, row.itl_error, row.itl_before)]
                cells = [
                    row.workload, row.objective, row.solver, row.status, row.gpus, f"{row.value:.4g}",
                    f"{row.simulated:.4g}", f"{row.bound:.4g}", *percents, row.refuted, row.rounds,
                    f"{row.seconds:.0f}", row.problem or (f"cut: {row.cut}" if row.cut else ""),
                ]  # fmt: skip
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(json.dumps(summary(rows)))
    return 0


def summary(rows: Sequence[Row]) -> dict[str, float | int | list[dict[str, object]]]:
    """What the rows say together."""
    told = [abs(100 * r.e2e_error) for r in rows if math.isfinite(r.e2e_error)]
    itl = [abs(100 * r.itl_error) for r in rows if math.isfinite(r.itl_error)]
    before = [abs(100 * r.e2e_before) for r in rows if math.isfinite(r.e2e_before)]
    gpus = sum(r.gpus for r in rows)
    return {
        "runs": len(rows),
        "verified": sum(r.status == "verified" for r in rows),
        "e2e_error_median_percent": float(np.median(told)) if told else math.nan,
        "e2e_error_worst_percent": max(told, default=math.nan),
        "e2e_before_median_percent": float(np.median(before)) if before else math.nan,
        "e2e_before_worst_percent": max(before, default=math.nan),
        "itl_error_median_percent": float(np.median(itl)) if itl else math.nan,
        "itl_error_worst_percent": max(itl, default=math.nan),
        "gpus": gpus,
        "refuted_percent": 100 * sum(r.refuted for r in rows) / max(gpus, 1),
        "slowest_s": max((r.seconds for r in rows), default=0.0),
        "rows": [asdict(r) for r in rows],
    }


APP = command("benchmarks.plans", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
