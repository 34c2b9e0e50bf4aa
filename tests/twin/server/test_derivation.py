"""Where no calibration was measured one is derived, once; tensor parallelism makes one unit of several GPUs."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from twin.errors import InputError
from twin.server.calibration import load_calibration
from twin.server.derived import PARTS, largest_coefficient, part_of
from twin.server.flags import single_setting
from twin.server.groups import HardwareConfig, ModelConfig, matching_calibration, read_model
from twin.server.settings import EngineSetting

SIZES = {
    "kind": "qwen3", "layers": 36, "hidden": 4096, "heads": 32, "kv_heads": 8, "head_size": 128, "intermediate": 12288,
    "vocab": 151936, "max_model_len": 40960,
}  # fmt: skip
MODEL = ModelConfig("qwen3-8b", "Qwen/Qwen3-8B", SIZES)
GPU = HardwareConfig("my-gpu", 2.0, 8, memory_gib=79.1, bandwidth=3350, flops=989, pcie=64)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADAPTER_PLACEMENT_CALIBRATIONS", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_it_is_derived_once_and_kept(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = matching_calibration(None, MODEL, GPU, {})
    assert first.derived is not None and len(list(kept.glob("qwen3-8b-my-gpu-*.yaml"))) == 1

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("derived again")

    monkeypatch.setattr(subprocess, "run", never)
    assert matching_calibration(None, MODEL, GPU, {}) == first
    # Prices and stock change nothing that is derived.
    assert matching_calibration(None, MODEL, replace(GPU, price_per_hour=9.0), {}).step == first.step
    with pytest.raises(AssertionError, match="derived again"):
        matching_calibration(None, MODEL, GPU, {"version": "0.32.0"})


def test_what_cannot_be_derived_says_why_as_if_it_were_here() -> None:
    with pytest.raises(InputError, match=r"model\.config=<path"):
        matching_calibration(None, ModelConfig("m", "m"), GPU, {})
    with pytest.raises(InputError, match="choose one of: 1, 2, 4"):
        matching_calibration(None, MODEL, GPU, {"tensor_parallel_size": 3})


def test_a_unit_has_the_price_and_the_stock_of_its_gpus() -> None:
    unit = matching_calibration(None, MODEL, GPU, {"tensor_parallel_size": 4})
    assert unit.stamp.tensor_parallel_size == 4
    assert (unit.gpu.price_per_hour, unit.gpu.count) == (8.0, 2)
    with pytest.raises(InputError, match="less than one server of 4 GPUs"):
        matching_calibration(None, MODEL, replace(GPU, count=3), {"tensor_parallel_size": 4})


def test_servers_that_span_gpus_are_derived_although_one_gpu_was_measured() -> None:
    measured = load_calibration("qwen2.5-7b-h100-64gb").to_dict()
    model = ModelConfig("qwen-2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct", SIZES | {"heads": 28, "kv_heads": 4})
    gpu = HardwareConfig("h100-64gb", memory_gib=63.43, bandwidth=1631, flops=989, pcie=64)
    assert matching_calibration(measured, model, gpu, {}).derived is None
    assert matching_calibration(measured, model, gpu, {"tensor_parallel_size": 2}).derived is not None


def test_tensor_parallel_is_a_flag_of_vllm() -> None:
    setting = single_setting({"max_loras": 8, "max_lora_rank": 8, "tensor_parallel_size": 2}, "gpu")
    assert setting.flags()["tensor_parallel_size"] == 2 and setting.label.endswith("tp2")
    assert "tensor_parallel_size" not in EngineSetting("gpu", 8, 8).flags()
    with pytest.raises(InputError, match="do not share"):
        EngineSetting("gpu", 8, 8, gpu_memory_utilization=0.4, servers_per_gpu=2, tensor_parallel_size=2)


def test_a_model_given_by_its_config_is_named_after_the_folder() -> None:
    assert read_model({"name": None, "weights": None, "config": "/models/My Model/config.json"}).name == "my-model"
    named = read_model({"name": "mine", "weights": "org/mine", "config": "/models/x"})
    assert (named.name, named.weights) == ("mine", "org/mine")


def test_every_coefficient_belongs_to_a_part() -> None:
    derived = matching_calibration(None, MODEL, GPU, {}).derived
    assert derived is not None
    assert {part_of(key) for key in derived.careful} == set(PARTS)
    for part in PARTS:
        assert part_of(largest_coefficient(derived, part)) == part
        mixed = derived.mixed(part)
        assert all((mixed[k] == derived.hopeful[k]) or part_of(k) != part for k in mixed)
