"""Whole GPUs per setting from the linear program: quick, and a fallback where the MIP finds nothing in time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from placement.problem.problem import PlacementProblem
from placement.solvers.certificate import fleet_limits
from placement.solvers.highs import LinearModel, LinearResult, solve_linear
from placement.solvers.perspective import PerspectiveModel


def round_settings(
    problem: PlacementProblem,
    perspective: PerspectiveModel,
    model: LinearModel,
    gpus: int | None,
    time_limit_s: float,
) -> LinearResult:
    """Rounds y of the model's LP (whole parts, then one more where the rest is largest) and solves at that y.

    Args:
        perspective: where y is in the model.
        model: a variant of the perspective model; its integrality is ignored.
        gpus: GPUs in all; None = those of the LP, rounded up.

    Returns:
        Status `unknown` if the rounding is infeasible, because that says nothing about other roundings; never a
        bound.
    """
    linear = replace(model, integer=np.zeros_like(model.integer))
    relaxed = solve_linear(linear, time_limit_s=time_limit_s / 2)
    if relaxed.x is None or relaxed.interrupted:
        return replace(relaxed, bound=-np.inf)
    y = relaxed.x[perspective.y]
    whole = np.floor(y + 1e-6)
    missing = (math.ceil(y.sum() - 1e-6) if gpus is None else gpus) - int(whole.sum())
    left = fleet_limits(problem)[0] - np.bincount(problem.option_type, whole, minlength=len(problem.stock))
    for o in np.argsort(whole - y, kind="stable").tolist() * 2:
        if missing > 0 and left[problem.option_type[o]] >= 1 and y[o] > 1e-9:
            whole[o] += 1
            left[problem.option_type[o]] -= 1
            missing -= 1
    lower, upper = linear.lower.copy(), linear.upper.copy()
    lower[perspective.y] = upper[perspective.y] = whole
    result = solve_linear(replace(linear, lower=lower, upper=upper), time_limit_s=time_limit_s / 2)
    return replace(result, status="unknown" if result.status == "infeasible" else result.status, bound=-np.inf)
