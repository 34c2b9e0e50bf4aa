"""KV cache capacity and memory errors, by exact arithmetic on the calibration's law."""

from __future__ import annotations

from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.hardware import GIB
from twin.server.settings import EngineSetting
from twin.server.sharing import SharingLaw

#: Memory share at which the capacity law was measured.
MEASURED_UTILIZATION = 0.9


def kv_cache_tokens(setting: EngineSetting, calibration: Calibration) -> int:
    """Tokens that the KV cache holds under a setting; whole blocks, never negative.

    Of one server where several share the GPU: each has its own weights, slots and `gpu_memory_utilization`.
    Slots are padded to `max_lora_rank` whatever an adapter's own rank, so only `max_loras * max_lora_rank` counts.
    """
    per_token = calibration.model.kv_bytes_per_token
    tokens = calibration.kv.tokens(setting.max_loras, setting.max_lora_rank, per_token)
    share = setting.gpu_memory_utilization - MEASURED_UTILIZATION
    tokens += share * calibration.gpu.memory_bytes / per_token
    tokens -= overhead_bytes(setting, calibration) / per_token
    return max(0, int(tokens // setting.block_size)) * setting.block_size


def overhead_bytes(setting: EngineSetting, calibration: Calibration) -> float:
    """Memory taken from the KV cache by the batch limit and by neighbours on the GPU, bytes.

    Raises:
        InputError: several servers, and none were measured with this calibration.
    """
    neighbours = setting.servers_per_gpu - 1
    taken = neighbours * sharing_law(calibration).neighbour_bytes if neighbours else 0.0
    if calibration.batching is not None:
        taken += setting.max_num_seqs * calibration.batching.sequence_bytes
    return taken


def sharing_law(calibration: Calibration) -> SharingLaw:
    """The calibration's sharing law.

    Raises:
        InputError: nothing was measured with several servers.
    """
    if calibration.batching is None:
        raise InputError(
            f"calibration {calibration.name!r} holds no measurement of servers that share a GPU",
            where="engine.servers_per_gpu",
            remedy="use servers_per_gpu=1, or a calibration with a sharing law, e.g. opt-1.3b-h100-64gb",
        )
    return calibration.batching.sharing


def max_model_len(setting: EngineSetting, calibration: Calibration) -> int:
    """Longest request in tokens under a setting."""
    return setting.max_model_len or calibration.model.max_model_len


def memory_error(setting: EngineSetting, calibration: Calibration) -> str | None:
    """Why vLLM would refuse to start; None if it starts."""
    tokens, needed = kv_cache_tokens(setting, calibration), max_model_len(setting, calibration)
    if tokens == 0:
        return f"nothing is left for the KV cache beside {setting.max_loras} slots of rank {setting.max_lora_rank}"
    if tokens < needed:
        return f"the KV cache holds {tokens} tokens, less than one request of max_model_len {needed}"
    return None


def host_memory_error(adapters: int, setting: EngineSetting, calibration: Calibration) -> str | None:
    """Why `max_cpu_loras` >= adapters does not fit into host memory; None if it does."""
    limit = calibration.gpu.host_memory_bytes
    if limit is None:
        return None
    needed = adapters * setting.max_lora_rank * calibration.model.lora_bytes_per_rank
    if needed <= limit:
        return None
    return f"{adapters} adapters of rank {setting.max_lora_rank} need {needed / GIB:.1f} GiB of host memory"
