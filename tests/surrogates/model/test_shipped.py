"""Shipped weights belong to the shipped calibrations, cover the default grid and are as good as documented."""

from __future__ import annotations

import numpy as np
import pytest

from surrogates.model.artifact import META_FILE, WEIGHTS_FILE, read_artifact, weights_folder
from surrogates.model.context import untrained_flags
from surrogates.model.features import FEATURE_NAMES
from surrogates.model.neural_planning import load_planning_model
from twin.errors import InputError
from twin.figures.health import RULES
from twin.server.calibration import calibration_dir, load_calibration
from twin.server.memory import memory_error
from twin.server.settings import EngineSetting, setting_grid

#: Calibrations without adapter costs can serve base-model requests only and have no surrogate.
NAMES = sorted(path.stem for path in calibration_dir().glob("*.yaml") if load_calibration(path.stem).has_adapter_costs)


def test_calibrations_without_weights_say_so_when_planned_with() -> None:
    others = sorted({path.stem for path in calibration_dir().glob("*.yaml")} - set(NAMES))
    assert others
    for name in others:
        with pytest.raises(InputError, match=f"no trained surrogate for calibration '{name}'"):
            load_planning_model(load_calibration(name), constraint="stable")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("flag", "value"), [("max_num_seqs", 256), ("gpu_memory_utilization", 0.85), ("servers_per_gpu", 2)]
)
def test_server_flags_that_were_not_trained_are_refused_by_name(name: str, flag: str, value: float) -> None:
    calibration = load_calibration(name)
    flags = {"gpu_memory_utilization": 0.45, flag: value} if flag == "servers_per_gpu" else {flag: value}
    setting = EngineSetting(calibration.stamp.gpu_type, 32, 16, **flags)  # type: ignore[arg-type]
    notes = untrained_flags(setting, read_artifact(weights_folder(name), calibration).meta.get("server_flags"))
    assert any(note.startswith(f"{flag} {value:g} is not") for note in notes)
    with pytest.raises(InputError, match="where the surrogate was trained"):
        load_planning_model(calibration, constraint="stable").option(setting)


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
    empty = np.zeros((1, len(FEATURE_NAMES)))
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
