"""Scaled rows say exactly what the problem says."""

from __future__ import annotations

import numpy as np
import pytest

from placement.problem.objectives import MeanTtft
from placement.problem.rows import COUNT, FACET, HULL, column_rows
from tests.placement.known import tiny
from tests.placement.synthetic import WEIGHTED, power_law, problem
from twin.errors import InputError


def test_scales_are_powers_of_two_so_that_scaling_is_exact() -> None:
    rows = column_rows(problem(power_law(30)))
    assert (np.log2(rows.feature_scale) % 1 == 0).all()
    p = problem(power_law(30))
    assert (rows.psi[:, :-1] * rows.feature_scale[:-1] == p.phi).all()


def test_rows_and_costs_agree_with_the_planning_model() -> None:
    p = problem(power_law(40), terms=WEIGHTED)
    rows = column_rows(p)
    rng = np.random.default_rng(0)
    for _ in range(50):
        column = rng.random(40) < 0.3
        phi, psi = p.phi[column].sum(axis=0)[None], rows.psi[column].sum(axis=0)
        for o, option in enumerate(p.options):
            inside = option.violation(phi)[0] <= 0 and column.sum() <= option.max_adapters
            assert (rows.excess(o, psi[None])[0] <= 0) == inside
            cost = rows.v[o] @ np.maximum(rows.W[o] @ psi + rows.b[o], 0) + rows.q[o] @ psi + rows.r[o]
            told = p.columns_of([np.flatnonzero(column)], [o])
            expected = sum(t.weight / t.scale * t.cost(told, p.context)[0] for t in p.terms)
            assert cost == pytest.approx(expected)
    assert set(np.unique(rows.kind)) == {FACET, HULL, COUNT}


def test_kinds_of_objective_are_recognised() -> None:
    assert column_rows(tiny("six adapters", "gpu_count")).cost_is_count
    prices = column_rows(tiny("two GPU types", "gpu_count"))
    assert prices.cost_is_per_gpu and not prices.cost_is_count
    assert not column_rows(tiny("six adapters", "latency")).cost_is_per_gpu


def test_terms_without_a_convex_form_are_named() -> None:
    with pytest.raises(InputError, match="ttft"):
        column_rows(problem(power_law(5), terms=(MeanTtft(),)))
