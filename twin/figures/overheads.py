"""What serving adapters costs: the time of a server and the room of its KV cache, split by cause.

The step-time law says what each step is made of (`twin.server.laws`); summed over a window that is the time of the base
model, of the adapters that are in a batch, of their rank, of the slots whether used or not, and of the scheduler. Loads
are counted as they happen. Memory is the KV cache that slots leave, against one slot of the lowest rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration
from twin.server.laws import STEP_TERMS
from twin.server.memory import kv_cache_tokens
from twin.server.settings import EngineSetting

#: Terms of the step-time law by what causes them.
CAUSES: dict[str, tuple[str, ...]] = {
    "base_model": ("base", "seq", "prompt", "kv", "cliff", "past_graph", "plain_large"),
    "lora": ("lora", "lora_token"),
    "distinct_adapters": ("adapter", "adapter_token", "adapter_small", "adapter_large"),
    "rank": ("adapter_rank", "lora_rank"),
    "slots": ("slot", "slot_token", "slot_square"),
    "scheduler": ("skipped", "skipped_seq", "queue"),
}
#: What the KV cache is compared with: one slot of this rank.
LEAST_RANK = 8


@dataclass(frozen=True, slots=True)
class Overheads:
    """Where the time of a window goes, and what slots take of the memory.

    Args:
        ms_per_step: by cause, the keys of `CAUSES`: means over steps.
        share: of the window, 0..1, by cause; `loading` adapters into slots and from disk, and `idle`.
        kv_tokens: of the KV cache. kv_tokens_lost: fewer than with one slot of rank 8.
    """

    ms_per_step: dict[str, float]
    share: dict[str, float]
    kv_tokens: int
    kv_tokens_lost: int

    def row(self) -> dict[str, float]:
        """Flat, for a table: ms a step, shares, tokens."""
        return {
            **{f"{cause}_ms": value for cause, value in self.ms_per_step.items()},
            **{f"{cause}_share": value for cause, value in self.share.items()},
            "kv_tokens": float(self.kv_tokens),
            "kv_tokens_lost": float(self.kv_tokens_lost),
        }


def overheads(results: Sequence[SimulationResult], setting: EngineSetting, calibration: Calibration) -> Overheads:
    """Overheads of one or several windows of a server."""
    law = calibration.step.as_array()[: len(STEP_TERMS)]
    total_ms = dict(zip(STEP_TERMS, (sum(r.step_features for r in results) * law).tolist(), strict=True))
    steps = max(1, sum(r.steps for r in results))
    window_ms = 1000.0 * sum(r.horizon_s for r in results)
    by_cause = {cause: float(np.sum([total_ms[term] for term in terms])) for cause, terms in CAUSES.items()}
    loading_ms = 1000.0 * sum(r.load_s + r.disk_s for r in results)
    share = {cause: ms / window_ms for cause, ms in by_cause.items()} | {"loading": loading_ms / window_ms}
    tokens = kv_cache_tokens(setting, calibration)
    least = replace(setting, max_loras=1, max_lora_rank=LEAST_RANK, max_cpu_loras=None)
    return Overheads(
        ms_per_step={cause: ms / steps for cause, ms in by_cause.items()} | {"loading": loading_ms / steps},
        share=share | {"idle": max(0.0, 1.0 - sum(share.values()))},
        kv_tokens=tokens,
        kv_tokens_lost=kv_cache_tokens(least, calibration) - tokens,
    )
