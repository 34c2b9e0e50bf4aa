"""Shipped weights belong to the shipped calibrations, cover the default grid and are as good as documented."""

from __future__ import annotations

import numpy as np
import pytest

from surrogates.artifact import META_FILE, WEIGHTS_FILE, read_artifact, weights_folder
from surrogates.neural_planning import load_planning_model
from surrogates.rules import RULES
from twin.calibration import calibration_dir, load_calibration
from twin.memory import memory_error
from twin.settings import setting_grid

NAMES = sorted(path.stem for path in calibration_dir().glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_the_calibration_and_small(name: str) -> None:
    artifact = read_artifact(weights_folder(name), load_calibration(name))
    assert (weights_folder(name) / WEIGHTS_FILE).stat().st_size < 1_000_000
    assert (weights_folder(name) / META_FILE).stat().st_size < 100_000
    assert all(np.isfinite(array).all() for array in artifact.tensors.values())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NAMES)
def test_every_setting_that_fits_into_memory_has_an_option(name: str, rule: str) -> None:
    calibration = load_calibration(name)
    model = load_planning_model(calibration, constraint=rule)
    settings = [s for s in setting_grid([calibration.stamp.gpu_type]) if memory_error(s, calibration) is None]
    assert len(settings) > 20
    empty = np.zeros((1, len(model.feature_names)))
    for setting in settings:
        option = model.option(setting)
        assert option.violation(empty)[0] <= 0
        assert option.feasible.violation(empty)[0] < 0
        assert option.outer.violation(empty)[0] < option.feasible.violation(empty)[0]


@pytest.mark.parametrize("name", NAMES)
def test_held_out_scores_do_not_get_worse(name: str) -> None:
    scores = read_artifact(weights_folder(name), load_calibration(name)).meta["scores"]
    for rule in RULES:
        assert scores[rule]["convex"]["theta_error_median_pct"] < 6
        assert scores[rule]["mlp"]["theta_error_median_pct"] < 4
    assert scores["metrics"]["itl_smape"] < 4
