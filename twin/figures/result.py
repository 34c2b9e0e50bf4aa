"""What one simulated window gives: figures, series, totals, records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.figures.adapter_sums import E2E, ITL, TPOT, AdapterSums
from twin.figures.warmup import WarmupRule
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CompletedMetrics:
    """What a benchmark client reports: requests completed in the window only."""

    completed: int
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_mean_ms: float
    itl_mean_ms: float


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """Figures of one simulated window.

    Args:
        row: the fields of `twin.figures.prediction.Prediction` as floats.
        counts: requests with a decided TTFT, per adapter of the column, (A,).
        late_counts: those later than their SLO, (A,).
        adapter_sums: mean ITL, TPOT and E2E of every adapter, as sums over its requests, (3, 6, A).
        adapters: of the column, with their promises; arrays (A,) are in their order.
        completed: what a benchmark client would report.
        running_series, waiting_series: means over 60 equal parts of the window, (60,).
        step_features: sums over steps of each of `twin.server.laws.STEP_TERMS`, (21,).
        blocked_s: time with requests waiting, by why the last scan of the queue ended (`KernelOutput.blocked_s`), (4,).
        steps, busy_s, loads, load_s, disk_loads, disk_s, preemptions, max_waiting: totals.
        arrivals, refused: requests sent, and those that the client had no port for (replay only).
        warmup_s, warmup_rule: seconds at the start that do not count, and why these.
        trace: one row a step if asked for, columns `twin.engine.state.TRACE_COLUMNS`.
        events: rows (step, kind, request or adapter, value) if asked for (`twin.engine.state.SCHEDULED` etc.), (E, 4).
    """

    row: dict[str, float]
    counts: NDArray[np.int64]
    late_counts: NDArray[np.int64]
    adapter_sums: Array
    adapters: tuple[Adapter, ...]
    completed: CompletedMetrics
    running_series: Array
    waiting_series: Array
    step_features: Array
    blocked_s: Array
    steps: int
    busy_s: float
    loads: int
    load_s: float
    disk_loads: int
    disk_s: float
    preemptions: int
    max_waiting: int
    arrivals: int
    refused: int
    horizon_s: float
    seed: int
    warmup_s: float
    warmup_rule: WarmupRule
    trace: Array
    events: NDArray[np.int64]

    def prediction_row(self) -> dict[str, float]:
        """The fields of `twin.figures.prediction.Prediction` as floats."""
        return self.row

    @property
    def adapter_itl_mean_ms(self) -> Array:
        """Mean ITL of every adapter's completed requests, token-weighted, (A,); NaN where there is none."""
        return AdapterSums(self.adapter_sums).mean(ITL)

    @property
    def adapter_tpot_mean_ms(self) -> Array:
        """Mean TPOT of every adapter's completed requests, (A,); NaN where there is none."""
        return AdapterSums(self.adapter_sums).mean(TPOT)

    @property
    def adapter_e2e_mean_s(self) -> Array:
        """Mean E2E of every adapter's requests, unfinished ones with their time so far, (A,); NaN without requests."""
        return AdapterSums(self.adapter_sums).mean(E2E)
