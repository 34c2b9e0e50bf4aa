"""Corrected states: what is corrected, what is left, and weights that do not belong are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from surrogates.residual.heads import HEADS, OUTPUTS
from surrogates.residual.inputs import INPUTS, inputs_of
from surrogates.residual.model import CorrectedModel, corrected_largest_load, corrected_model
from surrogates.residual.weights import META_FILE, WEIGHTS_FILE, Residual, read_residual
from surrogates.steady_state.model import largest_load, steady_state_model
from surrogates.steady_state.numbers import STATE_NUMBERS, state_numbers
from twin.errors import InputError
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return load_calibration("llama-3.1-8b-h100-64gb")


def adapters(count: int, rate: float = 0.1) -> tuple[Adapter, ...]:
    return tuple(Adapter(f"a-{k}", 16, rate, Lengths(223, 1.1), Lengths(197, 1.06)) for k in range(count))


SETTING = EngineSetting("h100-64gb", 32, 16)


def test_figures_are_the_physics_times_the_correction(residual: Residual, calibration: Calibration) -> None:
    columns = [Column(adapters(20), SETTING), Column(adapters(60, 0.02), SETTING)]
    model, groups = corrected_model(columns, calibration, residual)
    found = model.states(groups, [SETTING, SETTING], np.array([1.0, 0.5]))
    assert len(found) == 2
    for k, head in enumerate(HEADS):
        physics, value = getattr(found.physics, head.name), getattr(found.state, head.name)
        expected = (physics + head.floor) * np.exp(found.correction[:, k]) - head.floor
        np.testing.assert_allclose(value, np.clip(expected, 0.0, 1.0 if head.floor else np.inf))
        low, high = found.quantile(head.name, 0.05), found.quantile(head.name, 0.95)
        assert (low <= high).all()
    np.testing.assert_allclose(found.state.e2e_mean_s * found.state.rate_req_per_s, found.state.requests_in_system)
    np.testing.assert_array_equal(found.state.pace_s, found.physics.pace_s)
    assert ((found.log_margin >= 0) == (found.state.healthy > 0)).all()
    with pytest.raises(InputError, match="'pace_s' is not corrected"):
        found.quantile("pace_s", 0.5)


def test_inputs_hold_the_state_numbers_of_the_physics(residual: Residual, calibration: Calibration) -> None:
    columns = [Column(adapters(n, rate), SETTING) for n, rate in ((1, 0.1), (20, 0.3), (60, 0.05), (300, 0.001))]
    model, groups = corrected_model(columns, calibration, residual)
    state = model.physics.states(groups, [SETTING] * len(columns))
    assert np.isfinite(state.pace_s).all()
    assert INPUTS[: len(STATE_NUMBERS)] == STATE_NUMBERS
    np.testing.assert_allclose(inputs_of(state)[:, : len(STATE_NUMBERS)], state_numbers(state), rtol=1e-12, atol=1e-12)


def test_a_batch_gives_what_single_columns_give(residual: Residual, calibration: Calibration) -> None:
    columns = [Column(adapters(n), SETTING) for n in (3, 20, 40)]
    model, groups = corrected_model(columns, calibration, residual)
    together = model.states(groups, [SETTING] * 3)
    sums = model.states_of_sums(model.physics.sums(groups), [SETTING] * 3)
    for p in range(3):
        alone = model.states([groups[p]], [SETTING])
        np.testing.assert_allclose(together.correction[p], alone.correction[0], atol=1e-5)
        np.testing.assert_allclose(sums.correction[p], alone.correction[0], atol=1e-4)


def test_where_there_is_no_steady_state_nothing_is_corrected(residual: Residual, calibration: Calibration) -> None:
    model, groups = corrected_model([Column(adapters(20), SETTING)], calibration, residual)
    found = model.states(groups, [SETTING], 1000.0)
    assert np.isnan(found.state.requests_in_system[0])
    assert found.state.healthy[0] == 0
    assert found.log_margin[0] < 0


def test_largest_loads_are_corrected_and_scale_with_the_rates(residual: Residual, calibration: Calibration) -> None:
    one, ten = (corrected_largest_load(Column(adapters(20, r), SETTING), calibration, residual) for r in (0.1, 1.0))
    assert one.theta[0] == pytest.approx(10 * ten.theta[0], rel=1e-3)
    assert one.physics[0] == pytest.approx(largest_load([Column(adapters(20), SETTING)], calibration)[0], rel=1e-3)
    assert one.theta[0] == pytest.approx(one.physics[0] * np.exp(one.log_theta[0]))
    assert one.quantile(0.05)[0] < one.quantile(0.95)[0]


def test_the_published_rule_is_not_corrected(residual: Residual, calibration: Calibration) -> None:
    physics = steady_state_model(adapters(20), calibration, SETTING, rule="published")
    model = CorrectedModel(physics, residual)
    group = [np.arange(20)]
    loads = model.largest_loads(group, [SETTING])
    np.testing.assert_array_equal(loads.theta, loads.physics)
    np.testing.assert_array_equal(
        model.states(group, [SETTING]).state.healthy, physics.states(group, [SETTING]).healthy
    )


def test_columns_of_different_models_are_refused(residual: Residual, calibration: Calibration) -> None:
    other = EngineSetting("h100-64gb", 32, 16, max_model_len=4096)
    with pytest.raises(InputError, match="differ in servers_per_gpu or max_model_len"):
        corrected_model([Column(adapters(2), SETTING), Column(adapters(2), other)], calibration, residual)


def test_weights_that_do_not_belong_are_refused(residual: Residual, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no trained residual"):
        read_residual(tmp_path)
    residual.write(tmp_path)
    meta = json.loads((tmp_path / META_FILE).read_text())
    assert meta["column_outputs"] == list(OUTPUTS)
    (tmp_path / META_FILE).write_text(json.dumps(meta | {"column_inputs": ["other"]}))
    with pytest.raises(InputError, match="written with other column_inputs"):
        read_residual(tmp_path)
    residual.write(tmp_path)
    data = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(data[:-4] + b"abcd")
    with pytest.raises(InputError, match="does not match the hash"):
        read_residual(tmp_path)
    (tmp_path / META_FILE).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_residual(tmp_path)
