"""What to derive a calibration for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from profiling.derive.architecture import Architecture
from profiling.derive.device import Device
from twin.config.ranges import Range, check_fields

#: The engine whose host was measured.
MEASURED_ENGINE = "0.8.5"


@dataclass(frozen=True, slots=True)
class Request:
    """What to derive.

    Args:
        model_name, model: the base model and its sizes.
        max_num_seqs, max_num_batched_tokens: flags that take memory from the KV cache.
    """

    model_name: str
    model: Architecture
    device: Device
    engine_version: str = MEASURED_ENGINE
    tensor_parallel_size: Annotated[int, Range(1, 64)] = 1
    max_num_seqs: Annotated[int, Range(1, 65_536)] = 2048
    max_num_batched_tokens: Annotated[int, Range(1, 1_048_576)] = 2048

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"engine.{name}")

    @property
    def name(self) -> str:
        """File name of the calibration."""
        parts = [f"{self.model_name}-{self.device.name}"]
        if self.tensor_parallel_size > 1:
            parts.append(f"tp{self.tensor_parallel_size}")
        if self.engine_version != MEASURED_ENGINE:
            parts.append(f"vllm{self.engine_version}")
        return "-".join(parts)
