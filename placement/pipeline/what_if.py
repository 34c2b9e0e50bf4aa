"""What if all rates change: the plan as it is, and plans dealt anew, under the planning model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from placement.config import Run
from placement.pipeline.clock import Clock
from placement.pipeline.job import posed
from placement.pipeline.start import first_placement
from placement.problem.problem import Placement, PlacementProblem
from placement.report.result import Result
from surrogates.model.planning import PlanningModel
from twin.errors import InputError
from twin.server.column import Column
from twin.workload.workload import Workload

#: Factors on all rates.
FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)


def what_if(run: Run, result: Result, advanced: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """One row a factor: GPUs and mean E2E of a plan dealt anew by the greedy of the first placement, and mean E2E and
    largest load of this plan as it is; None where there is none, or a GPU is overloaded.

    Every factor has a clock of its own, as long as the run's.

    Raises:
        InputError: the planning model was given as an object, so that none can be made for other rates.
    """
    if run.planned_for is None:
        raise InputError(
            "report.what_if needs planning models for other rates, and this one was given as an object",
            where="report.what_if",
            remedy="name the surrogate, e.g. surrogate=neural, or leave report.what_if out",
        )
    rows = []
    for done, factor in enumerate(FACTORS):
        advanced(done, len(FACTORS))
        workload = run.workload.scaled(factor)
        gpus, e2e_s = _anew(run, workload, run.planned_for)
        kept_s, load = _kept(run, result.columns, factor)
        rows.append({"factor": factor, "gpus": gpus, "e2e_mean_s": e2e_s, "kept_e2e_mean_s": kept_s, "kept_load": load})
    return rows


def _anew(
    run: Run, workload: Workload, planned_for: Callable[[Workload], PlanningModel]
) -> tuple[int | None, float | None]:
    """GPUs and mean E2E of a first placement; None where the workload cannot be placed."""
    clock = Clock(run.options.time_limit_s)
    try:
        run = replace(run, workload=workload, planning=planned_for(workload))
        problem, _, _ = posed(run, clock)
        scratch = Result(run, "no_solution", "time_limit", "greedy", problem, problem)
        problem, found = first_placement(run, scratch, problem, clock)
    except InputError:
        return None, None
    return (None, None) if found is None else (len(found.gpus), _mean_e2e_s(problem, found))


def _mean_e2e_s(problem: PlacementProblem, found: Placement) -> float:
    columns = problem.columns_of([g.items for g in found.gpus], [g.option for g in found.gpus])
    return float(columns.requests_in_system.sum() / columns.rate_req_per_s.sum())


def _kept(run: Run, columns: list[Column], factor: float) -> tuple[float | None, float | None]:
    """Mean E2E and largest load of the same GPUs at other rates."""
    figures = getattr(run.planning, "figures", None)
    if figures is None:
        return None, None
    scaled = [replace(c, adapters=tuple(a.scaled(factor) for a in c.adapters)) for c in columns]
    told = figures(scaled)
    load = max(row["load"] for row in told)
    rates = [c.rate_req_per_s for c in scaled]
    mean = sum(row["e2e_mean_s"] * rate for row, rate in zip(told, rates, strict=True)) / sum(rates)
    return (mean if load <= 1 and math.isfinite(mean) else None), load
