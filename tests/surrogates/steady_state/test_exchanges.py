"""A column that differs by an exchange is the column that it becomes."""

from __future__ import annotations

import numpy as np
import pytest

from surrogates.steady_state.model import steady_state_model
from twin.server.calibration import load_calibration
from twin.server.settings import EngineSetting
from twin.sources.synthetic import power_law


@pytest.mark.parametrize("slots", [8, 32, 96])
@pytest.mark.parametrize("rule", ["stable", "published"])
def test_an_exchange_is_the_column_that_it_makes(slots: int, rule: str) -> None:
    calibration = load_calibration("llama-3.1-8b-h100-64gb")
    adapters = power_law(60, 6.0, exponent=1.1, ranks=[8, 16, 32], seed=3).adapters
    setting = EngineSetting(gpu_type=calibration.stamp.gpu_type, max_loras=slots, max_lora_rank=32)
    model = steady_state_model(adapters, calibration, setting, rule=rule)  # type: ignore[arg-type]
    rng = np.random.default_rng(slots)
    members, others = np.split(rng.permutation(len(adapters)), [35])
    leave = np.where(rng.random(80) < 0.7, rng.choice(members, 80), -1)
    enter = np.where(rng.random(80) < 0.7, rng.choice(others, 80), -1)
    groups = [
        np.append(members[members != gone], [new] if new >= 0 else []).astype(np.int64)
        for gone, new in zip(leave, enter, strict=True)
    ]
    laws = model.laws([setting] * 80)
    found, expected = model.exchanges(members, leave, enter, laws), model.states(groups, laws)
    assert np.isfinite(expected.pace_s).all()
    for name in ("pace_s", "requests_in_system", "decoding", "ttft_p99_s", "kv_share", "loads_per_s", "healthy"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12)
