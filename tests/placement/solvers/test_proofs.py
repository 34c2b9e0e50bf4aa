"""What is proven is true: infeasibility and bounds of tight fleets, against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.proofs import SOLVERS, TERMS, findings, instances
from placement.problem.classes import item_classes
from placement.problem.objectives import GpuCount
from placement.problem.problem import PlacementProblem
from placement.solvers.aggregate import Aggregate
from surrogates.model.planning import Polyhedron
from tests.placement.brute_force import optimum
from tests.placement.synthetic import adapter, option, problem


def test_no_proof_is_refuted_by_brute_force() -> None:
    found, feasible = [], 0
    for instance in instances(range(300)):
        feasible += instance.best is not None
        found += list(findings(instance, ()))
    assert feasible > 100
    assert found == []


@pytest.mark.parametrize("solver", ["milp", "cpsat"])
def test_no_solver_claims_what_brute_force_refutes(solver: str) -> None:
    assert [f for instance in instances(range(1000, 1006)) for f in findings(instance, (solver,))] == []


def short_and_long() -> PlacementProblem:
    """Answers of 100 and 124 tokens in one class; one setting takes short ones only, the other long ones only."""
    short, long = option(8, 8), option(32, 8)
    rows = (np.array([[-100.0 / 200, 0.0, 1.0, 0.0]]), np.array([[124.0 / 200, 0.0, -1.0, 0.0]]))
    options = []
    for model, row in zip((short, long), rows, strict=True):
        facets = Polyhedron(np.vstack([model.feasible.G, row]), np.append(model.feasible.g, -1e-9))
        options.append(replace(model, feasible=facets, outer=facets))
    return problem([adapter("short", 1.0, output=100.0), adapter("long", 1.0, output=124.0)], options=options)


@pytest.mark.parametrize("solver", ["greedy", "milp", "cpsat"])
def test_a_mean_that_fits_nowhere_proves_nothing(solver: str) -> None:
    p = short_and_long()
    assert len(item_classes(p)) == 1
    assert optimum(p) == 2.0
    aggregate = Aggregate(p)
    assert aggregate.prove(5.0).status == "infeasible"
    assert not aggregate.carried_share(5.0)[1]
    report = SOLVERS[solver].solve(p, time_limit_s=10.0)
    assert report.status == "feasible" and report.objective == 2.0


def test_an_empty_retry_proves_nothing() -> None:
    """Three items of which no two fit, on options that look as if they did: more and more GPUs are asked for."""
    p = replace(problem([adapter(f"a{i}", 11.0) for i in range(3)], terms=TERMS["weighted"]), max_gpus=3)
    best = optimum(p)
    report = SOLVERS["milp"].solve(p, time_limit_s=10.0)
    assert best is not None and report.status == "feasible"
    assert report.bound is not None and report.bound <= best + 1e-6


def test_a_fleet_that_is_too_small_is_still_proven_so() -> None:
    p = replace(problem([adapter(f"a{i}", 8.0) for i in range(6)], terms=(GpuCount(),)), max_gpus=2)
    assert optimum(p) is None
    for solver in ("milp", "cpsat"):
        assert SOLVERS[solver].solve(p, time_limit_s=10.0).status == "infeasible"
