"""Bytes, FLOPs and bounds of a step follow from the model's sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from twin.errors import InputError
from twin.server.calibration import load_calibration
from twin.server.roofline import Roofline, step_parts

ROOF = Roofline(
    weight_bytes=2e9, kv_bytes_per_token=1e5, flops_per_token=2e9, flops_per_kv_token=1e5,
    bandwidth_bytes_per_s=1e12, flops_per_s=5e14, adapter_bytes_per_rank=1e6,
)  # fmt: skip


def test_by_hand() -> None:
    bound = ROOF.bound(10, 1000, 90, adapters=3, rank=16)
    assert bound.weight_bytes == 2e9
    assert bound.kv_bytes == (1000 + 100) * 1e5
    assert bound.adapter_bytes == 3 * 16 * 1e6
    assert bound.flops == 100 * 2e9 + 1000 * 1e5 + 100 * 16 * 1e6
    assert bound.dram_ms == pytest.approx(1000 * (2e9 + 1.1e8 + 4.8e7) / 1e12)
    assert bound.ridge == 500


def test_attention_intensity_does_not_grow_with_the_batch_but_that_of_the_weights_does() -> None:
    """The publication's reason why large batches stay memory-bound."""
    small, large = ROOF.bound(1, 400), ROOF.bound(512, 512 * 400)
    assert small.attention_intensity == large.attention_intensity == 1.0
    assert large.intensity > 20 * small.intensity
    assert large.dram_ms > large.compute_ms


@pytest.mark.parametrize("name", ["opt-1.3b", "opt-2.7b", "llama-2-7b", "llama-2-13b"])
def test_measured_models_stay_memory_bound_in_decode_and_not_in_prefill(name: str) -> None:
    laws = load_calibration(f"{name}-h100-64gb").batching
    assert laws is not None
    for batch in (1, 32, 256, 512):
        bound = laws.roofline.bound(batch, 390 * batch)
        assert bound.dram_ms > bound.compute_ms
    prefill = laws.roofline.bound(0, 0, 4096)
    assert prefill.dram_ms < prefill.compute_ms


@given(st.floats(0.1, 100), st.floats(0, 50), st.integers(0, 600), st.integers(0, 4000))
def test_parts_are_non_negative_and_add_up(step_ms: float, gap_ms: float, decodes: int, prompt: int) -> None:
    parts = step_parts(step_ms, gap_ms, ROOF.bound(decodes, 300 * decodes, prompt))
    values = (parts.gap_ms, parts.dram_ms, parts.compute_ms, parts.rest_ms)
    assert min(values) >= -1e-9
    assert sum(values) == pytest.approx(step_ms)


def test_sizes_must_be_positive() -> None:
    with pytest.raises(InputError, match="bandwidth_bytes_per_s"):
        Roofline(1, 1, 1, 1, 0, 1)
