"""The replayed allocations: segment rounding, padding to the rank, and memory that only grows with slots."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from twin.errors import InputError
from twin.server.slots import (
    LARGE_SEGMENT_BYTES,
    MIB,
    SMALL_SEGMENT_BYTES,
    CachingAllocator,
    ModelShape,
    reserved_bytes,
    slot_bytes_per_rank,
    slot_tensors,
    weight_tensors,
)

QWEN = ModelShape(28, 3584, 512, 18944, 152064, qkv_bias=True)
LLAMA = ModelShape(32, 4096, 1024, 14336, 128256, adapted_vocab=True)


def test_bytes_per_rank_are_those_of_the_published_architectures() -> None:
    # Per layer and unit of rank: inputs + outputs of q, k, v, o, gate, up, down, two bytes each.
    qwen = 28 * 2 * (2 * 3584 + 2 * (3584 + 512) + 2 * 3584 + 3 * (3584 + 18944))
    assert slot_bytes_per_rank(QWEN) == qwen == 5_046_272
    llama = 32 * 2 * (2 * 4096 + 2 * (4096 + 1024) + 2 * 4096 + 3 * (4096 + 14336))
    vocabulary = 2 * (128256 + 256 + 4096) + 2 * (4096 + 128256)
    assert slot_bytes_per_rank(LLAMA) == llama + vocabulary


def test_segments_are_rounded_as_the_caching_allocator_rounds_them() -> None:
    allocator = CachingAllocator()
    allocator.allocate(1000)
    assert allocator.reserved_bytes == SMALL_SEGMENT_BYTES
    allocator.allocate(MIB)
    assert allocator.reserved_bytes == SMALL_SEGMENT_BYTES, "the rest of the segment is used first"
    allocator.allocate(MIB)
    assert allocator.reserved_bytes == 2 * SMALL_SEGMENT_BYTES, "1,024 bytes short"
    allocator.allocate(3 * MIB)
    assert allocator.reserved_bytes == 2 * SMALL_SEGMENT_BYTES + LARGE_SEGMENT_BYTES
    allocator.allocate(17 * MIB)
    assert allocator.reserved_bytes == 2 * SMALL_SEGMENT_BYTES + LARGE_SEGMENT_BYTES, "fits the rest exactly"
    allocator.allocate(10 * MIB + 1)
    assert allocator.reserved_bytes == 2 * SMALL_SEGMENT_BYTES + LARGE_SEGMENT_BYTES + 12 * MIB


@given(st.lists(st.integers(1, 60 * MIB), min_size=1, max_size=60))
def test_reserved_memory_covers_what_was_asked_for(sizes: list[int]) -> None:
    allocator = CachingAllocator()
    for size in sizes:
        allocator.allocate(size)
    assert sum(sizes) <= allocator.reserved_bytes <= sum(sizes) + len(sizes) * LARGE_SEGMENT_BYTES


@given(st.sampled_from([QWEN, LLAMA]), st.integers(1, 400), st.sampled_from([8, 16, 32, 64]))
def test_reserved_memory_is_close_to_the_tensors_and_above_them(shape: ModelShape, slots: int, rank: int) -> None:
    tensors = sum(weight_tensors(shape, slots)) + sum(slot_tensors(shape, slots, rank))
    assert tensors <= reserved_bytes(shape, slots, rank) <= tensors + 1.1 * 1024 * MIB


def test_slots_are_padded_to_the_rank_so_only_the_product_counts_without_a_vocabulary() -> None:
    assert reserved_bytes(QWEN, 64, 8) == reserved_bytes(QWEN, 16, 32)
    assert reserved_bytes(LLAMA, 64, 8) > reserved_bytes(LLAMA, 16, 32), "vocabulary rows are paid per slot"


def test_a_shape_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match="layers"):
        ModelShape(0, 1, 1, 1, 1)
