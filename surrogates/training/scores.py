"""Held-out scores: how well boundaries, loads and metrics are met."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from surrogates.training.records import Records
from twin.figures.health import Rule

Array = NDArray[np.float64]

#: log(theta / theta*) at which a model's boundary is looked for.
CROSSING_GRID = np.linspace(-0.6, 0.6, 61)


def smape(a: Array, b: Array) -> float:
    """100 mean(|a - b| / (|a| + |b|)), percent, 0..100; pairs of zeros count as equal."""
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    total = np.abs(a) + np.abs(b)
    return float(100 * np.mean(np.divide(np.abs(a - b), total, out=np.zeros_like(total), where=total > 0)))


def ray_crossings(records: Records, rule: Rule, rays: NDArray[np.int64], gauge: Callable[[int, Array], Array]) -> Array:
    """log(predicted theta / theta*) of each ray, (R,), clipped to the grid; positive = promises too much.

    Args:
        gauge: `gauge(setting index, phi (P, F)) -> (P,)`, > 0 where the model calls a column unhealthy.
    """
    found = np.empty(len(rays))
    for k, ray in enumerate(rays.tolist()):
        theta = float(records.theta[rule][ray])
        phi = np.stack([records.features(ray, theta * np.exp(t)) for t in CROSSING_GRID.tolist()])
        found[k] = crossing(gauge(int(records.setting[ray]), phi))
    return found


def crossing(values: Array) -> float:
    """Grid point where `values` (61,) first turn positive, by linear interpolation."""
    positive = np.flatnonzero(values > 0)
    if not len(positive):
        return float(CROSSING_GRID[-1])
    k = int(positive[0])
    if k == 0:
        return float(CROSSING_GRID[0])
    share = -values[k - 1] / (values[k] - values[k - 1])
    return float(CROSSING_GRID[k - 1] + share * (CROSSING_GRID[k] - CROSSING_GRID[k - 1]))


def accuracy_within(errors: Array, width: float) -> float:
    """Percent of columns within `width` of the boundary (uniform in log theta) that a model puts on the right side."""
    return float(100 * np.mean(1 - np.minimum(np.abs(errors), width) / (2 * width))) if len(errors) else float("nan")


def boundary_scores(errors: Array, crowded: NDArray[np.bool_]) -> dict[str, float]:
    """Scores of a boundary from `ray_crossings`; `crowded` marks rays with adapters > slots, (R,)."""
    percent = 100 * np.expm1(np.abs(errors))
    scores = {
        "theta_error_median_pct": float(np.median(percent)),
        "theta_error_p90_pct": float(np.quantile(percent, 0.9)),
        "accuracy_boundary": accuracy_within(errors, 0.05),
        "accuracy_within_10_pct": accuracy_within(errors, 0.10),
    }
    for name, part in (("within_slots", ~crowded), ("crowded", crowded)):
        if part.any():
            scores[f"theta_error_median_pct_{name}"] = float(np.median(percent[part]))
            scores[f"accuracy_boundary_{name}"] = accuracy_within(errors[part], 0.05)
    return scores
