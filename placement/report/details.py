"""What `report.html` shows beyond `placement.json`: memory, prices, intervals, an hour of each GPU over time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import t as student

from placement.problem import timing
from twin.figures.bottleneck import bottleneck, explained
from twin.figures.series import time_series
from twin.figures.warmup import steps_to_trace
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.memory import MEASURED_UTILIZATION, kv_cache_tokens
from twin.server.slots import weight_tensors
from twin.simulation import simulate

#: GPUs that are shown over time, and the seconds that this may take; the most loaded come first.
MOST_TIMELINES, TIMELINES_S = 24, 2.0
BINS, HOUR_S, SIMULTANEOUS = 90, 3600.0, 2
#: Figures of which the report shows an interval, and its level.
COMPARED, LEVEL = ("itl_mean_ms", "e2e_mean_s", "ttft_mean_s", "ttft_p99_s", "throughput_tps"), 0.95


@dataclass(frozen=True, slots=True)
class Details:
    """Beyond the document; lists have one entry a GPU.

    Args:
        cost_per_hour: of the fleet, where a GPU has a price; None = GPUs are only counted.
        memory: bytes of `weights`, `slots`, `kv` and `other`.
        intervals: half-widths of the intervals of the simulated means, by figure.
        timelines: by GPU, of those that were played for it.
        what_if: one row for each factor on all rates.
    """

    cost_per_hour: float | None = None
    memory: Sequence[dict[str, float]] = ()
    intervals: Sequence[dict[str, float]] = ()
    timelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    what_if: Sequence[dict[str, Any]] | None = None


def memory_parts(column: Column, calibration: Calibration) -> dict[str, float]:
    """Bytes of a GPU's memory, all its servers together; `other` is activations, the driver's and what is kept free."""
    setting, law, per_token = column.setting, calibration.kv, calibration.model.kv_bytes_per_token
    servers = setting.servers_per_gpu
    kv = servers * kv_cache_tokens(setting, calibration) * per_token
    empty = law.tokens(0, setting.max_lora_rank, per_token)
    slots = servers * (empty - law.tokens(setting.max_loras, setting.max_lora_rank, per_token)) * per_token
    if law.shape is not None:
        weights = servers * float(sum(weight_tensors(law.shape, 0)))
    else:
        # What the straight line does not tell apart: weights and activations of the measured server.
        weights = servers * max(0.0, MEASURED_UTILIZATION * calibration.gpu.memory_bytes - empty * per_token)
    other = max(0.0, calibration.gpu.memory_bytes - weights - slots - kv)
    return {"weights": weights, "slots": slots, "kv": float(kv), "other": other}


def half_widths(deviations: dict[str, float], windows: int) -> dict[str, float]:
    """Of the intervals of means over independent windows, by Student's t; nothing from a single window."""
    if windows < 2:
        return {}
    factor = float(student.ppf(0.5 + LEVEL / 2, windows - 1)) / np.sqrt(windows)
    return {name: float(factor * deviation) for name, deviation in deviations.items()}


def timelines(
    columns: Sequence[Column],
    calibrations: Sequence[Calibration],
    loads: Sequence[float | None],
    *,
    seeds: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """An hour of the most loaded GPUs over time, as many as the time allows; the first window of their verification."""
    order = sorted(range(len(columns)), key=lambda k: -(loads[k] or 0.0))[:MOST_TIMELINES]
    end = timing.now() + TIMELINES_S

    def played(index: int) -> dict[str, Any] | None:
        return timeline(columns[index], calibrations[index], seeds[index]) if timing.now() < end else None

    with ThreadPoolExecutor(SIMULTANEOUS) as pool:
        found = {f"gpu{k:03d}": one for k, one in zip(order, pool.map(played, order), strict=True) if one is not None}
    return dict(sorted(found.items()))


def timeline(column: Column, calibration: Calibration, seed: int) -> dict[str, Any]:
    """One hour: requests, adapters and KV cache over time, and what limited it."""
    steps = steps_to_trace(HOUR_S, calibration.step.base)
    result = simulate(column, calibration, horizon_s=HOUR_S, seed=seed, trace_steps=steps)
    # One block is vLLM's null block.
    blocks = kv_cache_tokens(column.setting, calibration) // column.setting.block_size - 1
    series = time_series(result.trace, horizon_s=HOUR_S, total_blocks=blocks, bins=BINS)
    return {
        "minute": (series.start_s / 60).round(2).tolist(),
        "running": series.running.round(2).tolist(),
        "waiting": series.waiting.round(2).tolist(),
        "adapters": series.active_adapters.round(2).tolist(),
        "kv": (100 * series.kv_usage).round(2).tolist(),
        "limit": explained(bottleneck(result, column, calibration, blocks), column.setting),
    }
