"""Random calibrations are valid, stay within their ranges, and depend on seed and number alone."""

from __future__ import annotations

import pytest

from surrogates.residual.around import (
    KV_FACTORS,
    LORA_COEFFICIENTS,
    LORA_FACTORS,
    MODEL_COEFFICIENTS,
    STEP_FACTORS,
    base_name,
    random_calibration,
)
from surrogates.residual.rays import usable_settings
from twin.server.calibration import calibration_from_dict, load_calibration
from twin.server.laws import STEP_TERMS
from twin.server.memory import kv_cache_tokens
from twin.server.settings import EngineSetting

NAMES = ("llama-3.1-8b-h100-64gb", "qwen2.5-7b-h100-64gb")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", range(12))
def test_a_random_calibration_is_valid_and_within_its_ranges(name: str, number: int) -> None:
    base = load_calibration(name)
    drawn = random_calibration(base, 0, number)
    assert calibration_from_dict(drawn.to_dict()) == drawn
    for names, (low, high) in ((MODEL_COEFFICIENTS, STEP_FACTORS), (LORA_COEFFICIENTS, LORA_FACTORS)):
        for term in names:
            before = getattr(base.step, term)
            assert low * before <= getattr(drawn.step, term) <= high * before
    small = EngineSetting(base.stamp.gpu_type, 8, 8)
    ratio = kv_cache_tokens(small, drawn) / kv_cache_tokens(small, base)
    assert KV_FACTORS[0] * 0.98 < ratio < KV_FACTORS[1] * 1.02
    assert usable_settings({"max_loras": [8], "max_lora_rank": [8]}, drawn)
    assert drawn.has_adapter_costs


def test_every_coefficient_of_a_step_is_drawn() -> None:
    assert set(MODEL_COEFFICIENTS + LORA_COEFFICIENTS) == set(STEP_TERMS)


def test_it_depends_on_seed_and_number_alone() -> None:
    base = load_calibration(NAMES[0])
    assert random_calibration(base, 3, 4) == random_calibration(base, 3, 4)
    assert random_calibration(base, 3, 4).step != random_calibration(base, 3, 5).step
    assert random_calibration(base, 3, 4).step != random_calibration(base, 4, 4).step


def test_names_lead_back_to_the_shipped_calibration() -> None:
    base = load_calibration(NAMES[1])
    assert base_name(random_calibration(base, 0, 12).name) == base.name
    assert base_name(base.name) == base.name
