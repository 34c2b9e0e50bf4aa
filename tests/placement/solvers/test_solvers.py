"""Conformance: every solver on every problem, judged outside the solver.

Claims: what a solver returns breaks no rule and is worth what it says; no bound lies above the optimum; GPU counts of
the exact solvers are optimal where the optimum is known; and what a solver does not support it refuses before
building anything.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from placement.problem.objectives import MeanE2E
from placement.problem.problem import PlacementProblem, evaluate, violations
from placement.problem.solver import Solver, SolveReport, relative_gap
from placement.solvers.capabilities import unsupported
from placement.solvers.cpsat import CpSat
from placement.solvers.greedy import Greedy
from placement.solvers.greedy_published import GreedyPublished
from placement.solvers.milp import MilpSolver
from placement.solvers.portfolio import Portfolio
from tests.placement.brute_force import optimum
from tests.placement.known import TERMS, TINY, alike, cold, skewed, tiny, too_hot
from twin.errors import InputError

SOLVERS: dict[str, Solver] = {
    s.name: s for s in (Greedy(effort=3), GreedyPublished(), CpSat(effort=0.5), MilpSolver(), Portfolio(effort=3))
}
PROVING = [name for name, solver in SOLVERS.items() if solver.capabilities.bound]
TIME_LIMIT_S = 60.0


def supported(solver: Solver, problem: PlacementProblem) -> bool:
    return not unsupported(problem, solver.capabilities)


def check(problem: PlacementProblem, report: SolveReport) -> None:
    """Re-checks a report with nothing but the problem."""
    assert report.status == "feasible"
    assert report.placement is not None
    assert violations(problem, report.placement) == []
    assert evaluate(problem, report.placement)[0] == pytest.approx(report.objective, rel=1e-9)
    assert report.gap == relative_gap(report.objective, report.bound)
    if report.bound is not None:
        assert report.bound <= report.objective


@cache
def exact(name: str, terms: str) -> float:
    value = optimum(tiny(name, terms))
    assert value is not None
    return value


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_tiny_problems_are_solved_correctly_or_refused(solver: Solver, name: str, terms: str) -> None:
    problem = tiny(name, terms)
    if not supported(solver, problem):
        with pytest.raises(InputError, match=solver.name):
            solver.solve(problem, time_limit_s=TIME_LIMIT_S)
        return
    report = solver.solve(problem, time_limit_s=TIME_LIMIT_S)
    check(problem, report)
    best = exact(name, terms)
    assert report.objective >= best - 1e-7
    if report.bound is not None:
        assert report.bound <= best + 1e-7
    if solver.name in PROVING:
        assert report.bound is not None
        # integrality of six adapters is all that separates these from the optimum
        assert report.objective <= best * (1.0 + 1e-9 if terms == "gpu_count" else 1.15)


@pytest.mark.parametrize("make", [alike, cold])
@pytest.mark.parametrize("solver", [s for s in SOLVERS.values() if s.name != "greedy_published"], ids=lambda s: s.name)
def test_counts_derived_on_paper_are_found_and_proven(solver: Solver, make) -> None:  # type: ignore[no-untyped-def]
    problem, gpus = make()
    report = solver.solve(problem, time_limit_s=TIME_LIMIT_S)
    check(problem, report)
    assert report.objective == gpus
    if solver.capabilities.bound:
        assert (report.bound, report.termination) == (gpus, "optimal")


@pytest.mark.parametrize("terms", ["gpu_count", "latency", "weighted"])
def test_solvers_agree_on_a_skewed_workload(terms: str) -> None:
    """No bound of one solver contradicts a placement of another, and exact solvers are not beaten by greedy."""
    problem = replace(skewed(), terms=TERMS[terms], max_gpus=4 if terms == "latency" else None)
    reports = {}
    for name, solver in SOLVERS.items():
        if supported(solver, problem):
            reports[name] = solver.solve(problem, time_limit_s=TIME_LIMIT_S)
            check(problem, reports[name])
    lowest = min(r.objective for r in reports.values())
    for name in PROVING:
        bound = reports[name].bound
        assert bound is not None and bound <= lowest * (1 + 1e-9)
        assert reports[name].objective <= reports["greedy"].objective * (1 + 1e-3)
    bounds = [reports[name].bound for name in PROVING]
    assert max(bounds) - min(bounds) <= 0.01 * max(bounds)  # type: ignore[type-var, operator]


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_infeasible_problems_are_proven_infeasible_or_left_open(solver: Solver) -> None:
    report = solver.solve(too_hot(), time_limit_s=TIME_LIMIT_S)
    assert report.placement is None
    assert np.isnan(report.objective)
    proves = solver.capabilities.bound or solver.name == "portfolio"  # its milp does
    assert report.status == ("infeasible" if proves else "no_solution")


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_same_input_same_placement(solver: Solver) -> None:
    problem = skewed(120)
    first, second = (solver.solve(problem, time_limit_s=TIME_LIMIT_S) for _ in range(2))
    assert first.placement == second.placement


@pytest.mark.parametrize("solver", [Greedy(local_search=False), CpSat(effort=0.5), MilpSolver()], ids=lambda s: s.name)
def test_a_feasible_warm_start_is_never_lost(solver: Solver) -> None:
    problem = replace(skewed(120), terms=(MeanE2E(),), max_gpus=3)
    start = Greedy().solve(problem, time_limit_s=TIME_LIMIT_S)
    report = solver.solve(problem, time_limit_s=TIME_LIMIT_S, warm_start=start.placement)
    check(problem, report)
    assert report.objective <= start.objective * (1 + 1e-12)


@pytest.mark.parametrize("solver", [Greedy(), CpSat(effort=0.5), MilpSolver()], ids=lambda s: s.name)
def test_refuted_columns_do_not_come_back(solver: Solver) -> None:
    """The GPUs of an answer, banned, do not reappear as they were or with more on them."""
    problem = skewed(120)
    first = solver.solve(problem, time_limit_s=TIME_LIMIT_S)
    assert first.placement is not None
    banned = tuple((g.option, frozenset(g.items)) for g in first.placement.gpus)
    again = solver.solve(replace(problem, banned=banned), time_limit_s=TIME_LIMIT_S, warm_start=first.placement)
    check(replace(problem, banned=banned), again)


def test_local_search_pays() -> None:
    problem = replace(skewed(), terms=(MeanE2E(),), max_gpus=4)
    deal = Greedy(local_search=False).solve(problem, time_limit_s=TIME_LIMIT_S)
    searched = Greedy().solve(problem, time_limit_s=TIME_LIMIT_S)
    assert searched.objective < deal.objective
