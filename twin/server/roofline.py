"""Roofline of an engine step: bytes moved, FLOPs, and which of launch gap, DRAM and compute a step's time goes to.

A step with B decoding requests, K resident KV tokens, P prompt tokens and n adapters of rank R reads all matrix
weights once, the KV cache of its requests once and each adapter once; it computes 2 FLOPs a weight and token, and
attention over the KV cache. Both lower bounds on its time follow from the GPU's peaks. Attention of a decode reads
each KV byte for about one FLOP, whatever the batch: batching amortises weights, never the KV cache, which is why
large-batch decoding stays bound by DRAM bandwidth (arXiv 2503.08311, section IV).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from twin.config.ranges import Range, check_fields


@dataclass(frozen=True, slots=True)
class Roofline:
    """A model on a GPU, as far as a step's lower bounds need it.

    Args:
        weight_bytes: matrix weights read by every step, the output head included, the embedding table not.
        kv_bytes_per_token: K + V of all layers.
        flops_per_token: 2 x matrix weights.
        flops_per_kv_token: of attention, 4 x width x layers: one multiply-add with K and one with V.
        bandwidth_bytes_per_s: peak of the GPU's DRAM.
        flops_per_s: peak of the GPU in the model's number format, dense.
        adapter_bytes_per_rank: of one adapter, per unit of rank.
    """

    weight_bytes: Annotated[float, Range(above=0)]
    kv_bytes_per_token: Annotated[float, Range(above=0)]
    flops_per_token: Annotated[float, Range(above=0)]
    flops_per_kv_token: float
    bandwidth_bytes_per_s: Annotated[float, Range(above=0)]
    flops_per_s: Annotated[float, Range(above=0)]
    adapter_bytes_per_rank: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"roofline: {name}")

    def bound(
        self, decodes: float, kv_tokens: float, prompt_tokens: float = 0.0, *, adapters: int = 0, rank: int = 0
    ) -> StepBound:
        """What a step moves and computes, and the least time for each."""
        tokens = decodes + prompt_tokens
        adapter_bytes = adapters * rank * self.adapter_bytes_per_rank
        # New tokens' K and V are written once.
        kv_bytes = (kv_tokens + tokens) * self.kv_bytes_per_token
        adapter_flops = tokens * rank * self.adapter_bytes_per_rank if adapters else 0.0
        return StepBound(
            weight_bytes=self.weight_bytes,
            kv_bytes=kv_bytes,
            adapter_bytes=adapter_bytes,
            flops=tokens * self.flops_per_token + kv_tokens * self.flops_per_kv_token + adapter_flops,
            attention_intensity=self.flops_per_kv_token / self.kv_bytes_per_token,
            bandwidth_bytes_per_s=self.bandwidth_bytes_per_s,
            flops_per_s=self.flops_per_s,
        )


@dataclass(frozen=True, slots=True)
class StepBound:
    """Traffic and work of one step.

    Args:
        attention_intensity: FLOPs per KV byte of the attention kernel alone; the same for every batch.
    """

    weight_bytes: float
    kv_bytes: float
    adapter_bytes: float
    flops: float
    attention_intensity: float
    bandwidth_bytes_per_s: float
    flops_per_s: float

    @property
    def bytes_moved(self) -> float:
        return self.weight_bytes + self.kv_bytes + self.adapter_bytes

    @property
    def intensity(self) -> float:
        """Arithmetic intensity of the whole step, FLOPs per byte."""
        return self.flops / self.bytes_moved

    @property
    def ridge(self) -> float:
        """Intensity from which on compute would be the bound, FLOPs per byte."""
        return self.flops_per_s / self.bandwidth_bytes_per_s

    @property
    def dram_ms(self) -> float:
        """Least time that DRAM needs."""
        return 1000.0 * self.bytes_moved / self.bandwidth_bytes_per_s

    @property
    def compute_ms(self) -> float:
        """Least time that the tensor cores need."""
        return 1000.0 * self.flops / self.flops_per_s


@dataclass(frozen=True, slots=True)
class StepParts:
    """Where a step's time goes, ms; the parts add up to `step_ms`.

    Args:
        gap_ms: the GPU waits for the host: scheduling, sampling, launches.
        dram_ms: least time for the bytes moved.
        compute_ms: what compute needs beyond that; 0 while memory-bound.
        rest_ms: kernels below both bounds: small matrices, normalisation, sampling on the GPU.
    """

    step_ms: float
    gap_ms: float
    dram_ms: float
    compute_ms: float
    rest_ms: float


def step_parts(step_ms: float, gap_ms: float, bound: StepBound) -> StepParts:
    """Splits a measured or predicted step; where the bounds exceed what is left of it, they are cut to it."""
    gap = min(gap_ms, step_ms)
    busy = step_ms - gap
    dram = min(bound.dram_ms, busy)
    compute = min(max(0.0, bound.compute_ms - dram), busy - dram)
    return StepParts(step_ms, gap, dram, compute, busy - dram - compute)
