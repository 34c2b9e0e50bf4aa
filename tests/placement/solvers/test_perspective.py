"""The model that is solved is the one that Pyomo states."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from placement.problem.classes import item_classes
from placement.problem.problem import PlacementProblem
from placement.problem.rows import column_rows
from placement.solvers.highs import LinearModel, solve_linear
from placement.solvers.perspective import PerspectiveModel, perspective_model, pyomo_model
from tests.placement.known import skewed, tiny

PROBLEMS = {
    "latency": tiny("six adapters", "latency"),
    "two types": tiny("two GPU types", "weighted"),
    "replicas": tiny("replicas", "gpu_count"),
    "many": skewed(60),
}


def rows_of(linear: LinearModel) -> list[dict[int, float]]:
    ends = linear.start.tolist()
    return [dict(zip(linear.index[i:j].tolist(), linear.value[i:j].tolist(), strict=True)) for i, j in pairwise(ends)]


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_the_matrix_is_the_one_that_pyomo_states(problem: PlacementProblem) -> None:
    rows, classes = column_rows(problem), item_classes(problem)
    made, stated = perspective_model(problem, rows, classes), perspective_model(problem, rows, classes, stated=True)
    assert rows_of(made.linear) == rows_of(stated.linear)
    for name in ("cost", "lower", "upper", "integer", "row_upper"):
        np.testing.assert_array_equal(getattr(made.linear, name), getattr(stated.linear, name), err_msg=name)
    np.testing.assert_array_equal(made.linear.row_lower, stated.linear.row_lower)
    for field in fields(PerspectiveModel):
        if field.name != "linear":
            np.testing.assert_array_equal(getattr(made, field.name), getattr(stated, field.name), err_msg=field.name)


def test_pyomos_own_interface_to_highs_finds_the_same() -> None:
    import pyomo.environ as pyo

    problem = PROBLEMS["latency"]
    rows, classes = column_rows(problem), item_classes(problem)
    m = pyomo_model(problem, rows, classes)
    pyo.SolverFactory("appsi_highs").solve(m)
    found = solve_linear(perspective_model(problem, rows, classes).for_cost(whole=False), time_limit_s=20.0)
    assert pyo.value(m.cost) == pytest.approx(found.value)
