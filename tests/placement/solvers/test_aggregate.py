"""The perspective model has the size it should, is a relaxation, and its settings carry the demand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest

from placement.problem.classes import item_classes
from placement.problem.objectives import GpuCount
from placement.problem.problem import Placement, PlacementProblem, evaluate
from placement.problem.rows import column_rows
from placement.solvers.aggregate import Aggregate
from placement.solvers.greedy import Greedy
from placement.solvers.perspective import perspective_model, pyomo_model
from placement.solvers.settings import choose_settings
from tests.placement.known import alike, skewed, tiny, too_hot
from tests.placement.synthetic import LATENCY, WEIGHTED, adapter, option, power_law, problem


def proven(p: PlacementProblem) -> Aggregate:
    aggregate = Aggregate(p)
    aggregate.prove(10.0)
    return aggregate


def test_model_counts() -> None:
    p = problem(power_law(60), terms=WEIGHTED)
    rows, classes = column_rows(p), item_classes(p)
    m = pyomo_model(p, rows, classes)
    K, O, D = len(classes), len(p.options), rows.psi.shape[1]
    pairs, hinges = int(classes.allowed.sum()), int((rows.v > 0).sum())
    assert sum(1 for _ in m.component_data_objects(pyo.Var)) == O + pairs + O * D + hinges + 1
    rules = int((rows.kind != 0).sum())
    assert sum(1 for _ in m.component_data_objects(pyo.Constraint)) == K + O * D + rules + hinges + pairs + 1 + 3
    model = perspective_model(p, rows, classes)
    assert len(model.linear.cost) == O + pairs + O * D + hinges + 1
    assert ((model.a >= 0) == classes.allowed).all()


@pytest.mark.parametrize("terms", [(GpuCount(),), LATENCY, WEIGHTED], ids=["gpu_count", "latency", "weighted"])
def test_every_placement_is_a_point_of_the_model_of_its_own_items(terms: tuple) -> None:  # type: ignore[type-arg]
    """The theorem: with one class per item, the LP is at most the cost of any placement, here a greedy one."""
    p = problem(power_law(40), terms=terms, max_gpus=6)
    aggregate = Aggregate(p, item_classes(p, ratio=1.0, max_classes=40))
    result = aggregate.prove(10.0)
    placed = Greedy().solve(p, time_limit_s=10.0).placement
    assert isinstance(placed, Placement)
    assert result.value <= evaluate(p, placed)[0] + 1e-9


def test_alike_adapters_have_the_divisible_optimum() -> None:
    p, gpus = alike()
    aggregate = proven(p)
    # 208 adapters, each (0.6 + 0.4) / limit of a facet with room 0.98
    limit = 20 / (1 + 32 * 8 / 4000)
    assert aggregate.lp_value == pytest.approx(208 / (0.98 * limit), rel=1e-6)
    assert aggregate.bound == gpus
    assert choose_settings(aggregate, 10.0).y.sum() == gpus


def test_settings_satisfy_every_row_of_the_model() -> None:
    p = skewed()
    aggregate = proven(p)
    found = choose_settings(aggregate, 10.0)
    rows, classes = column_rows(p), aggregate.classes
    assert found.status == "feasible"
    np.testing.assert_allclose(found.a.sum(axis=1), classes.size)
    psi = classes.mean(rows.psi)
    for o in np.flatnonzero(found.y):
        assert rows.excess(int(o), (found.a[:, o] / found.y[o] @ psi)[None])[0] <= 1e-6
    assert (found.a[:, found.y == 0] == 0).all()
    assert (found.a[~classes.allowed] == 0).all()
    assert found.headroom >= -1e-9


def test_retries_use_more_gpus() -> None:
    aggregate = proven(skewed())
    bound = aggregate.bound
    first = choose_settings(aggregate, 10.0)
    second = choose_settings(aggregate, 10.0, fewest=round(first.y.sum()) + 1)
    assert second.y.sum() == first.y.sum() + 1
    assert second.headroom > first.headroom
    assert aggregate.bound == bound


def test_stock_and_prices() -> None:
    options = (option(32, 8, "fast"), option(32, 8, "slow", speed=0.5))
    adapters = [adapter(f"a{i}", 0.5) for i in range(100)]
    cheap = proven(problem(adapters, options=options, price={"fast": 1.0, "slow": 0.3}))
    assert choose_settings(cheap, 10.0).y[0] == 0
    short = proven(problem(adapters, options=options, price={"fast": 1.0, "slow": 0.3}, stock={"slow": 2}))
    assert choose_settings(short, 10.0).y[1] == 2
    assert short.bound is not None and cheap.bound is not None
    assert short.bound > cheap.bound


def test_overload_is_proven_for_the_items_and_quantified() -> None:
    aggregate = Aggregate(too_hot())
    assert aggregate.prove(10.0).status == "infeasible"
    assert aggregate.bound is None
    share, proven = aggregate.carried_share(10.0)
    # two GPUs carry 2 * 0.98 * 18.8 of 60 req/s
    assert share == pytest.approx(2 * 0.98 * 20 / (1 + 32 * 8 / 4000) / 60, rel=1e-6)
    assert proven


def test_a_workload_that_fits_is_not_called_too_much() -> None:
    share, proven = Aggregate(replace(too_hot(), max_gpus=5)).carried_share(10.0)
    assert share > 1
    assert not proven


def test_class_bounds_of_a_mip_are_claimed_for_equal_members_only() -> None:
    equal = Aggregate(tiny("six adapters", "latency"))
    equal.prove(10.0)
    choose_settings(equal, 10.0)
    assert equal.classes.exact
    p = replace(skewed(), terms=LATENCY, max_gpus=5)
    unequal = Aggregate(p)
    unequal.prove(10.0)
    before = unequal.bound
    choose_settings(unequal, 10.0)
    assert not unequal.classes.exact
    assert unequal.bound == before
