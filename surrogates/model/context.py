"""The numbers of a setting and a calibration that choose a planning network's weights.

They are inputs of a hypernetwork only, never of the convex part: convexity in load holds for any of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from twin.server.calibration import Calibration
from twin.server.memory import kv_cache_tokens
from twin.server.settings import DEFAULT_GPU_MEMORY_UTILIZATION, DEFAULT_MAX_NUM_SEQS, EngineSetting

Array = NDArray[np.float64]

CONTEXT_NAMES: tuple[str, ...] = (
    "log2_max_loras",
    "log2_max_lora_rank",
    "log_kv_cache_tokens",
    "log2_max_num_seqs",
    "log2_max_num_batched_tokens",
    "log_slots_ms",
    "log_adapter_ms",
    "load_ms",
)
#: Flags of a server that are not context numbers of their own (yet): a network holds for the values it was trained at,
#: which its artifact names. Artifacts that name none were trained at these defaults.
SERVER_FLAGS: dict[str, float] = {
    "max_num_seqs": DEFAULT_MAX_NUM_SEQS,
    "gpu_memory_utilization": DEFAULT_GPU_MEMORY_UTILIZATION,
    "servers_per_gpu": 1,
}
#: Batched tokens at which the time that the slots alone cost is taken.
_BATCH_TOKENS = 256.0


def setting_context(setting: EngineSetting, calibration: Calibration) -> Array:
    """Context numbers of one setting, shape (C,), in the order of `CONTEXT_NAMES`."""
    law, slots, rank = calibration.step, setting.max_loras, setting.max_lora_rank
    slots_ms = law.slot * slots + law.slot_square * slots**2 / 1000.0 + law.slot_token * slots * _BATCH_TOKENS / 1000.0
    return np.array(
        [
            math.log2(slots),
            math.log2(rank),
            math.log(max(1, kv_cache_tokens(setting, calibration))),
            math.log2(setting.max_num_seqs),
            math.log2(setting.max_num_batched_tokens),
            math.log(1.0 + slots_ms),
            math.log(1e-3 + law.adapter + law.adapter_rank * rank / 16.0),
            calibration.load.equal_rank_ms,
        ]
    )


def server_flags(settings: Iterable[EngineSetting]) -> dict[str, list[float]]:
    """Values of `SERVER_FLAGS` among some settings, ascending: what an artifact says it was trained at."""
    known = tuple(settings)
    return {name: sorted({float(getattr(s, name)) for s in known}) for name in SERVER_FLAGS}


def untrained_flags(setting: EngineSetting, trained: Mapping[str, Sequence[float]] | None) -> list[str]:
    """Names the server flags of a setting that no training setting had.

    Args:
        trained: `server_flags` of the artifact; None = the defaults.
    """
    notes = []
    for name, default in SERVER_FLAGS.items():
        known = (trained or {}).get(name, [default])
        if not any(math.isclose(float(getattr(setting, name)), k, abs_tol=1e-9) for k in known):
            values = ", ".join(f"{k:g}" for k in known)
            notes.append(f"{name} {getattr(setting, name):g} is not {values}, where the surrogate was trained")
    return notes


def calibration_hash(calibration: Calibration) -> str:
    """SHA-256 of what the twin reads of a calibration: laws, memory and model; not prices, counts or residuals."""
    data = calibration.to_dict()
    parts = {
        "engine": [data["stamp"][k] for k in ("gpu_type", "model", "engine", "engine_version")],
        "memory_bytes": data["gpu"]["memory_bytes"],
        **{k: data[k] for k in ("model", "step", "load", "kv")},
        "first_token_overhead_ms": 0.0,  # a coefficient that calibrations had when the shipped weights were trained
    }
    # Only where there is one, so that weights of calibrations without it stay valid.
    if "batching" in data:
        parts["batching"] = data["batching"]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=float).encode()).hexdigest()
