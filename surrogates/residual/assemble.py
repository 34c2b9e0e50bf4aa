"""What fits have become: their scores, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.residual.forward import Network
from surrogates.residual.heads import OUTPUTS
from surrogates.residual.samples import Samples
from surrogates.residual.scores import coverage, error_scores, regimes
from surrogates.residual.weights import Residual

Floats = NDArray[np.float64]

#: Share of values that an interval of the stored quantiles should hold.
INTERVAL = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class Fitted:
    """An ensemble, and what its members predict for the rays that they left out.

    Args:
        mean, scale: predictions and scales of their errors, (P, O), in units of the targets.
    """

    network: Network
    mean: Floats
    scale: Floats


def scores_of(samples: Samples, boundary: Fitted, column: Fitted) -> dict[str, Any]:
    """Errors on rays that were left out, against single windows of the twin, whose noise they include.

    Of the physics alone, and corrected; by regime for theta*.
    """
    level_low, level_high = INTERVAL
    scores: dict[str, Any] = {"physics": {}, "hybrid": {}, "interval_90_pct_holds_pct": {}}
    log_theta = samples.log_theta
    for name, rays in regimes(samples.arrival_cv, samples.adapters, samples.max_loras).items():
        if rays.any():
            scores["physics"][name] = error_scores({"theta": log_theta[rays]})
            scores["hybrid"][name] = error_scores({"theta": (log_theta - boundary.mean[:, 0])[rays]})
    low, high = (
        boundary.network.quantile(boundary.mean[:, 0], boundary.scale[:, 0], 0, q) for q in (level_low, level_high)
    )
    scores["interval_90_pct_holds_pct"]["theta"] = round(coverage(log_theta, low, high), 2)
    for k, name in enumerate(OUTPUTS):
        truth, mean, scale = samples.targets[:, k], column.mean[:, k], column.scale[:, k]
        scores["physics"]["all"] |= error_scores({name: truth})
        scores["hybrid"]["all"] |= error_scores({name: truth - mean})
        low, high = (column.network.quantile(mean, scale, k, q) for q in (level_low, level_high))
        scores["interval_90_pct_holds_pct"][name] = round(coverage(truth, low, high), 2)
    return scores


def summary(residual: Residual) -> str:
    """Scores of theta* and the columns as lines of text."""
    scores = residual.meta["scores_of_rays_left_out"]
    lines = ["median / 90th percentile of errors on rays left out, %: physics -> corrected"]
    for regime, hybrid in scores["hybrid"].items():
        for name in [key.removesuffix("_error_median_pct") for key in hybrid if key.endswith("_error_median_pct")]:
            pairs = [
                " / ".join(f"{source[regime][f'{name}_error_{q}_pct']:.2f}" for q in ("median", "p90"))
                for source in (scores["physics"], scores["hybrid"])
            ]
            lines.append(f"  {regime:<20}{name:<22}{' -> '.join(pairs)}")
    return "\n".join(lines)
