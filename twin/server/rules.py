"""Scheduling rules that differ between engine versions, as named profiles.

`VLLM_0_8` is what the shipped calibrations were measured with (0.8.5); `VLLM_0_32` is read from that version's
source and compared with it step by step (docs/scheduler.md). The last two rules are never off in vLLM; without
them the twin behaves as simpler simulators do, which shows what they are worth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from twin.errors import InputError


@dataclass(frozen=True, slots=True)
class EngineRules:
    """How an engine schedules.

    Args:
        async_scheduling: a step is scheduled while the one before it runs (vLLM's `--async-scheduling`).
        whole_sequence_must_fit: a waiting request is admitted only if the KV blocks of all its tokens are free,
            not only those of its first chunk (`scheduler_reserve_full_isl`).
        skip_past: requests that the LoRA gate holds back do not block those behind them.
        reload_cascade: slots are filled in set order, evicting the least recently touched adapter even where this
            batch needs it.
    """

    name: str
    async_scheduling: bool
    whole_sequence_must_fit: bool
    skip_past: bool = True
    reload_cascade: bool = True


VLLM_0_8 = EngineRules("vllm 0.8", async_scheduling=False, whole_sequence_must_fit=False)
VLLM_0_32 = EngineRules("vllm 0.32", async_scheduling=True, whole_sequence_must_fit=True)


def rules_of(engine_version: str, async_scheduling: bool | None = None) -> EngineRules:
    """The rules of a version: of 0.32 from there on, of 0.8 before (versions between were not compared).

    Args:
        engine_version: e.g. `0.8.5`.
        async_scheduling: vLLM's flag; None = the version's default on a GPU.

    Raises:
        InputError: the version does not start with two numbers.
    """
    match = re.match(r"v?(\d+)\.(\d+)", engine_version)
    if not match:
        raise InputError(f"engine version {engine_version!r} is not a version", remedy="write it as e.g. 0.8.5")
    rules = VLLM_0_32 if (int(match[1]), int(match[2])) >= (0, 32) else VLLM_0_8
    return rules if async_scheduling is None else replace(rules, async_scheduling=async_scheduling)
