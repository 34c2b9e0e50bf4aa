"""Non-negative, robust, lightly regularised least squares for the step-time law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from profiling.fit.micro import TERMS, Row

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rows are weighed.

    Args:
        micro_weight: weight of a micro-benchmark row against a real run.
        ridge: pull of each term's contribution towards zero, relative to the rows' total weight; splits what
            collinear terms share instead of giving all to one, so that settings off the measured diagonal behave.
        huber: relative error beyond which a row loses weight.
        zero: terms that are left out. `adapter_large` by default: without it the error on workloads left out is no
            larger, and the law has one jump less.
    """

    micro_weight: float = 0.3
    ridge: float = 5e-3
    huber: float = 0.03
    iterations: int = 12
    zero: tuple[str, ...] = ("adapter_large",)


def relative_errors(rows: Sequence[Row], coefficients: Array) -> Array:
    """Predicted / measured step time - 1, (rows,)."""
    return np.array([float(r.features @ coefficients) / r.target_ms - 1.0 for r in rows])


def regress(rows: Sequence[Row], recipe: Recipe) -> Array:
    """Coefficients (21,) >= 0 that minimise Huber-weighted squared *relative* errors."""
    target = np.array([r.target_ms for r in rows])
    x = np.array([r.features for r in rows]) / target[:, None]
    weight = np.array([r.weight * (1.0 if r.kind == "run" else recipe.micro_weight) for r in rows])
    x[:, [TERMS.index(name) for name in recipe.zero]] = 0.0
    scale = np.sqrt((weight[:, None] * x**2).sum(0) / weight.sum())
    penalty = np.diag(np.sqrt(recipe.ridge * weight.sum()) * scale)
    # The constant is identified well and must not shrink.
    penalty[0, 0] = 0.0
    robust = np.ones(len(rows))
    coefficients = np.zeros(len(TERMS))
    for _ in range(recipe.iterations):
        w = np.sqrt(weight * robust)
        a = np.vstack([x * w[:, None], penalty])
        b = np.concatenate([w, np.zeros(len(TERMS))])
        coefficients, _ = nnls(a, b)
        error = np.abs(x @ coefficients - 1.0)
        robust = np.minimum(1.0, recipe.huber / np.maximum(error, 1e-12))
    coefficients[[TERMS.index(name) for name in recipe.zero]] = 0.0
    return np.asarray(coefficients)


def summary(rows: Sequence[Row], coefficients: Array) -> Mapping[str, float]:
    """Mean absolute relative error by kind of row, percent."""
    errors = 100 * np.abs(relative_errors(rows, coefficients))
    kinds = np.array([r.kind for r in rows])
    return {f"{kind}_mape_pct": round(float(errors[kinds == kind].mean()), 3) for kind in sorted(set(kinds))}
