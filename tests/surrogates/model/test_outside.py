"""A workload that no training mix resembles is refused by name, not extrapolated."""

from __future__ import annotations

import pytest

from surrogates.model.neural_planning import load_planning_model
from twin.server.calibration import load_calibration
from twin.workload.adapter import Adapter, Lengths


@pytest.mark.parametrize("rule", ["stable", "published"])
def test_the_ratio_outside_the_trained_range_is_named(rule: str) -> None:
    model = load_planning_model(load_calibration("llama-3.1-8b-h100-64gb"), constraint=rule)
    usual = [Adapter("a", 8, 1.0, Lengths(223, 1.1), Lengths(197, 1.06))]
    endless = [Adapter("a", 8, 1.0, Lengths(90_000, 1.1), Lengths(197, 1.06))]
    assert model.outside(model.features(usual).sum(axis=0)) == []
    (first, *_) = model.outside(model.features(endless).sum(axis=0))
    assert "prompt_rate" in first and "9e+04" in first
