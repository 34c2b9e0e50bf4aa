"""Shipped calibrations load, are stamped, and refuse to stand for another model or engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from twin.errors import InputError
from twin.server.calibration import calibration_dir, calibration_from_dict, load_calibration
from twin.server.memory import kv_cache_tokens, memory_error
from twin.server.settings import EngineSetting

SHIPPED = ("llama-3.1-8b-h100-64gb", "qwen2.5-7b-h100-64gb")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_calibrations_are_complete_and_stamped(name: str) -> None:
    calibration = load_calibration(name)
    assert calibration.name == name
    assert calibration.stamp.engine_version == "0.8.5"
    assert calibration.stamp.points["runs"] > 50
    assert calibration.stamp.residuals["run_mape_pct"] < 4.0
    assert calibration.stamp.date
    assert calibration.valid["max_loras"][0] == 8 and calibration.valid["max_loras"][1] >= 192
    # Physical signs: each of these costs time.
    step = calibration.step
    assert min(step.base, step.seq, step.prompt, step.kv, step.adapter, step.slot_token, step.skipped) > 0
    assert min(step.slot + step.slot_square, step.skipped_seq, step.lora_rank, step.plain_large) > 0
    assert 0 < calibration.load.equal_rank_ms < calibration.load.lower_rank_ms


@pytest.mark.parametrize("name", SHIPPED)
def test_reading_and_writing_round_trips(name: str, tmp_path: Path) -> None:
    calibration = load_calibration(name)
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(calibration.to_dict(), sort_keys=False))
    assert load_calibration(path) == calibration


def test_values_outside_the_fitted_ranges_are_named() -> None:
    notes = load_calibration(SHIPPED[0]).outside(max_loras=512, max_lora_rank=16)
    assert len(notes) == 1 and "max_loras 512" in notes[0]


def test_unknown_names_and_malformed_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=SHIPPED[0]):
        load_calibration("gpt-9")
    data = load_calibration(SHIPPED[0]).to_dict()
    for path, value in (
        (("step",), None),
        (("step", "adapter"), "fast"),
        (("step", "adapter"), -1.0),
        (("kv", "shape", "layers"), 0),
        (("kv", "slope"), 1.0),
    ):
        broken = yaml.safe_load(yaml.safe_dump(data))
        node = broken
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        with pytest.raises(InputError):
            calibration_from_dict(broken, where=str(tmp_path))


def test_every_file_in_the_folder_loads_under_its_own_name() -> None:
    for path in calibration_dir().glob("*.yaml"):
        assert load_calibration(path.stem).name == path.stem


def test_measured_capacities_are_reproduced_without_the_data() -> None:
    """Three rows of the published capacity table for each model, and refusals where the servers refused."""
    known = {
        SHIPPED[0]: {(8, 16): 302000, (128, 16): 212032, (96, 32): 168064},
        SHIPPED[1]: {(8, 8): 700816, (128, 8): 601664, (192, 32): 165664},
    }
    for name, rows in known.items():
        calibration = load_calibration(name)
        for (slots, rank), tokens in rows.items():
            setting = EngineSetting("h100-64gb", slots, rank)
            assert kv_cache_tokens(setting, calibration) == pytest.approx(tokens, rel=0.0012)
            assert memory_error(setting, calibration) is None
    assert memory_error(EngineSetting("h100-64gb", 256, 16), load_calibration(SHIPPED[0])) is not None
    assert memory_error(EngineSetting("h100-64gb", 256, 32), load_calibration(SHIPPED[1])) is not None


def test_a_law_without_a_shape_is_a_straight_line() -> None:
    calibration = load_calibration(SHIPPED[0])
    line = replace(calibration.kv, shape=None, free_bytes=None)
    assert line.tokens(8, 16, 131072) - line.tokens(16, 16, 131072) == pytest.approx(
        8 * (16 * line.tokens_per_slot_rank + line.tokens_per_slot)
    )
