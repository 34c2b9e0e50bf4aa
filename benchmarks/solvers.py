"""Every solver and every objective on the same problems, against simple baselines.

    python -m benchmarks.solvers [suite=quick|full] [time_limit_s=10] [surrogate=neural|physics|analytic] [seeds=3]

Instances: named workloads (`benchmarks.workloads`). `value`, `bound` and `gap` belong to the planning model; `verified`
and `starved_gpus` come from the twin, rule `stable`, requests of all seeds pooled. The solvers run once: no
verification loop, no tightening. `seeds=0` leaves the twin out.

Not measured: solver memory, several GPU types, the effect of tightening, spread over repeated runs.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from benchmarks.baselines import BASELINES, place, smallest
from benchmarks.workloads import named_workload
from placement.problem.build import build_problem
from placement.problem.objectives import GpuCount, MeanE2E, Objective
from placement.problem.problem import Placement, PlacementProblem, evaluate, violations
from placement.problem.solver import Solver
from placement.solvers.bounds import certified_minimum
from placement.solvers.cpsat import CpSat
from placement.solvers.greedy import Greedy
from placement.solvers.greedy_published import GreedyPublished
from placement.solvers.milp import MilpSolver
from surrogates.model.analytic import AnalyticSurrogate
from surrogates.model.planning import PlanningModel
from surrogates.pieces.model import load_planning_model, physics_planning
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError
from twin.figures.health import Stable, stable
from twin.server.calibration import Calibration, load_calibration
from twin.server.memory import memory_error
from twin.server.settings import setting_grid
from twin.simulation import simulate_many
from twin.workload.workload import Workload

CALIBRATION = "llama-3.1-8b-h100-64gb"
MAX_LORAS, MAX_RANKS = (8, 16, 32, 64, 96, 128, 160, 192, 256, 320, 384), (8, 16, 32)
SOLVERS: tuple[Solver, ...] = (Greedy(), GreedyPublished(), CpSat(), MilpSolver())
OBJECTIVES = {
    "gpu_count": Objective((GpuCount(),)),
    "latency": Objective((MeanE2E(),)),
    "weighted": Objective((GpuCount(), MeanE2E(scale=2.0))),
}
HORIZON_S = 3600.0


#: Named workloads of a suite (`benchmarks.workloads`).
SUITES = {
    "quick": ("published_192", "power_law_300_30"),
    "full": ("published_192", "power_law_300_30", "published_384", "power_law_1000_150", "power_law_3000_300"),
}


def workloads(suite: str) -> dict[str, Workload]:
    """Instances of a suite.

    Raises:
        InputError: unknown suite.
    """
    if suite not in SUITES:
        raise InputError(f"suite {suite!r} is unknown", remedy="use suite=quick or suite=full")
    return {name: named_workload(name) for name in SUITES[suite]}


def planning_model(name: str, calibration: Calibration, workload: Workload) -> PlanningModel:
    """The planning model of a workload: the physics with its residual, without it, or the closed form."""
    if name == "neural":
        return load_planning_model(calibration, workload, Stable())
    if name == "physics":
        return physics_planning(calibration, workload, Stable())
    if name == "analytic":
        return AnalyticSurrogate({calibration.stamp.gpu_type: calibration})
    raise InputError(f"surrogate {name!r} is unknown", remedy="use surrogate=neural, physics or analytic")


def problem_of(workload: Workload, planning: PlanningModel, calibration: Calibration) -> PlacementProblem:
    """GPU-count problem over all settings that start and that the model knows."""
    settings = []
    for setting in setting_grid((calibration.stamp.gpu_type,), MAX_LORAS, MAX_RANKS):
        try:
            if memory_error(setting, calibration) is None:
                planning.option(setting)
                settings.append(setting)
        except InputError:
            continue
    gpu = replace(calibration.gpu, name=calibration.stamp.gpu_type)
    return build_problem(workload, planning, settings, (gpu,), (GpuCount(),))


def in_twin(
    problem: PlacementProblem, placement: Placement | None, calibration: Calibration, seeds: int
) -> dict[str, Any]:
    """Whether every GPU is healthy in the twin, and how many are not; None without seeds or placement."""
    if placement is None or seeds == 0:
        return {"verified": None, "starved_gpus": None}
    columns = placement.columns(problem)
    results = simulate_many(columns, calibration, seeds=range(500_000, 500_000 + seeds), horizon_s=HORIZON_S, threads=2)
    starved = sum(not stable(of_column).healthy for of_column in results)
    return {"verified": starved == 0, "starved_gpus": starved}


def solver_row(
    problem: PlacementProblem, solver: Solver, time_limit_s: float, calibration: Calibration, seeds: int
) -> dict[str, Any] | None:
    """Figures of one solver, or None if it does not support the objective."""
    try:
        report = solver.solve(problem, time_limit_s=time_limit_s)
    except InputError:
        return None
    if report.placement is not None and violations(problem, report.placement):
        raise AssertionError(f"{solver.name}: {violations(problem, report.placement)[0]}")
    return {
        "solver": solver.name,
        "value": _number(report.objective),
        "bound": _number(report.bound),
        "gap": _number(report.gap),
        "runtime_s": round(report.runtime_s, 2),
        "gpus": len(report.placement.gpus) if report.placement else None,
        **in_twin(problem, report.placement, calibration, seeds),
    }


def baseline_row(
    problem: PlacementProblem, name: str, minimum: int, calibration: Calibration, seeds: int
) -> dict[str, Any]:
    """A baseline on the fleet of the objective, or on the fewest GPUs that the planning model accepts for it."""
    began = time.perf_counter()
    if problem.max_gpus is not None:
        planned = place(problem, BASELINES[name], problem.max_gpus)
    else:
        planned = smallest(problem, BASELINES[name], minimum, 2 * minimum + 10)
    posed, placement = (planned.problem, planned.placement) if planned is not None else (problem, None)
    feasible = placement is not None and not violations(posed, placement)
    return {
        "solver": name,
        "value": _number(evaluate(posed, placement)[0]) if placement is not None and feasible else None,
        "bound": None,
        "gap": None,
        "runtime_s": round(time.perf_counter() - began, 2),
        "gpus": len(placement.gpus) if placement is not None else None,
        **in_twin(posed, placement, calibration, seeds),
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


def show(row: Mapping[str, Any]) -> None:
    """One line of the table."""
    text = {k: "-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()}
    gap = "-" if row["gap"] is None else f"{100 * row['gap']:.2f} %"
    print(
        f"{text['name']:20}{text['objective']:11}{text['solver']:18}{text['value']:>9}{text['bound']:>9}{gap:>9}"
        f"{text['runtime_s']:>9}{text['gpus']:>6}{text['starved_gpus']:>9}",
        flush=True,
    )


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    suite: str = "quick"
    time_limit_s: Annotated[float, Range(above=0, unit="seconds")] = 10.0
    surrogate: str = "neural"
    seeds: Annotated[int, Range(1)] = 3


def run(options: Options) -> int:
    calibration = load_calibration(CALIBRATION)
    seeds, limit = options.seeds, options.time_limit_s
    rows: dict[str, list[dict[str, Any]]] = {"instances": [], "baselines": []}
    print(
        f"{'instance':20}{'objective':11}{'solver':18}{'value':>9}{'bound':>9}{'gap':>9}{'seconds':>9}{'GPUs':>6}"
        f"{'starved':>9}"
    )
    for name, workload in workloads(options.suite).items():
        planning = planning_model(options.surrogate, calibration, workload)
        counted = problem_of(workload, planning, calibration)
        minimum = certified_minimum(counted, limit)
        if minimum is None:
            raise InputError(f"no GPU count could be certified for {name}", remedy="raise time_limit_s")
        for label, objective in OBJECTIVES.items():
            problem = replace(counted, terms=objective.terms, max_gpus=objective.fleet_size(minimum, None))
            head = {"name": name, "n": len(workload.adapters), "objective": label}
            for solver in SOLVERS:
                row = solver_row(problem, solver, limit, calibration, seeds)
                if row is not None:
                    rows["instances"].append(head | row)
                    show(rows["instances"][-1])
            for baseline in BASELINES:
                rows["baselines"].append(head | baseline_row(problem, baseline, minimum, calibration, seeds))
                show(rows["baselines"][-1])
    print(json.dumps({"surrogate": options.surrogate, "time_limit_s": limit, **rows}))
    return 0


APP = command("benchmarks.solvers", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
