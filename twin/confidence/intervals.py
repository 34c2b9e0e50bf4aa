"""Figures over several simulations: means and the intervals that reports show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from twin.confidence.sequential import mean_interval

#: Error probability of the intervals that reports show.
INTERVAL_ERROR = 0.05


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every figure over the simulations."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def intervals(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]] | None:
    """95 % Student-t intervals of the means; None for a single simulation, NaN where a figure is not known."""
    if len(rows) < 2:
        return None
    return {name: list(mean_interval(np.array([row[name] for row in rows]), INTERVAL_ERROR)) for name in rows[0]}
