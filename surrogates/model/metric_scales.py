"""How the free networks see each metric: scales on which errors are comparable, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from surrogates.model.features import INDEX

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MetricScale:
    """Transformation of one metric.

    `log`: log(x + floor). `share_of_load`: log(x / tokens offered per second). `fraction`: as it is, clipped to
    0..1 on the way back. `signed`: asinh(x / floor).
    """

    kind: Literal["log", "share_of_load", "fraction", "signed"]
    floor: float = 0.0

    def forward(self, values: Array, offered: Array) -> Array:
        if self.kind == "log":
            return np.asarray(np.log(np.maximum(values, 0.0) + self.floor))
        if self.kind == "share_of_load":
            return np.asarray(np.log(np.maximum(values, 1e-3) / offered))
        return values if self.kind == "fraction" else np.asarray(np.arcsinh(values / self.floor))

    def backward(self, values: Array, offered: Array) -> Array:
        if self.kind == "log":
            return np.asarray(np.maximum(np.exp(np.minimum(values, 50.0)) - self.floor, 0.0))
        if self.kind == "share_of_load":
            return np.asarray(np.exp(np.minimum(values, 1.0)) * offered)
        if self.kind == "fraction":
            return np.clip(values, 0.0, 1.0)
        return np.asarray(np.sinh(np.clip(values, -50.0, 50.0)) * self.floor)


#: Metrics that the free networks predict, in order. `queue` and `starved` follow from the boundary networks.
METRIC_SCALES: dict[str, MetricScale] = {
    "in_throughput_tps": MetricScale("share_of_load"),
    "out_throughput_tps": MetricScale("share_of_load"),
    "throughput_tps": MetricScale("share_of_load"),
    "served_fraction": MetricScale("fraction"),
    "ttft_mean_s": MetricScale("log", 1e-3),
    "ttft_p50_s": MetricScale("log", 1e-3),
    "ttft_p99_s": MetricScale("log", 1e-3),
    "itl_mean_ms": MetricScale("log", 0.1),
    "itl_p99_ms": MetricScale("log", 0.1),
    "tpot_mean_ms": MetricScale("log", 0.1),
    "e2e_mean_s": MetricScale("log", 1e-2),
    "requests_in_system": MetricScale("log", 1e-3),
    "running": MetricScale("log", 1e-3),
    "waiting": MetricScale("log", 1e-2),
    "waiting_drift_per_s": MetricScale("signed", 1e-2),
    "kv_usage": MetricScale("log", 1e-4),
    "preemptions_per_s": MetricScale("log", 1e-3),
    "loads_per_s": MetricScale("log", 1e-3),
    "late_fraction": MetricScale("fraction"),
    "adapter_late_fraction": MetricScale("fraction"),
    "min_adapter_served_fraction": MetricScale("fraction"),
    "worst_adapter_ttft_p99_s": MetricScale("log", 1e-3),
}


def offered_tokens(phi: Array) -> dict[str, Array]:
    """Tokens/s offered to each column, (P,), by throughput metric; from summed features (P, F)."""
    prompt = phi[:, INDEX["computed_prompt_rate"]] + phi[:, INDEX["cached_prompt_rate"]]
    output = phi[:, INDEX["output_rate"]]
    return {"in_throughput_tps": prompt, "out_throughput_tps": output, "throughput_tps": prompt + output}


def to_targets(metrics: dict[str, Array], phi: Array) -> Array:
    """Transformed metrics, (P, K); NaN stays NaN."""
    offered, ones = offered_tokens(phi), np.ones(len(phi))
    return np.stack([s.forward(metrics[n], offered.get(n, ones)) for n, s in METRIC_SCALES.items()], axis=1)


def from_targets(targets: Array, phi: Array) -> dict[str, Array]:
    """Inverse of `to_targets`, for targets (P, K)."""
    offered, ones = offered_tokens(phi), np.ones(len(phi))
    return {
        name: scale.backward(targets[:, k], offered.get(name, ones))
        for k, (name, scale) in enumerate(METRIC_SCALES.items())
    }
