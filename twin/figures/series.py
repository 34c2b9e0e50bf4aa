"""Figures over time, on request: `time_series(trace, ...)` from the step trace of a simulation.

Every step of the trace is spread over the bins that it overlaps, so that the means are exact; between steps the
engine idles: nothing runs, nothing waits and the KV cache is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from twin import portable
from twin.config.ranges import Range, check
from twin.engine.state import TRACE_COLUMNS
from twin.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """Means over B equal parts of the window, each of shape (B,).

    Args:
        start_s: where the part begins.
        running, waiting: requests.
        kv_usage: KV blocks in use / usable blocks, 0..1.
        active_adapters: distinct adapters in a step.
        prompt_tps: prompt tokens computed per second; recomputed ones count again, cached ones do not.
        output_tps: tokens produced per second: those of decoding requests, and the first token of each request.
        steps_per_s: engine steps per second.
        loads_per_s, preemptions_per_s: adapter loads and preemptions per second, at the start of their step.
        busy_share: share of the time in which the engine is not idle.
    """

    start_s: Array
    running: Array
    waiting: Array
    kv_usage: Array
    active_adapters: Array
    prompt_tps: Array
    output_tps: Array
    steps_per_s: Array
    loads_per_s: Array
    preemptions_per_s: Array
    busy_share: Array

    def __len__(self) -> int:
        return len(self.start_s)

    def rows(self) -> list[dict[str, float]]:
        """One dictionary a part, for CSV and JSON."""
        columns = {f.name: getattr(self, f.name).tolist() for f in fields(self)}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _spread(start: Array, stop: Array, weight: Array, edges: Array) -> Array:
    """Integral of a step function (`weight` per second over `[start, stop)`, non-overlapping) over each bin."""
    # The integral up to time t is piecewise linear with knots at the starts and stops.
    knots = np.empty(2 * len(start))
    knots[0::2], knots[1::2] = start, stop
    gained = np.zeros(2 * len(start))
    gained[1::2] = weight * (stop - start)
    return np.diff(portable.interpolate(edges, knots, np.cumsum(gained)))


def time_series(
    trace: Array,
    *,
    horizon_s: float,
    total_blocks: int,
    busy_s: float | None = None,
    first_token_s: Array | None = None,
    bins: int = 60,
) -> TimeSeries:
    """Means over `bins` equal parts of `[0, horizon_s)`.

    Args:
        trace: `KernelOutput.trace` or `SimulationResult.trace`, columns `TRACE_COLUMNS`, one row a step.
        total_blocks: usable KV blocks (the second value of `run_requests`).
        busy_s: `busy_s` of the same run; with it a truncated trace is refused.
        first_token_s: `KernelOutput.first_token_s`; without it `output_tps` lacks the first tokens. The token
            that a *preempted* request produces when its prefill ends again is in neither.

    Raises:
        InputError: the trace is empty or does not cover the run, or `bins` is not positive.
    """
    check(bins, "bins", Range(1, whole=True, hint="e.g. 60"))
    if trace.ndim != 2 or trace.shape[1] != len(TRACE_COLUMNS):
        raise InputError(
            f"a trace of shape {trace.shape} has not the columns {', '.join(TRACE_COLUMNS)}",
            remedy="pass SimulationResult.trace",
        )
    column = {name: trace[:, i] for i, name in enumerate(TRACE_COLUMNS)}
    duration = column["duration_s"]
    recorded = float(duration.sum())
    if busy_s is not None and recorded < busy_s * (1 - 1e-9) - 1e-9:
        raise InputError(
            f"the trace of {len(trace)} steps covers {recorded:.1f} s of {busy_s:.1f} busy seconds",
            remedy="simulate with a larger trace_steps (an hour has at most about 400,000 steps)",
        )
    edges = np.linspace(0.0, horizon_s, bins + 1)
    width = horizon_s / bins
    start = column["start_s"]
    # Times are sums of durations: rounding must not make a step begin before the last one ended.
    stop = np.minimum(start + duration, np.append(start[1:], np.inf))

    def mean(weight: Array) -> Array:
        return _spread(start, stop, weight, edges) / width if len(trace) else np.zeros(bins)

    def per_second(tokens: Array) -> Array:
        return mean(np.divide(tokens, stop - start, out=np.zeros(len(trace)), where=stop > start))

    def counted(values: Array) -> Array:
        return np.histogram(start, edges, weights=values)[0] / width

    output = per_second(column["decodes"])
    if first_token_s is not None:
        seen = first_token_s[first_token_s <= horizon_s]
        output = output + np.histogram(seen, edges)[0] / width
    return TimeSeries(
        start_s=edges[:-1],
        running=mean(column["running"]),
        waiting=mean(column["waiting"]),
        kv_usage=mean((total_blocks - column["free_blocks"]) / total_blocks),
        active_adapters=mean(column["adapters"]),
        prompt_tps=per_second(column["prompt_tokens"]),
        output_tps=output,
        steps_per_s=counted(np.ones(len(trace))),
        loads_per_s=counted(column["loads"]),
        preemptions_per_s=counted(column["preemptions"]),
        busy_share=mean(np.ones(len(trace))),
    )
