"""One hour of one server: draw its requests, play its engine, measure the window.

    result = simulate(column, calibration, seed=7)
    result.row["ttft_p99_s"]        # a figure of the window: the fields of `twin.figures.prediction.Prediction`
    result.late_counts              # requests later than their promise, per adapter, (A,)

`twin.traffic` draws, `twin.engine` plays vLLM's scheduler step by step, `twin.figures` says what happened. The same
column, calibration and seed give the same bytes in any process and thread and on any processor. Two columns under one
seed get the same requests for the adapters that they share, so that a difference in figures is one of the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range, check
from twin.engine.input_check import check_seconds
from twin.engine.play import HOUR_S, SERIES_BINS, play
from twin.engine.state import REFUSED
from twin.errors import InputError
from twin.figures.metrics import measure
from twin.figures.result import SimulationResult
from twin.figures.warmup import steps_to_trace
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.rules import EngineRules
from twin.workload.adapter import DEFAULT_TTFT_P99_S
from twin.workload.requests import Requests

Array = NDArray[np.float64]


def simulate(
    column: Column,
    calibration: Calibration,
    *,
    horizon_s: float = HOUR_S,
    seed: int = 0,
    default_ttft_slo_s: float | None = DEFAULT_TTFT_P99_S,
    requests: Requests | None = None,
    time_scale: float = 1.0,
    client_ports: int = 0,
    rules: EngineRules | None = None,
    trace_steps: int = 0,
    events: int = 0,
    warmup_s: float | Literal["auto"] = 0.0,
) -> SimulationResult:
    """Simulates one server for `horizon_s` seconds from an empty queue.

    An hour is the default for a reason: 600 s windows are biased (starved throughput -12 %), not only noisy.

    Args:
        seed: of arrivals, lengths and set order.
        default_ttft_slo_s: promise of adapters that have none of their own; None = none.
        requests: replays these instead of drawing them.
        time_scale, client_ports, rules, trace_steps, events: see `twin.engine.play.run_requests`.
        warmup_s: seconds at the start that do not count, or "auto" (`twin.figures.warmup`); needs the whole step trace.

    Raises:
        InputError: the column or horizon cannot be simulated.
    """
    if default_ttft_slo_s is not None:
        check_seconds("default_ttft_slo_s", default_ttft_slo_s, "use e.g. 5.0")
    if warmup_s != 0:
        trace_steps = max(trace_steps, steps_to_trace(horizon_s, calibration.step.base, time_scale))
    played = play(
        column, calibration, horizon_s=horizon_s, seed=seed, requests=requests, time_scale=time_scale,
        client_ports=client_ports, rules=rules, trace_steps=trace_steps, events=events,
    )  # fmt: skip
    out = played.out
    slo_s = np.array([a.ttft_slo_s(default_ttft_slo_s) for a in column.adapters])
    window = measure(
        played.requests, out, horizon_s=horizon_s, slo_s=slo_s, total_blocks=played.total_blocks, warmup_s=warmup_s
    )
    per_bin = SERIES_BINS / horizon_s
    return SimulationResult(
        row=window.row,
        counts=window.counts,
        late_counts=window.late_counts,
        adapter_sums=window.adapter_sums,
        adapters=tuple(column.adapters),
        completed=window.completed,
        running_series=out.running_bins * per_bin,
        waiting_series=out.waiting_bins * per_bin,
        step_features=out.features,
        blocked_s=out.blocked_s,
        steps=out.steps,
        busy_s=out.busy_s,
        loads=out.loads,
        load_s=out.load_s,
        disk_loads=out.disk_loads,
        disk_s=out.disk_s,
        preemptions=out.preemptions,
        max_waiting=out.max_waiting,
        arrivals=len(played.requests),
        refused=int((out.state == REFUSED).sum()),
        horizon_s=horizon_s,
        seed=seed,
        warmup_s=window.warmup.seconds,
        warmup_rule=window.warmup.rule,
        trace=out.trace,
        events=out.events,
    )


def simulate_many(
    columns: Sequence[Column],
    calibration: Calibration,
    *,
    seeds: Sequence[int] = (0,),
    horizon_s: float = HOUR_S,
    default_ttft_slo_s: float | None = DEFAULT_TTFT_P99_S,
    threads: int = 2,
) -> list[list[SimulationResult]]:
    """Every column under every seed, in parallel threads (the kernel releases the GIL): `[column][seed]`."""
    if not len(seeds):
        raise InputError(f"seeds {seeds!r} are none", remedy="give at least one, e.g. (0,)")
    check(threads, "threads", Range(1, whole=True))

    def job(task: tuple[Column, int]) -> SimulationResult:
        column, seed = task
        return simulate(column, calibration, horizon_s=horizon_s, seed=seed, default_ttft_slo_s=default_ttft_slo_s)

    with ThreadPoolExecutor(max_workers=threads) as pool:
        results: Iterator[SimulationResult] = pool.map(job, [(c, s) for c in columns for s in seeds])
        flat = list(results)
    return [flat[i : i + len(seeds)] for i in range(0, len(flat), len(seeds))]
