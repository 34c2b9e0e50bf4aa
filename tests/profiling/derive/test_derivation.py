"""A derived calibration holds what arithmetic says, has intervals around everything, and two ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiling.derive.command import MEASURED, learned
from profiling.derive.constants import Constants, mean_of, shipped_constants
from profiling.derive.derivation import derive
from profiling.derive.operators import SheetKernels, installed
from profiling.derive.request import derived, for_names, kernels_of
from profiling.derive.target import Request
from twin.errors import InputError
from twin.server.calibration import Calibration, calibration_from_dict, load_calibration
from twin.server.laws import STEP_TERMS
from twin.server.memory import kv_cache_tokens, memory_error
from twin.server.settings import EngineSetting

SHEET = {"name": "my-gpu", "memory_gib": 79.1, "bandwidth": 3350, "flops": 989, "pcie": 64}


def from_sheet(model: str = "llama-3.1-8b", hardware: str = "h100-sxm", **changes: object) -> Calibration:
    request = replace(for_names(model, hardware), **changes)  # type: ignore[arg-type]
    kernels = SheetKernels(request.model, request.device, request.tensor_parallel_size)
    return derive(request, kernels, shipped_constants(), date="2026-01-01")


def busy_ms(calibration: Calibration) -> float:
    assert calibration.derived is not None
    law = calibration.step
    return law.base + 200 * law.seq + 80 * law.kv + 50 * law.adapter + 8 * law.slot_token + 250 * law.lora_token


def test_it_is_stamped_as_derived_and_survives_its_file() -> None:
    made = from_sheet(tensor_parallel_size=2)
    assert made.stamp.source.startswith("derived, not measured") and made.stamp.tensor_parallel_size == 2
    assert calibration_from_dict(made.to_dict()) == made


def test_every_coefficient_has_an_interval_around_it() -> None:
    made = from_sheet()
    assert made.derived is not None
    keys = {f"step.{n}" for n in STEP_TERMS} | {f"load.{n}" for n in made.load.__slots__} | {"kv.free_bytes"}
    assert set(made.derived.intervals) == set(made.derived.careful) == set(made.derived.hopeful) == keys
    for key, (low, high) in made.derived.intervals.items():
        group, _, name = key.partition(".")
        assert low <= getattr(getattr(made, group), name) <= high, key


def test_the_careful_side_is_slower_and_has_less_memory() -> None:
    made = from_sheet()
    careful, hopeful = made.at("careful"), made.at("hopeful")
    assert busy_ms(hopeful) < busy_ms(made) < busy_ms(careful)
    assert careful.load.equal_rank_ms > made.load.equal_rank_ms > hopeful.load.equal_rank_ms
    setting = EngineSetting("h100-sxm", 32, 16)
    tokens = [kv_cache_tokens(setting, c) for c in (careful, made, hopeful)]
    assert tokens == sorted(tokens) and tokens[0] < tokens[2]


@pytest.mark.parametrize("name", ["llama-3.1-8b-h100-64gb", "qwen2.5-7b-h100-64gb"])
def test_a_measured_calibration_has_no_ends(name: str) -> None:
    measured = load_calibration(name)
    assert measured.derived is None and measured.at("careful") is measured
    assert "derived" not in measured.to_dict()


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen2.5-7b"])
def test_the_kv_cache_of_the_measured_servers_follows_by_arithmetic(model: str) -> None:
    """Constants are the mean of the two, so this says that they agree."""
    measured, made = load_calibration(f"{model}-h100-64gb"), from_sheet(model, "h100-64gb")
    for slots, rank in ((8, 8), (32, 16), (128, 32)):
        setting = EngineSetting("h100-64gb", slots, rank)
        assert kv_cache_tokens(setting, made) == pytest.approx(kv_cache_tokens(setting, measured), rel=0.005)


def test_tensor_parallel_multiplies_the_cache() -> None:
    two, four = (from_sheet("llama-3.1-70b", "h200-sxm", tensor_parallel_size=t) for t in (2, 4))
    setting = EngineSetting("h200-sxm", 32, 16)
    assert kv_cache_tokens(setting, four) > 3 * kv_cache_tokens(setting, two)
    assert four.step.base < two.step.base


def test_a_split_server_without_nvlink_is_doubted_more() -> None:
    spreads = []
    for hardware in ("h100-pcie", "h100-sxm"):
        made = from_sheet("llama-3.1-70b", hardware, tensor_parallel_size=4)
        assert made.derived is not None
        spreads.append(made.derived.parts["kernels"] / made.step.base)
    assert spreads[0] > 2 * spreads[1]


def test_a_model_too_large_names_the_smallest_size_that_fits() -> None:
    with pytest.raises(InputError, match=r"engine\.tensor_parallel_size=4") as found:
        from_sheet("llama-3.1-70b", "h100-64gb")
    assert "131 GiB" in str(found.value)
    made = from_sheet("llama-3.1-70b", "h100-64gb", tensor_parallel_size=4)
    assert memory_error(EngineSetting("h100-64gb", 1, 8, max_model_len=8192), made) is None


def test_a_batch_limit_that_leaves_no_memory_is_named() -> None:
    with pytest.raises(InputError, match=r"engine\.max_num_seqs=256"):
        from_sheet("qwen3-8b", "l4")
    assert from_sheet("qwen3-8b", "l4", max_num_seqs=256).kv.free_bytes


def test_an_asynchronous_engine_hides_its_host() -> None:
    old, new = from_sheet(), from_sheet(engine_version="0.32.0")
    assert new.step.base < old.step.base and new.step.skipped < old.step.skipped
    # A host that takes longer than the kernels is not hidden.
    slow = replace(shipped_constants(), host={**shipped_constants().host, "base": 50.0})
    request = replace(for_names("qwen3-0.6b", "h100-sxm"), engine_version="0.32.0")
    assert derive(request, SheetKernels(request.model, request.device), slow, date="").step.base == 50.0


def test_a_data_sheet_is_enough_and_says_what_it_lacks() -> None:
    model = {"name": "m", "sizes": None, "config": None}
    with pytest.raises(InputError, match=r"model\.config"):
        derived({"model": model, "hardware": SHEET, "engine": {}})
    model["sizes"] = {"kind": "llama", "layers": 16, "hidden": 2048, "heads": 32, "kv_heads": 8, "head_size": 64,
                      "intermediate": 8192, "vocab": 128256, "max_model_len": 8192}  # type: ignore[assignment]  # fmt: skip
    assert derived({"model": model, "hardware": SHEET, "engine": {}}).derived is not None
    with pytest.raises(InputError, match=r"hardware.pcie=\.\.\."):
        derived({"model": model, "hardware": SHEET | {"pcie": None}, "engine": {}})


def test_without_the_package_the_message_names_both_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiling.derive.request.installed", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'adapter-placement\[hardware\]'.*profiling derive"):
        kernels_of(for_names("qwen3-8b", "l40s"))


@pytest.mark.skipif(not installed(), reason="the extra 'hardware' is not installed")
def test_the_shipped_constants_are_what_the_measured_servers_teach() -> None:
    again = mean_of([learned(model, hardware) for model, hardware in MEASURED])
    shipped = shipped_constants()
    assert again.learned_from == shipped.learned_from
    for name in ("host", "tiles", "launches"):
        assert getattr(again, name) == pytest.approx(getattr(shipped, name), rel=2e-3, abs=1e-6)
    assert again.rest_bytes == pytest.approx(shipped.rest_bytes, rel=1e-3)


def test_the_name_says_what_it_is_of() -> None:
    request = replace(for_names("llama-3.1-70b", "h200-sxm"), tensor_parallel_size=4, engine_version="0.32.0")
    assert isinstance(request, Request) and isinstance(shipped_constants(), Constants)
    assert request.name == "llama-3.1-70b-h200-sxm-tp4-vllm0.32.0"
