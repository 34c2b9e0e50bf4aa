"""The closed-form planning model is convex, monotone, and on the right side of the twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surrogates.model.analytic import AnalyticSurrogate, design_step
from surrogates.model.features import INDEX, SLOT_FEATURES
from surrogates.model.planning import OptionModel
from twin.errors import InputError
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.workload.adapter import Adapter, Lengths

CALIBRATION = load_calibration("llama-3.1-8b-h100-64gb")
GPU = CALIBRATION.gpu.name
MODEL = AnalyticSurrogate({GPU: CALIBRATION})
LENGTHS = Lengths(225, 1.1), Lengths(200, 1.06)
SHAPES = [(8, 8, 8), (16, 16, 16), (64, 16, 48), (64, 32, 150), (128, 16, 128), (192, 8, 192)]


def mix(n: int, rank: int, rate: float) -> list[Adapter]:
    return [Adapter(f"a{i}", rank, rate / n, *LENGTHS) for i in range(n)]


def boundary(option: OptionModel, n: int, rank: int) -> float:
    """Total rate at which a mix of n equal adapters reaches the boundary, req/s."""
    low, high = 1e-3, 1e3
    for _ in range(50):
        middle = (low * high) ** 0.5
        phi = MODEL.features(mix(n, rank, middle)).sum(axis=0)[None]
        low, high = (middle, high) if option.violation(phi)[0] <= 0 else (low, middle)
    return low


@pytest.mark.parametrize(("slots", "rank", "n"), SHAPES)
def test_what_it_promises_holds_in_the_twin_and_is_not_trivial(slots: int, rank: int, n: int) -> None:
    setting = EngineSetting(GPU, slots, rank)
    option = MODEL.option(setting)
    edge = boundary(option, n, rank)
    inside = simulate(Column(tuple(mix(n, rank, 0.85 * edge)), setting), CALIBRATION, horizon_s=1200, seed=1)
    assert inside.prediction_row()["served_fraction"] > 0.93
    assert inside.prediction_row()["ttft_p99_s"] < 5
    beyond = simulate(Column(tuple(mix(n, rank, 4 * edge)), setting), CALIBRATION, horizon_s=600, seed=1)
    row = beyond.prediction_row()
    if n > slots or slots >= 64:  # few slots, all resident: the slot row is the cautious one
        assert row["served_fraction"] < 0.9 or row["ttft_p99_s"] > 5


@pytest.mark.parametrize(("slots", "rank", "n"), SHAPES)
def test_loads_are_within_a_factor_of_two_of_the_twin(slots: int, rank: int, n: int) -> None:
    setting = EngineSetting(GPU, slots, rank)
    option = MODEL.option(setting)
    adapters = mix(n, rank, 0.7 * boundary(option, n, rank))
    phi = MODEL.features(adapters).sum(axis=0)[None]
    row = simulate(Column(tuple(adapters), setting), CALIBRATION, horizon_s=1200, seed=1).prediction_row()
    assert 0.5 < option.requests_decoding(phi)[0] / row["running"] < 2
    assert 0.5 < option.requests_in_system(phi)[0] / row["requests_in_system"] < 2


def test_more_load_is_never_easier() -> None:
    option = MODEL.option(EngineSetting(GPU, 64, 16))
    assert (option.feasible.G >= 0).all()
    assert (option.hull.G >= 0).all()
    for load in (option.requests_in_system, option.requests_decoding):
        assert (load.W >= 0).all() and (load.q >= 0).all() and (load.v >= 0).all()


def test_in_system_is_at_least_decoding() -> None:
    option = MODEL.option(EngineSetting(GPU, 64, 16))
    phi = np.random.default_rng(0).random((200, len(INDEX))) * 50
    assert (option.requests_in_system(phi) >= option.requests_decoding(phi)).all()


def test_base_model_requests_need_no_slot() -> None:
    base = MODEL.features([replace(mix(1, 8, 3.0)[0], rank=0)])[0]
    assert (base[SLOT_FEATURES] == 0).all()
    assert base[INDEX["rate"]] == 3.0


def test_margin_moves_facets_inwards() -> None:
    option = replace(MODEL, margin=0.2).option(EngineSetting(GPU, 64, 16))
    np.testing.assert_allclose(option.feasible.g, option.outer.g + 0.2)


def test_larger_settings_are_designed_for_longer_steps() -> None:
    steps = [design_step(EngineSetting(GPU, slots, 16), CALIBRATION)[0] for slots in (8, 64, 192)]
    assert steps == sorted(steps)


def test_settings_that_do_not_start_are_refused() -> None:
    with pytest.raises(InputError, match="does not start"):
        MODEL.option(EngineSetting(GPU, 384, 64))
