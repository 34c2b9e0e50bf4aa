"""The MILP solver beyond the conformance suite: known fleets, packing, refuted columns, interruption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.problem.classes import item_classes
from placement.problem.objectives import GpuCount
from placement.problem.problem import Placement, violations
from placement.problem.refuted import STEP, with_cuts
from placement.problem.rows import column_rows
from placement.solvers.aggregate import Aggregate
from placement.solvers.greedy import Greedy
from placement.solvers.highs import LinearModel, solve_linear
from placement.solvers.milp import MilpSolver
from placement.solvers.packing import domains, pack
from placement.solvers.settings import choose_settings
from tests.placement.known import alike, skewed, tiny, too_hot
from tests.placement.synthetic import LATENCY, adapter, power_law, problem

LIMIT_S = 20.0


def test_skewed_workload_is_placed_at_its_certified_minimum() -> None:
    report = MilpSolver().solve(skewed(), time_limit_s=LIMIT_S)
    assert report.termination == "optimal"
    assert report.objective == report.bound
    assert report.details["construction"] == "packing"


def test_overload_is_reported_as_proven() -> None:
    report = MilpSolver().solve(too_hot(), time_limit_s=LIMIT_S)
    assert (report.status, report.termination, report.placement) == ("infeasible", "optimal", None)
    assert float(report.details["carried_share"]) < 1


@pytest.mark.parametrize("window", [1, 3, None])
def test_domains_surround_the_even_split_and_can_hold_every_member(window: int | None) -> None:
    aggregate = Aggregate(skewed())
    aggregate.prove(LIMIT_S)
    classes = aggregate.classes
    found = choose_settings(aggregate, LIMIT_S)
    options, lower, upper = domains(classes, found.y, found.a, window)
    assert len(options) == found.y.sum()
    assert (lower <= upper).all()
    assert (lower.sum(axis=0) <= classes.size).all()
    assert (upper.sum(axis=0) >= classes.size).all()
    assert (upper <= classes.most_per_gpu).all()


def test_packing_places_every_member_within_the_rules() -> None:
    p, _ = alike()
    rows, classes = column_rows(p), item_classes(p)
    aggregate = Aggregate(p, classes)
    aggregate.prove(LIMIT_S)
    found = choose_settings(aggregate, LIMIT_S)
    packing = pack(p, rows, classes, found.y, found.a, window=1, reserve=0.0, time_limit_s=LIMIT_S)
    assert packing.status == "packed"
    assert (packing.counts.sum(axis=0) == classes.size).all()
    psi = classes.mean(rows.psi)
    for o, counts in zip(packing.options, packing.counts, strict=True):
        assert rows.excess(int(o), (counts @ psi)[None])[0] <= 1e-7


def test_an_impossible_packing_is_infeasible_and_an_elastic_one_is_not() -> None:
    p = problem([adapter(f"a{i}", 11.0) for i in range(3)], options=alike()[0].options)
    rows, classes = column_rows(p), item_classes(p)
    y, a = np.array([2.0]), np.array([[3.0]])  # three adapters of 11 req/s on two GPUs of 18.4 req/s
    strict = pack(p, rows, classes, y, a, window=None, reserve=0.0, time_limit_s=LIMIT_S)
    elastic = pack(p, rows, classes, y, a, window=None, reserve=0.0, time_limit_s=LIMIT_S, excess_cost=10.0)
    assert strict.status == "infeasible"
    assert elastic.status == "packed"


def test_solving_again_after_refutations_moves_on() -> None:
    """Refuting whatever is found leads to new columns and, in the end, to more GPUs, not to the same answer."""
    p = replace(skewed(120), terms=(GpuCount(),))
    seen: list[set[tuple[int, frozenset[int]]]] = []
    for _ in range(3):
        report = MilpSolver().solve(p, time_limit_s=LIMIT_S)
        assert report.placement is not None
        assert violations(p, report.placement) == []
        columns = {(g.option, frozenset(g.items)) for g in report.placement.gpus}
        assert all(not columns & earlier for earlier in seen)
        seen.append(columns)
        p = replace(p, banned=(*p.banned, *sorted(columns, key=lambda c: (c[0], sorted(c[1])))))


def test_bounds_ignore_refuted_columns() -> None:
    p = skewed(120)
    first = MilpSolver().solve(p, time_limit_s=LIMIT_S)
    assert first.placement is not None
    again = replace(p, banned=tuple((g.option, frozenset(g.items)) for g in first.placement.gpus))
    assert MilpSolver().solve(again, time_limit_s=LIMIT_S).bound == first.bound


def test_a_cut_excludes_the_refuted_column_and_what_is_close_below_stays() -> None:
    p, _ = alike()
    refuted = frozenset(range(18))  # 18 of at most 18.4 adapters
    cut = with_cuts(replace(p, banned=((0, refuted),)))
    phi = p.phi[sorted(refuted)].sum(axis=0)[None]
    assert cut.options[0].violation(phi)[0] > 0
    assert cut.options[0].violation((1 - 1.2 * STEP) * phi)[0] <= 0
    far = frozenset(range(5))  # refuted for another reason than a facet
    assert len(with_cuts(replace(p, banned=((0, far),))).options[0].feasible.g) == len(p.options[0].feasible.g)


def test_ctrl_c_keeps_the_incumbent_and_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    p = replace(problem(power_law(80)), terms=LATENCY, max_gpus=4)
    start = Greedy(local_search=False).solve(p, time_limit_s=LIMIT_S).placement

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("placement.solvers.milp.choose_settings", interrupted)
    report = MilpSolver().solve(p, time_limit_s=LIMIT_S, warm_start=start)
    assert report.termination == "interrupted"
    assert report.placement == start
    assert report.bound is not None and report.bound <= report.objective


def test_highs_bounds_come_from_the_dual_side() -> None:
    """max x + y, x + y <= 1.5, whole: optimum 1, LP 1.5."""
    model = LinearModel(
        cost=np.array([-1.0, -1.0]),
        lower=np.zeros(2),
        upper=np.ones(2),
        integer=np.array([True, True]),
        start=np.array([0, 2]),
        index=np.array([0, 1]),
        value=np.ones(2),
        row_lower=np.array([-np.inf]),
        row_upper=np.array([1.5]),
    )
    whole = solve_linear(model, time_limit_s=LIMIT_S)
    assert (whole.status, whole.value, whole.bound) == ("optimal", -1.0, -1.0)
    assert whole.row_dual is None
    line = solve_linear(replace(model, integer=np.array([False, False])), time_limit_s=LIMIT_S)
    assert line.value == line.bound == -1.5
    assert line.row_dual is not None and line.row_dual[0] == -1.0
    none = solve_linear(replace(model, row_lower=np.array([3.0]), row_upper=np.array([4.0])), time_limit_s=LIMIT_S)
    assert (none.status, none.x) == ("infeasible", None)
    late = solve_linear(model, time_limit_s=0.0)
    assert (late.status, late.bound) == ("unknown", -np.inf)


def test_an_unfinished_search_keeps_the_bound_below_the_value() -> None:
    report = MilpSolver().solve(tiny("replicas", "weighted"), time_limit_s=LIMIT_S)
    assert report.bound is not None and report.bound <= report.objective


def test_a_poor_warm_start_does_not_end_the_search() -> None:
    p = skewed(120)
    crowd = list(Greedy(local_search=False).solve(p, time_limit_s=LIMIT_S).placement.gpus)  # type: ignore[union-attr]
    largest = max(crowd, key=lambda g: len(g.items))
    halves = [replace(largest, items=largest.items[::2]), replace(largest, items=largest.items[1::2])]
    poor = Placement((*(g for g in crowd if g is not largest), *halves))
    assert violations(p, poor) == []
    report = MilpSolver().solve(p, time_limit_s=LIMIT_S, warm_start=poor)
    assert report.bound is not None
    assert report.objective == report.bound < len(poor.gpus)
