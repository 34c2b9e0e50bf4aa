"""How far predictions are from the twin, by regime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from surrogates.residual.mixes import FEW_SLOTS

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: CV up to which arrivals are not called bursty.
CALM_CV = 3.0


def regimes(arrival_cv: Floats, adapters: NDArray[np.int64], max_loras: NDArray[np.int64]) -> dict[str, Flags]:
    """Which of R rays belong to a regime, (R,) each."""
    crowded, few = adapters > max_loras, max_loras <= FEW_SLOTS
    return {
        "all": np.ones(len(arrival_cv), np.bool_),
        "cv_le_3": arrival_cv <= CALM_CV,
        "cv_gt_3": arrival_cv > CALM_CV,
        "within_slots": ~crowded,
        "crowded_many_slots": crowded & ~few,
        "crowded_few_slots": crowded & few,
    }


def error_percent(log_ratio: Floats) -> tuple[float, float]:
    """Median and 90th percentile of |ratio - 1|, percent, of logarithms of ratios; NaN are left out."""
    known = np.abs(log_ratio[np.isfinite(log_ratio)])
    if not len(known):
        return float("nan"), float("nan")
    median, p90 = (100.0 * np.expm1(np.quantile(known, [0.5, 0.9]))).tolist()
    return median, p90


def error_scores(errors: Mapping[str, Floats]) -> dict[str, float]:
    """`<name>_error_median_pct` and `_p90_pct` of logarithms of ratios by name."""
    scores = {}
    for name, log_ratio in errors.items():
        median, p90 = error_percent(log_ratio)
        scores[f"{name}_error_median_pct"], scores[f"{name}_error_p90_pct"] = round(median, 3), round(p90, 3)
    return scores


def coverage(truth: Floats, low: Floats, high: Floats) -> float:
    """Percent of known values within their limits."""
    known = np.isfinite(truth)
    return float(100.0 * np.mean((truth >= low)[known] & (truth <= high)[known])) if known.any() else float("nan")
