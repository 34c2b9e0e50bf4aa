"""Device memory that weights and adapter slots reserve, to the byte.

vLLM allocates the buffers of all adapter slots before it sizes the KV cache, padded to `max_lora_rank`. PyTorch's
caching allocator rounds what it asks of the device up to whole segments, and the loss (up to 1 GiB on the
calibration rows) is a jagged function of `max_loras * max_lora_rank`. Replaying the allocations reproduces it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from twin.config.ranges import Range, check_fields

MIB = 1024**2
#: Rules of PyTorch's CUDA caching allocator (c10/cuda/CUDACachingAllocator, defaults).
ROUNDING_BYTES = 512
SMALL_BYTES = 1 * MIB
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_SEGMENT_BYTES = 20 * MIB
OWN_SEGMENT_BYTES = 10 * MIB
SEGMENT_ROUNDING_BYTES = 2 * MIB


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder with grouped-query attention and a gated MLP, as one GPU holds them.

    Under tensor parallelism the widths that are split are those of one GPU: `kv_width`, `query_width`,
    `intermediate` and `vocab`; `hidden` is whole.

    Args:
        layers: decoder layers.
        hidden: width of the residual stream.
        kv_width: key-value heads x head size.
        intermediate: width of the MLP.
        vocab: tokens of the vocabulary.
        qkv_bias: whether the attention inputs have a bias.
        adapted_vocab: whether adapters may change the embedding and the output head; then each slot also has
            both of these, and `extra_vocab` new rows of each.
        extra_vocab: vLLM's `lora_extra_vocab_size`.
        dtype_bytes: bytes of a weight.
        query_width: query heads x head size; 0 = `hidden`.
        tied: the output head is the embedding table.
    """

    layers: Annotated[int, Range(1)]
    hidden: Annotated[int, Range(1)]
    kv_width: Annotated[int, Range(1)]
    intermediate: Annotated[int, Range(1)]
    vocab: Annotated[int, Range(1)]
    qkv_bias: bool = False
    adapted_vocab: bool = False
    extra_vocab: int = 256
    dtype_bytes: Annotated[int, Range(1)] = 2
    query_width: Annotated[int, Range(0)] = 0
    tied: bool = False

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"model shape: {name}")

    def linears(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """(inputs, outputs of each fused slice) of the linear modules of one layer, in module order."""
        h, kv, ff, q = self.hidden, self.kv_width, self.intermediate, self.query_width or self.hidden
        return ((h, (q, kv, kv)), (q, (h,)), (h, (ff, ff)), (ff, (h,)))


def weight_tensors(shape: ModelShape, max_loras: int) -> Iterator[int]:
    """Bytes of the base model's tensors in loading order; the vocabulary grows by the slots' extra rows."""
    b, h = shape.dtype_bytes, shape.hidden
    rows = shape.vocab + (shape.extra_vocab * max_loras if shape.adapted_vocab else 0)
    yield b * rows * h
    for _ in range(shape.layers):
        for inputs, outputs in shape.linears():
            yield b * inputs * sum(outputs)
        if shape.qkv_bias:
            yield b * sum(shape.linears()[0][1])
        yield from (b * h, b * h)
    yield b * h
    if not shape.tied:
        yield b * rows * h


def slot_tensors(shape: ModelShape, max_loras: int, max_lora_rank: int) -> Iterator[int]:
    """Bytes of the slot buffers in module order: all A matrices of a module, then all its B matrices."""
    b, h, m, r = shape.dtype_bytes, shape.hidden, max_loras, max_lora_rank
    if shape.adapted_vocab:
        yield from (b * m * (shape.vocab + shape.extra_vocab) * r, b * m * h * r)
    for _ in range(shape.layers):
        for inputs, outputs in shape.linears():
            yield from (b * m * r * inputs for _ in outputs)
            yield from (b * m * r * output for output in outputs)
    if shape.adapted_vocab:
        yield from (b * m * r * h, b * m * r * shape.vocab, b * m * shape.extra_vocab * h)


def slot_bytes_per_rank(shape: ModelShape) -> int:
    """Bytes that one slot takes per unit of rank, before rounding to segments."""
    return sum(slot_tensors(shape, 1, 2)) - sum(slot_tensors(shape, 1, 1))


@lru_cache(maxsize=4096)
def reserved_bytes(shape: ModelShape, max_loras: int, max_lora_rank: int) -> int:
    """Bytes that the allocator holds once weights and slots exist, segment rounding included."""
    allocator = CachingAllocator()
    for size in weight_tensors(shape, max_loras):
        allocator.allocate(size)
    for size in slot_tensors(shape, max_loras, max_lora_rank):
        allocator.allocate(size)
    return allocator.reserved_bytes


class CachingAllocator:
    """PyTorch's caching allocator for tensors that are never freed: best fit among the rests of its segments."""

    def __init__(self) -> None:
        self.reserved_bytes = 0
        self._free: dict[bool, list[int]] = {True: [], False: []}

    def allocate(self, size_bytes: int) -> None:
        size = max(1, -(-size_bytes // ROUNDING_BYTES)) * ROUNDING_BYTES
        small = size <= SMALL_BYTES
        free = self._free[small]
        index = bisect_left(free, size)
        block = free.pop(index) if index < len(free) else self._segment(size)
        rest = block - size
        if rest >= ROUNDING_BYTES if small else rest > SMALL_BYTES:
            insort(free, rest)

    def _segment(self, size: int) -> int:
        if size <= SMALL_BYTES:
            segment = SMALL_SEGMENT_BYTES
        elif size < OWN_SEGMENT_BYTES:
            segment = LARGE_SEGMENT_BYTES
        else:
            segment = -(-size // SEGMENT_ROUNDING_BYTES) * SEGMENT_ROUNDING_BYTES
        self.reserved_bytes += segment
        return segment
