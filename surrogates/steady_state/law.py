"""A calibration and an engine setting, flattened to the numbers that compiled code reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from twin.server.calibration import Calibration
from twin.server.memory import kv_cache_tokens, memory_error, sharing_law
from twin.server.rules import rules_of
from twin.server.settings import EngineSetting

Records = Any

#: One setting under a calibration: coefficients of the step time in seconds (per request, token or adapter), loads,
#: memory, limits; `starts` is 0 where vLLM would refuse to. `slot_*` hold for all `max_loras` slots together,
#: `adapter_s` for slots of this rank.
LAW = np.dtype(
    [
        (name, np.float64)
        for name in (
            "base_s", "seq_s", "prompt_s", "kv_s", "cliff_s", "past_graph_s", "lora_s", "slot_s", "slot_token_s",
            "lora_token_s", "adapter_s", "adapter_token_s", "adapter_small_s", "adapter_large_s", "plain_large_s",
            "graph_tokens",
            "max_loras", "max_cpu_loras", "max_lora_rank", "equal_load_s", "lower_load_s", "disk_base_s", "disk_rank_s",
            "kv_tokens", "block_tokens", "max_num_seqs", "token_budget", "extra_steps", "servers", "gap_base_s",
            "gap_seq_s", "mps_share", "starts",
        )
    ]
)  # fmt: skip
#: Below this many tokens in a step a term of its own holds for each adapter (`StepTimeLaw`).
SMALL_BATCH = 128.0
#: Beyond this many tokens in a step without adapters a term of its own holds.
PLAIN_BATCH = 256.0


def law_of(settings: Sequence[EngineSetting], calibration: Calibration) -> Records:
    """One record `LAW` for each of P settings.

    Raises:
        InputError: several servers on a GPU, and the calibration measured none.
    """
    known: dict[EngineSetting, int] = {}
    index = np.array([known.setdefault(s, len(known)) for s in settings], np.int64)
    rows = np.array([_row(s, calibration) for s in known], LAW)
    return rows[index] if len(settings) else np.empty(0, LAW)


def _row(setting: EngineSetting, calibration: Calibration) -> tuple[float, ...]:
    step, load, slots = calibration.step, calibration.load, setting.max_loras
    sharing = sharing_law(calibration) if setting.servers_per_gpu > 1 else None
    rank16 = setting.max_lora_rank / 16
    rules = rules_of(calibration.stamp.engine_version, setting.async_scheduling)
    milliseconds = (
        step.base, step.seq, step.prompt, step.kv / 1000, step.cliff, step.past_graph,
        step.lora + step.lora_rank * rank16, slots * (step.slot + step.slot_square * slots / 1000),
        step.slot_token * slots / 1000, step.lora_token, step.adapter + step.adapter_rank * rank16,
        step.adapter_token / 1000, step.adapter_small, step.adapter_large, step.plain_large,
    )  # fmt: skip
    block = setting.block_size
    return (
        *(ms / 1000 for ms in milliseconds),
        step.graph_tokens,
        slots,
        math.inf if setting.max_cpu_loras is None else setting.max_cpu_loras,
        setting.max_lora_rank,
        load.equal_rank_ms / 1000,
        load.lower_rank_ms / 1000,
        load.disk_base_ms / 1000,
        load.disk_rank_ms / 1000,
        # vLLM keeps one block to itself.
        max(0, kv_cache_tokens(setting, calibration) - block),
        block,
        setting.max_num_seqs,
        setting.max_num_batched_tokens,
        # Async scheduling: the step in flight ends before the one that a request joins can start.
        1.0 if rules.async_scheduling else 0.0,
        setting.servers_per_gpu,
        sharing.gap_base_ms / 1000 if sharing else 0.0,
        sharing.gap_seq_ms / 1000 if sharing else 0.0,
        sharing.mps_share if sharing else 0.0,
        0.0 if memory_error(setting, calibration) else 1.0,
    )
