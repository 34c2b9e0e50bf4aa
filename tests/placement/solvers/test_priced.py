"""Bounds from columns of the planning model: below every placement, checkable, and as honest as they say."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from placement.problem.build import build_problem
from placement.problem.objectives import GpuCount, MeanE2E
from placement.problem.problem import PlacementProblem, Term, evaluate
from placement.problem.rows import Cuts, column_rows
from placement.solvers.bounds import bounding, certified_minimum, prove_bound, proven_bound
from placement.solvers.certificate import Certificate, certifies, cleaned, exact_bound, price_list_bound
from placement.solvers.greedy import Greedy
from placement.solvers.pool import HEALTHY, ColumnPool
from surrogates.pieces.model import load_planning_model
from tests.placement.brute_force import optimum
from tests.placement.synthetic import LATENCY, adapter, power_law, problem
from twin.figures.health import Stable
from twin.server.calibration import load_calibration
from twin.server.settings import setting_grid
from twin.workload.adapter import Adapter, Lengths
from twin.workload.workload import Workload

CALIBRATION = load_calibration("llama-3.1-8b-h100-64gb")


def exact_problem(adapters: list[Adapter], terms: tuple[Term, ...], max_gpus: int | None = None) -> PlacementProblem:
    """Judged by the steady state, under six settings."""
    workload = Workload(tuple(adapters))
    grid = setting_grid((CALIBRATION.stamp.gpu_type,), (8, 32, 64), (16, 32))
    gpu = replace(CALIBRATION.gpu, name=CALIBRATION.stamp.gpu_type)
    model = load_planning_model(CALIBRATION, workload, Stable())
    return build_problem(workload, model, grid, (gpu,), terms, max_gpus=max_gpus)


def unlike(count: int, seed: int, heaviest: float = 4.0) -> list[Adapter]:
    """Adapters of very different rates and lengths."""
    rng = np.random.default_rng(seed)
    return [
        Adapter(
            f"a{i}", int(rng.choice([8, 16, 32])), float(np.exp(rng.uniform(np.log(0.05), np.log(heaviest)))),
            Lengths(float(rng.choice([60, 300, 1500])), 1.1), Lengths(float(rng.choice([30, 200, 700])), 1.06),
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("terms", [LATENCY, (GpuCount(),)], ids=["latency", "gpu_count"])
def test_no_bound_is_above_the_optimum_of_unlike_requests(terms: tuple[Term, ...], seed: int) -> None:
    p = exact_problem(unlike(5, seed), terms, max_gpus=3)
    best, bound = optimum(p), proven_bound(p, 5.0)
    assert best is not None and bound is not None
    # the pieces alone are above the optimum of the third latency list: columns refute them
    assert bound.columns > 0
    assert bound.value <= best + 1e-6 * abs(best)


def test_what_a_bound_rests_on_is_checked_exactly_and_holds_for_fresh_columns() -> None:
    p = exact_problem(unlike(24, 7, heaviest=1.0), (MeanE2E(),), max_gpus=3)
    placed = Greedy().solve(p, time_limit_s=10.0).placement
    assert placed is not None
    bound = proven_bound(p, 20.0, known=[placed])
    assert bound is not None and bound.cuts is not None and bound.certificate is not None and bound.columns > 1000
    assert bound.value <= evaluate(p, placed)[0]
    assert bound.value > 1.02 * (prove_bound(bounding(p), 10.0) or 0.0)
    assert certifies(bounding(p), bound.certificate, bound.value, bound.cuts)
    assert not certifies(bounding(p), bound.certificate, 1.001 * bound.value, bound.cuts)
    stored = Certificate(**{**{f: getattr(bound.certificate, f) for f in Certificate.__slots__}, "kappa": np.zeros(0)})
    with pytest.raises(ValueError, match="kappa"):
        exact_bound(bounding(p), stored, bound.cuts)
    fresh, wrong, healthy = ColumnPool(p, np.random.default_rng(99)), 0, 0
    for o in range(len(p.options)):
        for items in fresh.random(o, 100):
            cost = float(fresh.look(o, [items])[0])
            healthy += np.isfinite(cost)
            wrong += bound.cuts.slope[o, items].sum() + bound.cuts.constant[o] > cost * (1 + 1e-9)
    assert healthy > 100 and wrong <= 0.01 * healthy


def test_a_climb_stays_healthy_and_gains() -> None:
    p = exact_problem(unlike(20, 3, heaviest=0.5), (MeanE2E(),), max_gpus=4)
    pool = ColumnPool(p, np.random.default_rng(0))
    price = np.full(len(p.items), 0.5)
    start = np.array([0])
    first = 0.5 - float(pool.look(5, [start])[0])
    assert pool.climb(5, start, price, 16) > first
    own = pool.of[5]
    said = p.columns_of([m.tolist() for m in own.members], [5] * len(own))
    assert (said.violation <= HEALTHY).all()
    assert np.allclose(pool.cost(said), own.cost)
    assert np.allclose([pool.psi[m].sum(axis=0) for m in own.members], own.psi)


def test_a_known_optimum_ends_the_proof_and_the_count_is_whole() -> None:
    p = exact_problem(unlike(12, 5, heaviest=0.3), (GpuCount(),))
    placed = Greedy().solve(p, time_limit_s=10.0).placement
    assert placed is not None
    fewest = certified_minimum(p, 10.0, known=[placed])
    assert fewest is not None and fewest <= len(placed.gpus)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), fleet=st.integers(2, 4))
def test_no_multipliers_of_cuts_give_a_bound_above_the_optimum(seed: int, fleet: int) -> None:
    """Tangents of the convex cost are cuts; any multipliers of the right signs are valid, bad as they are."""
    rng = np.random.default_rng(seed)
    p = problem([adapter(f"a{i}", float(rng.uniform(0.2, 9.0))) for i in range(4)], terms=LATENCY, max_gpus=fleet)
    best = optimum(p)
    if best is None:
        return
    option = rng.integers(0, len(p.options), 5)
    cuts = []
    for o in option.tolist():
        cost, at = p.convex_cost(o), p.phi[rng.random(4) < 0.5].sum(axis=0)
        assert cost is not None
        bent = cost.q + ((cost.W @ at + cost.b > 0) * cost.v) @ cost.W
        cuts.append((p.phi @ bent, float(cost(at[None])[0] - at @ bent)))
    made = Cuts(option, np.array([s for s, _ in cuts]), np.array([c for _, c in cuts]))
    rows = column_rows(p, cuts=made)
    certificate = Certificate(
        mu=rng.random(rows.h.shape) * (rows.kind != 0), lam=rows.v * rng.random(rows.v.shape),
        nu=np.zeros((1, len(p.options))), sigma=rng.random(len(p.stock)), sigma_total=float(rng.random()),
        class_of=np.zeros(len(p.items), np.int64), kappa=rng.random(5),
    )  # fmt: skip
    good = cleaned(p, rows, certificate)
    value = exact_bound(p, good, made)
    assert value <= Fraction(best) + Fraction(1, 10**9)
    assert float(value) == pytest.approx(price_list_bound(p, rows, good), rel=1e-9, abs=1e-9)


def test_a_linear_model_needs_no_columns() -> None:
    bound = proven_bound(problem(power_law(10)), 5.0)
    assert bound is not None and bound.columns == 0 and bound.cuts is None
