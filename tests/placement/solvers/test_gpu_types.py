"""Several types of GPU: plans within the stock, never dearer than the best type alone, optimal on tiny problems."""

from __future__ import annotations

import numpy as np
import pytest

from placement.problem.objectives import GpuCount, MeanE2E
from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, Term, evaluate, violations
from placement.problem.solver import Solver
from placement.solvers.cpsat import CpSat
from placement.solvers.fleets import cheaper, fleet_of, of_one_type, option_in_stock, shares_of
from placement.solvers.greedy import Greedy
from placement.solvers.greedy_published import GreedyPublished
from placement.solvers.milp import MilpSolver
from placement.solvers.portfolio import Portfolio
from placement.solvers.search_state import state_of
from tests.placement.brute_force import optimum
from tests.placement.synthetic import adapter, option, power_law, problem

FAR = 1e12
SOLVERS: dict[str, Solver] = {
    "greedy": Greedy(effort=1.0),
    "milp": MilpSolver(),
    "cpsat": CpSat(),
    "portfolio": Portfolio(effort=2.0),
    "greedy_published": GreedyPublished(),
}
#: Those that are to find the optimum of tiny problems.
SEARCHING = ("greedy", "milp", "cpsat", "portfolio")


def drawn(seed: int, terms: tuple[Term, ...] = (GpuCount(),), **more: int) -> PlacementProblem:
    """Five adapters, three types of GPU with prices about as their speeds; odd seeds have small stocks."""
    rng = np.random.default_rng(seed)
    rates, ranks = rng.uniform(1, 8, 5), rng.choice([8, 8, 32], 5)
    adapters = [adapter(f"a{i}", float(r), int(k)) for i, (r, k) in enumerate(zip(rates, ranks, strict=True))]
    slow = float(rng.uniform(0.35, 0.8))
    tiny = 0.45 * slow + 0.2
    options = [
        option(8, 8, "fast"), option(8, 32, "fast"), option(8, 8, "slow", slow), option(8, 32, "slow", slow),
        option(8, 8, "tiny", tiny),
    ]  # fmt: skip
    price = {"fast": 1.0} | {
        name: round(speed * float(rng.uniform(0.7, 1.2)), 2) for name, speed in (("slow", slow), ("tiny", tiny))
    }
    stock = {name: int(rng.integers(1, 4)) for name in price} if seed % 2 else None
    return problem(adapters, terms=terms, options=options, price=price, stock=stock, **more)


@pytest.mark.parametrize("seed", [1, 6])
@pytest.mark.parametrize("name", SEARCHING)
def test_tiny_priced_problems_are_solved_to_the_optimum(name: str, seed: int) -> None:
    posed = drawn(seed)
    report = SOLVERS[name].solve(posed, time_limit_s=60)
    assert report.placement is not None and not violations(posed, report.placement)
    assert report.objective == pytest.approx(optimum(posed))
    assert report.bound is None or report.bound <= report.objective * (1 + 1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_no_plan_is_dearer_than_the_best_type_alone(name: str) -> None:
    compared = 0
    for seed in (1, 2):
        posed, solver = drawn(seed), SOLVERS[name]
        mixed = solver.solve(posed, time_limit_s=60)
        alone = [solver.solve(p, time_limit_s=60) for p in of_one_type(posed)]
        prices = [r.objective for r in alone if r.placement is not None]
        compared += bool(prices)
        assert mixed.placement is not None
        assert mixed.objective <= min(prices, default=np.inf) * (1 + 1e-9)
        assert (fleet_of(posed, mixed.placement) <= posed.stock).all()
    assert compared


@pytest.mark.parametrize("name", ["greedy", "portfolio"])
def test_a_latency_objective_uses_the_fast_gpus_that_exist(name: str) -> None:
    posed = drawn(1, (MeanE2E(),), max_gpus=3)
    report = SOLVERS[name].solve(posed, time_limit_s=60)
    assert report.placement is not None and not violations(posed, report.placement)
    best = optimum(posed)
    assert best is not None and report.objective <= 1.02 * best


def test_a_fleet_becomes_cheaper_step_by_step() -> None:
    """Cheap GPUs are half as fast at a third of the price: of a fleet of fast ones, some give way to two slow ones."""
    adapters = power_law(60, seed=3, total=40.0, ranks=(8,))
    options = [option(32, 8, "fast"), option(32, 8, "slow", 0.5)]
    posed = problem(adapters, options=options, price={"fast": 1.0, "slow": 0.34}, stock={"slow": 2})
    fast = Greedy(local_search=False).solve(of_one_type(posed)[0], time_limit_s=60).placement
    assert fast is not None and fleet_of(posed, fast)[1] == 0
    found = cheaper(posed, fast, seed=0, deadline=FAR)
    assert found is not None and not violations(posed, found)
    assert evaluate(posed, found)[0] < evaluate(posed, fast)[0]
    assert 1 <= fleet_of(posed, found)[1] <= 2


def test_the_cheapest_fleet_has_none_cheaper() -> None:
    posed = problem([adapter("a", 5.0)], options=[option(8, 8, "x"), option(8, 8, "y")], price={"x": 1.0, "y": 2.0})
    assert cheaper(posed, Placement((GpuAssignment(0, (0,)),)), seed=0, deadline=FAR) is None


def test_shares_of_types_are_of_what_they_can_serve() -> None:
    loads = np.array([[0.5, 1.0], [0.5, np.inf]])
    assert shares_of(loads) == pytest.approx([1.0, 0.5])


def test_a_gpu_more_is_of_a_type_that_exists() -> None:
    posed = problem([adapter("a", 5.0)], options=[option(8, 8, "x"), option(8, 8, "y")], stock={"x": 2})
    state = state_of(posed, Placement((GpuAssignment(0, (0,)),)))
    assert [option_in_stock(state, 0, count) for count in (1, 2)] == [0, 1]
