"""A tiny training run learns the stand-in, and its artifact keeps every promise of the planning contract."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings as limit, strategies as st

from surrogates.model.artifact import META_FILE, WEIGHTS_FILE, Artifact, read_artifact
from surrogates.model.features import FEATURE_NAMES, INDEX
from surrogates.model.metric_scales import METRIC_SCALES, from_targets, to_targets
from surrogates.model.neural_planning import NeuralPlanningModel
from surrogates.model.planning import PlanningModel
from surrogates.model.prediction import NeuralSurrogate, load_planning_model, load_surrogate
from surrogates.training.records import Records
from surrogates.training.sampling import sample
from tests.surrogates.conftest import use_of_gpu
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths

Settings = tuple[EngineSetting, ...]
GPU = "h100-64gb"
unseen_slots = st.integers(8, 128)
columns = st.lists(st.integers(0, 10_000), min_size=2, max_size=2)


@pytest.fixture(scope="module", params=["stable", "published"])
def planning(request: pytest.FixtureRequest, artifact: Artifact, calibration: Calibration) -> NeuralPlanningModel:
    return NeuralPlanningModel(artifact, calibration, request.param)


def test_training_learns_the_boundary(artifact: Artifact) -> None:
    for rule in ("stable", "published"):
        assert artifact.meta["scores"][rule]["convex"]["theta_error_median_pct"] < 15
        assert artifact.meta["scores"][rule]["convex"]["requests_decoding_smape"] < 25
        assert artifact.meta["margins"][rule]["within_slots"] >= 0.01


def test_same_seed_trains_the_same_weights(records: Records, calibration: Calibration) -> None:
    from surrogates.training.train import TrainingOptions, train

    options = TrainingOptions(
        gauges=1, facets=2, hinges=2, perceptrons=1, gauge_steps=5, load_steps=5, perceptron_steps=5
    )
    one, two = (train(records, calibration, options) for _ in range(2))
    assert one.meta == two.meta
    for name, array in one.tensors.items():
        np.testing.assert_array_equal(array, two.tensors[name])


def test_training_refuses_records_of_another_calibration(records: Records, calibration: Calibration) -> None:
    from surrogates.training.train import TrainingOptions, train

    with pytest.raises(InputError, match="another version of calibration"):
        train(records, replace(calibration, load=replace(calibration.load, equal_rank_ms=1.0)), TrainingOptions())


@limit(max_examples=30)
@given(columns, unseen_slots, st.floats(0, 1))
def test_gauge_and_loads_are_convex_in_load_for_settings_never_seen(
    planning: NeuralPlanningModel, column_phi: np.ndarray, pair: list[int], slots: int, share: float
) -> None:
    option = planning.option(EngineSetting(GPU, slots, 16))
    one, two = (column_phi[k % len(column_phi)] for k in pair)
    between = (share * one + (1 - share) * two)[None]
    for function in (option.feasible.violation, option.requests_in_system, option.requests_decoding):
        ends = share * function(one[None]) + (1 - share) * function(two[None])
        assert function(between)[0] <= ends[0] + 1e-9 * (1 + abs(ends[0]))


@limit(max_examples=30)
@given(st.integers(0, 10_000), unseen_slots)
def test_loads_are_positive_and_an_empty_gpu_has_none(
    planning: NeuralPlanningModel, column_phi: np.ndarray, index: int, slots: int
) -> None:
    option = planning.option(EngineSetting(GPU, slots, 8))
    phi = np.stack([column_phi[index % len(column_phi)], np.zeros(len(FEATURE_NAMES))])
    for load in (option.requests_in_system, option.requests_decoding):
        assert load(phi)[0] > 0
        assert load(phi)[1] == 0


def test_margin_lies_between_feasible_and_outer(planning: NeuralPlanningModel, column_phi: np.ndarray) -> None:
    setting, phi = EngineSetting(GPU, 32, 16), column_phi
    option = planning.option(setting)
    np.testing.assert_allclose(option.feasible.violation(phi) - option.outer.violation(phi), planning.margin(setting))


def test_hull_keeps_columns_inside_what_was_trained(planning: NeuralPlanningModel) -> None:
    setting = EngineSetting(GPU, 32, 16)
    usual = Adapter("a", 16, 0.05, Lengths(223, 1.1), Lengths(197, 1.06))
    hull = planning.option(setting).hull
    assert hull.violation(planning.features([usual] * 10).sum(axis=0)[None])[0] <= 0
    too_long = replace(usual, prompt_tokens=Lengths(60_000, 0.1))
    assert hull.violation(planning.features([too_long] * 10).sum(axis=0)[None])[0] > 0
    assert hull.violation(planning.features([replace(usual, rate_req_per_s=1e4)]).sum(axis=0)[None])[0] > 0


def test_slot_safety_row_limits_busy_slots_of_the_stable_rule_only(
    artifact: Artifact, calibration: Calibration
) -> None:
    assert artifact.meta["hull"]["published"]["slot_safety"] is None
    setting = EngineSetting(GPU, 8, 16)
    model = NeuralPlanningModel(artifact, calibration, "stable")
    rows = model.option(setting).hull.G
    others = NeuralPlanningModel(artifact, calibration, "published").option(setting).hull.G
    assert len(rows) == len(others) + 1
    assert (rows[-1] >= 0).all()
    assert {n for n in FEATURE_NAMES if rows[-1, INDEX[n]] > 0} <= {n for n in FEATURE_NAMES if "residence_" in n}


def test_unknown_settings_and_gpus_are_refused(planning: NeuralPlanningModel) -> None:
    for setting in (EngineSetting(GPU, 512, 8), EngineSetting(GPU, 32, 64), EngineSetting(GPU, 32, 8, max_num_seqs=64)):
        with pytest.raises(InputError, match="where the surrogate was trained"):
            planning.option(setting)
    with pytest.raises(InputError, match="GPU type"):
        planning.option(EngineSetting("a100", 32, 8))


def test_planning_model_follows_its_protocol(planning: NeuralPlanningModel) -> None:
    model: PlanningModel = planning
    assert model.features([]).shape == (0, len(FEATURE_NAMES))


def test_artifact_round_trip(
    tmp_path: Path, artifact: Artifact, calibration: Calibration, settings: Settings, records: Records
) -> None:
    artifact.write(tmp_path)
    assert (tmp_path / WEIGHTS_FILE).stat().st_size < 1_000_000
    again = read_artifact(tmp_path, calibration)
    assert set(again.tensors) == set(artifact.tensors)
    for name, array in artifact.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], array)
    model = load_planning_model(calibration, constraint="stable", weights=tmp_path)
    expected = NeuralPlanningModel(artifact, calibration, "stable").option(settings[0])
    np.testing.assert_array_equal(model.option(settings[0]).feasible.G, expected.feasible.G)
    with pytest.raises(InputError, match="constraint 'loose'"):
        load_planning_model(calibration, constraint="loose", weights=tmp_path)


def test_damaged_foreign_and_missing_artifacts_are_refused(
    tmp_path: Path, artifact: Artifact, calibration: Calibration
) -> None:
    with pytest.raises(InputError, match="python -m surrogates dataset"):
        load_surrogate(calibration, weights=tmp_path / "nowhere")
    artifact.write(tmp_path)
    with pytest.raises(InputError, match="another version of calibration"):
        read_artifact(tmp_path, replace(calibration, step=replace(calibration.step, kv=9.0)))
    priced = replace(calibration, gpu=replace(calibration.gpu, price_per_hour=3.0, count=4))
    read_artifact(tmp_path, priced)  # prices and stock are no part of what the twin computes
    meta = json.loads((tmp_path / META_FILE).read_text())
    (tmp_path / META_FILE).write_text(json.dumps(meta | {"feature_names": ["rate"]}))
    with pytest.raises(InputError, match="other feature_names"):
        read_artifact(tmp_path, calibration)
    (tmp_path / META_FILE).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_artifact(tmp_path, calibration)
    artifact.write(tmp_path)
    data = bytearray((tmp_path / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (tmp_path / WEIGHTS_FILE).write_bytes(data)
    with pytest.raises(InputError, match="does not match the hash"):
        read_artifact(tmp_path, calibration)


def test_surrogate_predicts_all_metrics_alone_and_in_batches(
    artifact: Artifact, calibration: Calibration, settings: Settings
) -> None:
    surrogate = NeuralSurrogate(artifact, calibration)
    drawn = [sample(5, k, settings) for k in range(12)]
    batch = [Column(d.adapters.to_adapters(), settings[d.setting_index]) for d in drawn]
    prediction = surrogate.predict(batch)
    assert len(prediction) == 12
    for k, column in enumerate(batch):
        alone = surrogate.predict([column]).row(0)
        together = prediction.row(k)
        assert alone == pytest.approx(together, rel=1e-3, abs=1e-4)
        assert all(np.isfinite(together[name]) for name in METRIC_SCALES if name != "tpot_mean_ms")
    assert set(np.unique(prediction.starved)) <= {0.0, 1.0}


def test_light_columns_are_called_healthy_and_heavy_ones_starved(artifact: Artifact, calibration: Calibration) -> None:
    surrogate = NeuralSurrogate(artifact, calibration)
    setting = EngineSetting(GPU, 32, 16)
    adapters = tuple(Adapter(f"a{k}", 16, 0.1, Lengths(223, 1.1), Lengths(197, 1.06)) for k in range(24))
    light, heavy = (Column(tuple(a.scaled(f) for a in adapters), setting) for f in (0.3, 30.0))
    assert use_of_gpu(light) < 0.5 < 2 < use_of_gpu(heavy)
    assert surrogate.predict([light, heavy]).starved.tolist() == [0.0, 1.0]
    mean, _ = surrogate.distance([light, heavy])["stable"]
    assert mean[0] < 0 < mean[1]


@limit(max_examples=30)
@given(st.integers(0, 10_000))
def test_metric_scales_are_invertible(records: Records, column_phi: np.ndarray, index: int) -> None:
    column = index % len(records.ray)
    phi = column_phi[[column]]
    metrics = {name: records.metrics[name][[column]] for name in METRIC_SCALES}
    again = from_targets(to_targets(metrics, phi), phi)
    for name, scale in METRIC_SCALES.items():
        if scale.kind != "fraction" and np.isfinite(metrics[name][0]):
            assert again[name][0] == pytest.approx(metrics[name][0], rel=1e-6, abs=1e-6)
