"""What one simulated window gives: figures, series, totals, records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.figures.warmup import WarmupRule

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
