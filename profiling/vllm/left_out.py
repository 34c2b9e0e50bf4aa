"""What the rules of vLLM that the twin leaves out would change, measured with vLLM's own scheduler.

Each pair of runs has the same requests, clock and engine; only one option of vLLM differs. Imports vLLM 0.32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from profiling.vllm.config import DEFAULT_OPTIONS, VllmOptions
from profiling.vllm.log import ScheduleLog
from profiling.vllm.scenario import Scenario, serving_scenario
from profiling.vllm.scheduler import vllm_log
from twin.engine.state import HOST, LOADED, PREEMPTED, SCHEDULED, SLOT

#: Name of a rule -> the option that switches it on, and whether the engine schedules asynchronously.
RULES: dict[str, tuple[VllmOptions, bool]] = {
    "prefix_caching": (replace(DEFAULT_OPTIONS, prefix_caching=True), True),
    "stop_by_eos_async": (replace(DEFAULT_OPTIONS, stop_by_eos=True), True),
    "stop_by_eos_sync": (replace(DEFAULT_OPTIONS, stop_by_eos=True), False),
    "set_order": (replace(DEFAULT_OPTIONS, set_order=True), True),
    "watermark_1_percent": (replace(DEFAULT_OPTIONS, watermark=0.01), True),
    "long_prefill_256": (replace(DEFAULT_OPTIONS, long_prefill_token_threshold=256), True),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run comes to: counts, and means over its requests."""

    preemptions: float
    recomputed_tokens: float
    loads: float
    disk_loads: float
    ttft_s: float
    e2e_s: float
    busy_s: float


def figures(scenario: Scenario, log: ScheduleLog) -> Figures:
    """Figures of one log; tokens scheduled beyond each request's own count as recomputed."""
    requests = scenario.requests
    scheduled = int(log.events[log.events[:, 1] == SCHEDULED, 3].sum())
    own = int((requests.prompt + requests.output - 1).sum())
    return Figures(
        preemptions=log.count(PREEMPTED),
        recomputed_tokens=scheduled - own,
        loads=log.count(LOADED, SLOT),
        disk_loads=log.count(LOADED, HOST),
        ttft_s=float(np.mean(log.first_s - requests.arrival_s)),
        e2e_s=float(np.mean(log.finish_s - requests.arrival_s)),
        busy_s=float(log.state[:, 1].sum()),
    )


@functools.cache
def _served(seed: int, async_scheduling: bool, options: VllmOptions) -> Figures:
    scenario = replace(serving_scenario(seed), async_scheduling=async_scheduling)
    return figures(scenario, vllm_log(scenario, options))


def measure(rule: str, workloads: int, seed: int) -> dict[str, dict[str, float]]:
    """Each figure without a rule, and its change by the rule with the standard error over workloads."""
    options, async_scheduling = RULES[rule]
    without, change = [], []
    for i in range(workloads):
        off, on = (_served(seed + i, async_scheduling, chosen) for chosen in (DEFAULT_OPTIONS, options))
        without.append([getattr(off, name) for name in Figures.__slots__])
        change.append([getattr(on, name) - getattr(off, name) for name in Figures.__slots__])
    error = np.std(change, axis=0, ddof=1 if workloads > 1 else 0) / np.sqrt(workloads)
    rows = zip(Figures.__slots__, np.mean(without, axis=0), np.mean(change, axis=0), error, strict=True)
    return {
        name: {"without": float(value), "change": float(by), "standard_error": float(spread)}
        for name, value, by, spread in rows
    }
