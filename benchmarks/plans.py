"""Do plans keep what they promise? Whole runs on the named workloads, planned against simulated.

    python -m benchmarks.plans [suite=quick|full] [objectives=[latency,gpu_count]] [solvers=[portfolio]] [data=FOLDER]
        [surrogate=neural] [time_limit_s=60] [workloads=[...]]

A row is one run of `python -m placement` on a named workload (`benchmarks.workloads`): mean E2E and ITL planned and
simulated, weighted by traffic, from the hours of the verification; GPUs that the twin refuted in the first round, before
anything was mended; the bound. Fleets of `latency` are what the workload needs, with a quarter more.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np

from benchmarks.workloads import WORKLOADS, composed
from placement.config import load_run
from placement.pipeline import run_pipeline
from placement.report.progress import progress
from placement.report.result import Result
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InfeasibleError, InputError, NoSolutionError

QUICK = ("default", "published_192", "servegen_40")


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
        f"time_limit_s={options.time_limit_s:g}",
    ]  # fmt: skip
    try:
        config = composed(name, options.data, more, objective=objective)
        result = run_pipeline(load_run(config), progress(quiet=True))
    except (InputError, InfeasibleError, NoSolutionError) as error:
        took_s = time.perf_counter() - began
        return Row(name, objective, solver, "no plan", seconds=took_s, problem=error.problem)
    first = result.history[0] if result.history else {}
    e2e, itl = errors(result)
    return Row(
        workload=name, objective=objective, solver=solver, status=result.status, gpus=len(result.gpus),
        value=result.objective, simulated=_known(result.simulated_objective), bound=_known(result.bound),
        e2e_error=e2e, itl_error=itl, refuted=int(first.get("refuted", 0)), undecided=int(first.get("undecided", 0)),
        rounds=result.rounds, seconds=time.perf_counter() - began, cut=", ".join(result.cut),
    )  # fmt: skip


def errors(result: Result) -> tuple[float, float]:
    """Simulated / planned - 1 of mean E2E (by requests) and mean ITL (by tokens)."""
    if result.verification is None or result.placement is None:
        return math.nan, math.nan
    planned = result.problem.columns_of([g.items for g in result.gpus], [g.option for g in result.gpus])
    told = [v.simulated for v in result.verification.gpus]
    e2e_s = np.array([t.get("e2e_mean_s", math.nan) for t in told])
    itl_s = np.array([t.get("itl_mean_ms", math.nan) for t in told]) / 1000
    in_system, decoding = planned.rate_req_per_s * e2e_s, planned.output_tokens_per_s * itl_s
    return (
        float(in_system.sum() / planned.requests_in_system.sum() - 1),
        float(decoding.sum() / planned.decoding.sum() - 1),
    )


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def run(options: Options) -> int:
    names = options.workloads or (QUICK if options.suite == "quick" else tuple(WORKLOADS))
    rows = []
    print("| workload | objective | solver | status | GPUs | value | simulated | bound | E2E | ITL | refuted | rounds | s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        for objective in options.objectives:
            for solver in options.solvers:
                row = plan(name, objective, solver, options)
                rows.append(row)
                print(
                    f"| {row.workload} | {row.objective} | {row.solver} | {row.status} | {row.gpus} | {row.value:.4g} | "
                    f"{row.simulated:.4g} | {row.bound:.4g} | {100 * row.e2e_error:+.1f} % | "
                    f"{100 * row.itl_error:+.1f} % | {row.refuted} | {row.rounds} | {row.seconds:.0f} |"
                    + (f" {row.problem}" if row.problem else "") + (f" cut: {row.cut}" if row.cut else ""),
                    flush=True,
                )  # fmt: skip
    print(json.dumps(summary(rows)))
    return 0


def summary(rows: Sequence[Row]) -> dict[str, float | int | list[dict[str, object]]]:
    """What the rows say together."""
    told = [abs(100 * r.e2e_error) for r in rows if math.isfinite(r.e2e_error)]
    itl = [abs(100 * r.itl_error) for r in rows if math.isfinite(r.itl_error)]
    gpus = sum(r.gpus for r in rows)
    return {
        "runs": len(rows),
        "verified": sum(r.status == "verified" for r in rows),
        "e2e_error_median_percent": float(np.median(told)) if told else math.nan,
        "e2e_error_worst_percent": max(told, default=math.nan),
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
