"""What the twin, and a surrogate of it, say about a batch of columns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Metric = NDArray[np.float64]

#: Queue labels, in order of severity.
STABLE, BACKLOGGED, OVERLOADED = 0, 1, 2
QUEUE_LABELS = ("STABLE", "BACKLOGGED", "OVERLOADED")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Metrics of P columns, each of shape (P,); NaN where a source does not give a metric.

    Throughputs are tokens/s of requests completed in the window, `served_fraction` is throughput / ideal,
    times are in seconds or milliseconds as named, over the cohort of requests that arrived in the window
    (TTFT of requests still waiting is censored at the end of the window, not dropped).
    """

    in_throughput_tps: Metric
    out_throughput_tps: Metric
    throughput_tps: Metric
    served_fraction: Metric
    ttft_mean_s: Metric
    ttft_p50_s: Metric
    ttft_p99_s: Metric
    itl_mean_ms: Metric
    itl_p99_ms: Metric
    tpot_mean_ms: Metric
    e2e_mean_s: Metric
    requests_in_system: Metric
    running: Metric
    waiting: Metric
    waiting_drift_per_s: Metric
    kv_usage: Metric
    preemptions_per_s: Metric
    loads_per_s: Metric
    late_fraction: Metric
    adapter_late_fraction: Metric
    min_adapter_served_fraction: Metric
    worst_adapter_ttft_p99_s: Metric
    queue: Metric
    starved: Metric

    def __len__(self) -> int:
        return len(self.throughput_tps)

    def row(self, index: int) -> dict[str, float]:
        """Metrics of one column as plain floats."""
        return {f.name: float(getattr(self, f.name)[index]) for f in fields(self)}
