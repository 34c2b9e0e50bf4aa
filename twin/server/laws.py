"""The laws of a calibration: how long a step takes, how long an adapter loads, how much the KV cache holds."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range, check
from twin.server.slots import ModelShape, reserved_bytes

_REFIT = "fit it again: python -m profiling fit"
FINITE, NOT_NEGATIVE = Range(hint=_REFIT), Range(0, hint=_REFIT)


@dataclass(frozen=True, slots=True)
class StepTimeLaw:
    """Wall time of one engine step in milliseconds, a sum of non-negative terms.

    With B decoding requests, P prompt tokens, T = B + P, K resident KV tokens, n distinct adapters in the
    step (0 = none), R = `max_lora_rank`, M = `max_loras`, W waiting requests and S requests scanned past::

        base + seq*B + prompt*P + kv*K/1000 + [T > graph_tokens]*cliff + past_graph*(T - graph_tokens)+
        + [n = 0] * plain_large*[T > 256]
        + [n > 0] * (lora + lora_rank*R/16 + adapter*n + adapter_rank*n*R/16 + slot*M + slot_square*M*M/1000
                     + slot_token*M*T/1000 + lora_token*T + adapter_token*n*T/1000 + adapter_small*n*[T < 128]
                     + adapter_large*n*[T > graph_tokens])
        + skipped*S/1000 + skipped_seq*B*S/1e6 + queue*B*W/1e6

    Coefficients are collinear in saturated runs: a predictor inside `Calibration.valid`, not physics.
    """

    base: float
    seq: float
    prompt: float
    kv: float
    cliff: float
    past_graph: float
    lora: float
    adapter: float
    adapter_rank: float
    slot: float
    slot_token: float
    lora_token: float
    adapter_token: float
    adapter_small: float
    adapter_large: float
    skipped: float
    queue: float
    skipped_seq: float = 0.0
    slot_square: float = 0.0
    lora_rank: float = 0.0
    plain_large: float = 0.0
    graph_tokens: float = 512.0

    def __post_init__(self) -> None:
        for field in fields(self):
            check(getattr(self, field.name), f"step-time coefficient {field.name}", NOT_NEGATIVE)

    def as_array(self) -> NDArray[np.float64]:
        """Coefficients in the order of `STEP_TERMS`, then `graph_tokens`, shape (22,)."""
        return np.array([getattr(self, name) for name in (*STEP_TERMS, "graph_tokens")], dtype=np.float64)


#: Names of the law's terms, which are its coefficients': the order of every vector of features or coefficients, (21,).
STEP_TERMS: tuple[str, ...] = tuple(f.name for f in fields(StepTimeLaw) if f.name != "graph_tokens")


def step_terms(
    *, decodes: float, prompt: float, kv_tokens: float, adapters: float, slots: float, rank: float,
    skipped: float = 0.0, waiting: float = 0.0, graph_tokens: float = 512.0,
) -> dict[str, float]:  # fmt: skip
    """What each coefficient of `StepTimeLaw` is multiplied by in a step, by name, in the order of `STEP_TERMS`.

    Args:
        decodes, prompt, kv_tokens, adapters, skipped, waiting: B, P, K, n, S and W of the law.
        slots, rank: `max_loras` and `max_lora_rank`.
    """
    tokens = decodes + prompt
    past = tokens > graph_tokens
    lora = adapters > 0
    terms = {
        "base": 1.0,
        "seq": decodes,
        "prompt": prompt,
        "kv": kv_tokens / 1000,
        "cliff": float(past),
        "past_graph": max(0.0, tokens - graph_tokens),
        "lora": float(lora),
        "adapter": adapters,
        "adapter_rank": adapters * rank / 16,
        "slot": slots * lora,
        "slot_token": lora * slots * tokens / 1000,
        "lora_token": lora * tokens,
        "adapter_token": adapters * tokens / 1000,
        "adapter_small": adapters * (tokens < 128),
        "adapter_large": adapters * past,
        "skipped": skipped / 1000,
        "queue": decodes * waiting / 1e6,
        "skipped_seq": decodes * skipped / 1e6,
        "slot_square": slots * slots * lora / 1000,
        "lora_rank": lora * rank / 16,
        "plain_large": float(not lora and tokens > 256),
    }
    return {name: terms[name] for name in STEP_TERMS}


@dataclass(frozen=True, slots=True)
class LoadLaw:
    """Times to load an adapter, ms: from host memory into a GPU slot, and from disk into host memory.

    Both block the step. An adapter of lower rank than `max_lora_rank` is padded while it is copied to the GPU and
    takes longer. A load from disk reads and parses the adapter's file, `disk_base_ms + disk_rank_ms * rank`: measured
    with files that the operating system had in its page cache (a first touch took up to 7 times as long). The
    defaults, 0, stand for adapters that are all in host memory, as in the published runs.
    """

    equal_rank_ms: float
    lower_rank_ms: float
    disk_base_ms: float = 0.0
    disk_rank_ms: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            check(getattr(self, field.name), f"load time {field.name}", NOT_NEGATIVE)

    def disk_ms(self, rank: int) -> float:
        """Disk to host memory, ms, for an adapter of this rank (the slots' rank does not matter)."""
        return self.disk_base_ms + self.disk_rank_ms * rank


@dataclass(frozen=True, slots=True)
class KvCapacityLaw:
    """KV cache tokens left after weights and adapter slots, at `gpu_memory_utilization` = 0.9.

    With a model shape the slots' allocations are replayed (`twin.server.slots`), which reproduces the measured
    capacities within two allocator segments and holds for ranks that were not measured:
    `tokens = (free_bytes - reserved_bytes(shape, max_loras, max_lora_rank)) / kv_bytes_per_token`.
    Without one, a straight line:
    `tokens = base_tokens - tokens_per_slot_rank * max_loras * max_lora_rank - tokens_per_slot * max_loras`.
    `twin.server.memory` rounds down to whole blocks.

    Args:
        free_bytes: memory for weights, slots and KV cache, that is without activations and the driver's share.
    """

    base_tokens: float
    tokens_per_slot_rank: float
    tokens_per_slot: float = 0.0
    free_bytes: int | None = None
    shape: ModelShape | None = None

    def __post_init__(self) -> None:
        for name in ("base_tokens", "tokens_per_slot_rank", "tokens_per_slot"):
            check(getattr(self, name), f"KV capacity {name}", FINITE)

    def tokens(self, max_loras: int, max_lora_rank: int, kv_bytes_per_token: int) -> float:
        """Tokens before rounding to blocks; negative where weights and slots do not fit."""
        if self.shape is None or self.free_bytes is None:
            slots = self.tokens_per_slot_rank * max_lora_rank + self.tokens_per_slot
            return self.base_tokens - slots * max_loras
        return (self.free_bytes - reserved_bytes(self.shape, max_loras, max_lora_rank)) / kv_bytes_per_token
