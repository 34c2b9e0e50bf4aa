"""What serves: GPU types and base models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from twin.config.ranges import Range, check_fields

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
    memory_bytes: Annotated[int, Range(above=0, unit="bytes")]
    price_per_hour: Annotated[float, Range(above=0)] = 1.0
    count: Annotated[int | None, Range(1, 1_000_000, unit="GPUs", hint="leave it out for an unlimited fleet")] = None
    host_memory_bytes: Annotated[
        int | None, Range(above=0, unit="bytes", hint="leave it out if host memory is no limit")
    ] = None

    def __post_init__(self) -> None:
        check_fields(self, lambda field: f"GPU type {self.name!r}: {field}")


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
    max_model_len: Annotated[int, Range(1, unit="tokens")]
    kv_bytes_per_token: Annotated[int, Range(1, unit="bytes")]
    lora_bytes_per_rank: Annotated[int, Range(1, unit="bytes")]

    def __post_init__(self) -> None:
        check_fields(self, lambda field: f"model {self.name!r}: {field}")
