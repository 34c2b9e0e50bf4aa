"""What serves: GPU types and base models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from twin.errors import InputError

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class GpuType:
    """One unit that runs one server: a GPU, or a tensor-parallel group of them.

    Args:
        name: e.g. `h100-64gb`.
        memory_bytes: usable device memory in bytes.
        price_per_hour: price in any currency; 1.0 makes the price a GPU count.
        count: units that exist; None = as many as needed.
        host_memory_bytes: memory for adapters cached on the host; None = not limited.
    """

    name: str
    memory_bytes: int
    price_per_hour: float = 1.0
    count: int | None = None
    host_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for value, what in ((self.memory_bytes, "memory_bytes"), (self.price_per_hour, "price_per_hour")):
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"GPU type {self.name!r}: {what} {value!r} is not positive", remedy="give a value > 0")
        if self.count is not None and (self.count != int(self.count) or self.count < 1):
            raise InputError(
                f"GPU type {self.name!r}: count {self.count!r} is not a whole number >= 1",
                remedy="leave the count out for an unlimited fleet",
            )
        if self.host_memory_bytes is not None and not self.host_memory_bytes > 0:
            raise InputError(
                f"GPU type {self.name!r}: host_memory_bytes {self.host_memory_bytes!r} is not positive",
                remedy="leave it out if host memory is no limit",
            )


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A base model, as far as placement needs it.

    Args:
        name: e.g. `llama-3.1-8b-instruct`.
        max_model_len: longest request (prompt + output) in tokens; vLLM refuses to start if the KV cache
            cannot hold one.
        kv_bytes_per_token: K + V of all layers, bytes.
        lora_bytes_per_rank: weights of one adapter per unit of rank, bytes (all target modules).
    """

    name: str
    max_model_len: int
    kv_bytes_per_token: int
    lora_bytes_per_rank: int

    def __post_init__(self) -> None:
        for field in ("max_model_len", "kv_bytes_per_token", "lora_bytes_per_rank"):
            if not getattr(self, field) >= 1:
                raise InputError(
                    f"model {self.name!r}: {field} {getattr(self, field)!r} is not positive", remedy="give a value >= 1"
                )
