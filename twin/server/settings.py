"""Engine settings: vLLM's flags as decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from twin.config.ranges import Range, check_fields
from twin.errors import InputError

DEFAULT_MAX_LORAS = (8, 16, 32, 64, 96, 128, 160, 192, 256, 320, 384)
DEFAULT_MAX_LORA_RANKS = (8, 16, 32, 64)
#: Values that vLLM accepts for `max_lora_rank`; it accepts 1 as well.
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
#: What the shipped surrogates were trained at; `EngineSetting.label` names other values.
DEFAULT_MAX_NUM_SEQS, DEFAULT_GPU_MEMORY_UTILIZATION = 2048, 0.9


@dataclass(frozen=True, slots=True, order=True)
class EngineSetting:
    """Flags of one vLLM server; names are vLLM's own.

    The one table of flags, their types, ranges and defaults: every other reader of them derives from it.

    Args:
        gpu_type: name of the `GpuType` it runs on.
        max_loras: adapter slots on the GPU (A_max of the publications).
        max_lora_rank: every slot is padded to this rank.
        max_num_seqs: most requests running at once.
        max_num_batched_tokens: token budget of a step.
        block_size: tokens of a KV block.
        gpu_memory_utilization: share of the GPU's memory that each server may use.
        servers_per_gpu: equal servers that share one GPU, the load dealt evenly.
        max_model_len: longest request in tokens; None = the model's own.
        max_cpu_loras: adapters cached on the host; None = as many as are assigned. The others load from disk.
        async_scheduling: schedule a step while the one before it runs; None = the engine version's default.
        tensor_parallel_size: GPUs that one server is split over; they are one unit of the fleet.
    """

    gpu_type: str
    max_loras: Annotated[int, Range(1, 4096, unit="slots")]
    max_lora_rank: Annotated[int, Range(1, 512)]
    max_num_seqs: Annotated[int, Range(1, 65_536, unit="requests")] = DEFAULT_MAX_NUM_SEQS
    max_num_batched_tokens: Annotated[int, Range(1, 1_048_576, unit="tokens")] = 2048
    block_size: Annotated[int, Range(1, 1024, unit="tokens")] = 16
    gpu_memory_utilization: Annotated[float, Range(above=0, high=1, hint="vLLM's default is 0.9")] = (
        DEFAULT_GPU_MEMORY_UTILIZATION
    )
    servers_per_gpu: Annotated[int, Range(1, 64, unit="servers")] = 1
    max_model_len: Annotated[int | None, Range(2, unit="tokens", hint="leave it out for the model's own")] = None
    max_cpu_loras: Annotated[int | None, Range(1, unit="adapters", hint="leave it out for all that are assigned")] = (
        None
    )
    async_scheduling: bool | None = None
    tensor_parallel_size: Annotated[int, Range(1, 64, unit="GPUs")] = 1

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"engine.{name}")
        if self.servers_per_gpu * self.gpu_memory_utilization > 1 + 1e-9:
            raise InputError(
                f"engine.servers_per_gpu {self.servers_per_gpu} x gpu_memory_utilization "
                f"{self.gpu_memory_utilization:g} is more than one GPU: each server takes its own share",
                remedy=f"give each gpu_memory_utilization={0.9 / self.servers_per_gpu:.3g}",
            )
        if self.servers_per_gpu > 1 and self.tensor_parallel_size > 1:
            raise InputError(
                f"engine.servers_per_gpu {self.servers_per_gpu} with tensor_parallel_size {self.tensor_parallel_size}: "
                "servers that span GPUs do not share them",
                remedy="set one of the two to 1",
            )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InputError(
                f"engine.max_num_batched_tokens {self.max_num_batched_tokens} is below "
                f"max_num_seqs {self.max_num_seqs}",
                remedy="vLLM refuses this; raise the token budget or lower max_num_seqs",
            )
        if self.max_cpu_loras is not None and self.max_cpu_loras < self.max_loras:
            raise InputError(
                f"engine.max_cpu_loras {self.max_cpu_loras} is below max_loras {self.max_loras}",
                remedy="vLLM needs every GPU slot backed by a CPU slot",
            )

    @property
    def label(self) -> str:
        """Short name for tables: `slots x rank`, with what differs from the defaults."""
        extra = ""
        if self.max_num_seqs != DEFAULT_MAX_NUM_SEQS:
            extra += f" seqs {self.max_num_seqs}"
        if self.gpu_memory_utilization != DEFAULT_GPU_MEMORY_UTILIZATION:
            extra += f" mem {self.gpu_memory_utilization:g}"
        if self.servers_per_gpu != 1:
            extra += f" x{self.servers_per_gpu}"
        if self.tensor_parallel_size != 1:
            extra += f" tp{self.tensor_parallel_size}"
        return f"{self.max_loras}x{self.max_lora_rank}{extra}"

    def flags(self) -> dict[str, Any]:
        """vLLM flag names and values, as written to `placement.json`."""
        flags: dict[str, Any] = {
            "max_loras": self.max_loras,
            "max_lora_rank": self.max_lora_rank,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "block_size": self.block_size,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "servers_per_gpu": self.servers_per_gpu,
        }
        if self.max_model_len is not None:
            flags["max_model_len"] = self.max_model_len
        if self.max_cpu_loras is not None:
            flags["max_cpu_loras"] = self.max_cpu_loras
        if self.async_scheduling is not None:
            flags["async_scheduling"] = self.async_scheduling
        if self.tensor_parallel_size != 1:
            flags["tensor_parallel_size"] = self.tensor_parallel_size
        return flags


def setting_grid(
    gpu_types: Sequence[str],
    max_loras: Sequence[int] = DEFAULT_MAX_LORAS,
    max_lora_rank: Sequence[int] = DEFAULT_MAX_LORA_RANKS,
    **flags: Any,
) -> tuple[EngineSetting, ...]:
    """All combinations, before the memory check (`twin.server.memory.memory_error`)."""
    return tuple(
        EngineSetting(gpu_type=g, max_loras=int(m), max_lora_rank=int(r), **flags)
        for g in gpu_types
        for m in max_loras
        for r in max_lora_rank
    )
