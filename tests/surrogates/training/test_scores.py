"""Scores mean what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from surrogates.model.features import INDEX, TOKEN_S
from surrogates.model.neural_planning import token_interval_row
from surrogates.training.scores import CROSSING_GRID, accuracy_within, crossing, smape


def test_smape_follows_the_publications() -> None:
    assert smape(np.array([1.0, 0.0, np.nan]), np.array([3.0, 0.0, 1.0])) == pytest.approx(25.0)


@pytest.mark.parametrize("true", [-0.3, 0.0, 0.123])
def test_crossing_is_where_the_gauge_turns_positive(true: float) -> None:
    assert crossing(CROSSING_GRID - true) == pytest.approx(true)
    assert crossing(np.full(len(CROSSING_GRID), -1.0)) == CROSSING_GRID[-1]
    assert crossing(np.full(len(CROSSING_GRID), 1.0)) == CROSSING_GRID[0]


def test_accuracy_counts_columns_near_the_boundary() -> None:
    # A boundary missed by 2.5 % puts a quarter of the columns within 5 % on the wrong side, one far off a half.
    assert accuracy_within(np.array([0.0, 0.025, 1.0]), 0.05) == pytest.approx(100 * (1 + 0.75 + 0.5) / 3)


def test_residence_is_interpolated_between_trained_token_times() -> None:
    row = token_interval_row(0.5 * (TOKEN_S[1] + TOKEN_S[2]))
    assert row[INDEX["residence_30ms"]] == pytest.approx(0.5)
    assert row[INDEX["residence_100ms"]] == pytest.approx(0.5)
    assert token_interval_row(9.0)[INDEX["residence_300ms"]] == 1.0
    assert token_interval_row(0.0)[INDEX["residence_10ms"]] == 1.0
