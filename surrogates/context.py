"""The numbers of a setting and a calibration that choose a planning network's weights.

They are inputs of a hypernetwork only, never of the convex part: convexity in load holds for any of them.
"""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray

from twin.calibration import Calibration
from twin.memory import kv_cache_tokens
from twin.settings import EngineSetting

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
#: Batched tokens at which the time that the slots alone cost is taken.
_BATCH_TOKENS = 256.0


def setting_context(setting: EngineSetting, calibration: Calibration) -> Array:
    """Context numbers of one setting, shape (C,), in the order of `CONTEXT_NAMES`."""
    law, slots, rank = calibration.step, setting.max_loras, setting.max_lora_rank
    slots_ms = law.slot * slots + law.slot_token * slots * _BATCH_TOKENS / 1000.0
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


def calibration_hash(calibration: Calibration) -> str:
    """SHA-256 of what the twin reads of a calibration: laws, memory and model; not prices, counts or residuals."""
    data = calibration.to_dict()
    parts = {
        "engine": [data["stamp"][k] for k in ("gpu_type", "model", "engine", "engine_version")],
        "memory_bytes": data["gpu"]["memory_bytes"],
        **{k: data[k] for k in ("model", "step", "load", "kv", "first_token_overhead_ms")},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=float).encode()).hexdigest()
