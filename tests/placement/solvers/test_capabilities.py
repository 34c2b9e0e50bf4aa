"""The capability sheet decides: what is refused, before anything is built, and which solvers are named instead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest

from placement.problem.problem import PlacementProblem
from placement.problem.solver import Capabilities, Solver
from placement.solvers.capabilities import SHEET, refuse, unsupported
from placement.solvers.cpsat import CpSat
from placement.solvers.greedy import Greedy
from placement.solvers.greedy_published import GreedyPublished
from placement.solvers.milp import MilpSolver
from placement.solvers.portfolio import Portfolio
from tests.placement.known import TERMS, TINY, tiny
from twin.errors import InputError

SOLVERS: dict[str, Solver] = {s.name: s for s in (Portfolio(), MilpSolver(), CpSat(), Greedy(), GreedyPublished())}
#: Solver -> objectives of `tests.placement.known.TERMS` that it takes; the rest is refused.
TAKES = {
    "portfolio": set(TERMS),
    "milp": {"gpu_count", "latency", "itl", "weighted"},
    "cpsat": {"gpu_count", "latency", "itl", "weighted", "tail", "mixed"},
    "greedy": set(TERMS),
    "greedy_published": {"gpu_count", "weighted", "mixed"},
}
#: Solver -> problems of `tests.placement.known.TINY` that it does not take under any objective.
NOT_FOR = {"greedy_published": {"refuted columns", "pins"}}


@dataclass(frozen=True)
class BusiestGpu:
    """A MAX term that offers no convex lower bound."""

    weight: float = 1.0
    scale: float = 1.0
    name: str = "busiest"
    unit: str = "requests"
    aggregate: Literal["max"] = "max"

    def cost(self, columns, context) -> np.ndarray:  # type: ignore[no-untyped-def]
        return np.asarray(columns.requests_in_system)

    def convex(self, option, context) -> None:  # type: ignore[no-untyped-def]
        return None


def takes(solver: str, terms: str, problem: str) -> bool:
    return terms in TAKES[solver] and problem not in NOT_FOR.get(solver, set())


def nothing_may_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was built")

    for target in ("aggregate.Aggregate", "milp.Aggregate", "greedy.tiers_by_mask", "greedy_published.Placement"):
        monkeypatch.setattr(f"placement.solvers.{target}", built)


def test_every_solver_carries_its_line_of_the_sheet() -> None:
    assert {name: solver.capabilities for name, solver in SOLVERS.items()} == SHEET


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("solver", SOLVERS)
def test_refusals_follow_the_table(solver: str, name: str, terms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny(name, terms)
    if takes(solver, terms, name):
        refuse(problem, SOLVERS[solver])
        return
    nothing_may_be_built(monkeypatch)
    with pytest.raises(InputError) as caught:
        SOLVERS[solver].solve(problem, time_limit_s=10.0)
    assert caught.value.exit_code == 2
    assert solver in caught.value.problem
    named = {other for other in SOLVERS if f"solver={other}" in caught.value.remedy.replace(",", " ").split()}
    assert named == {other for other in SOLVERS if takes(other, terms, name)} - {"greedy_published"}


def test_a_maximum_without_a_convex_lower_bound_is_for_greedy() -> None:
    problem = replace(tiny("six adapters", "latency"), terms=(BusiestGpu(),))
    assert [name for name, sheet in SHEET.items() if not unsupported(problem, sheet)] == ["portfolio", "greedy"]


def test_the_published_greedy_also_names_the_objective_that_it_takes() -> None:
    with pytest.raises(InputError) as caught:
        refuse(tiny("six adapters", "latency"), GreedyPublished())
    assert (
        caught.value.remedy == "use +objective=gpu_count, solver=portfolio, solver=milp, solver=cpsat or solver=greedy"
    )


def test_a_solver_of_somebody_else_is_judged_by_its_own_sheet() -> None:
    class Mine:
        name = "mine"
        capabilities = Capabilities()

        def solve(self, problem: PlacementProblem, **_: object) -> None:
            return None

    with pytest.raises(InputError, match="solver mine cannot optimise the term 'tail'") as caught:
        refuse(tiny("six adapters", "tail"), Mine())  # type: ignore[arg-type]
    assert caught.value.remedy == "use solver=portfolio, solver=cpsat or solver=greedy"
