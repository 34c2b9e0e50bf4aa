"""Figures of the requests that arrived in a window, from their token times alone: measured or simulated.

The same definitions as `twin.figures.metrics` (docs/metrics.md): a request without a first token at the end has the
time waited so far as its TTFT.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.figures.health import STARVATION_THRESHOLD
from twin.workload.requests import Requests

Array = NDArray[np.float64]
#: Least requests of an adapter for a mean of its own.
LEAST_REQUESTS = 5


def cohort(requests: Requests, first_s: Array, finish_s: Array, *, horizon_s: float, adapters: int) -> dict[str, float]:
    """Throughput, TTFT, TPOT, ITL, E2E and label of a window; NaN where nothing finished.

    Args:
        first_s, finish_s: first and last token of each request, seconds from the start; beyond the horizon or inf =
            not within the window, (N,).
        adapters: number of adapters, A.
    """
    done, started = finish_s <= horizon_s, first_s <= horizon_s
    ttft = np.where(started, first_s, horizon_s) - requests.arrival_s
    e2e = np.where(done, finish_s, horizon_s) - requests.arrival_s
    tokens = (requests.prompt + requests.output).astype(np.float64)
    gaps = requests.output - 1
    several = done & (gaps > 0)
    decode_s = finish_s[several] - first_s[several]
    served = float(tokens[done].sum() / tokens.sum()) if len(requests) else 1.0
    nan = float("nan")
    return {
        "throughput_tps": float(tokens[done].sum()) / horizon_s,
        "served_fraction": served,
        "ttft_mean_s": float(ttft.mean()) if len(ttft) else nan,
        "ttft_p50_s": float(np.quantile(ttft, 0.5)) if len(ttft) else nan,
        "ttft_p99_s": float(np.quantile(ttft, 0.99)) if len(ttft) else nan,
        "tpot_mean_ms": float((1000 * decode_s / gaps[several]).mean()) if len(decode_s) else nan,
        "itl_mean_ms": float(1000 * decode_s.sum() / gaps[several].sum()) if len(decode_s) else nan,
        "e2e_mean_s": float(e2e.mean()) if len(e2e) else nan,
        "worst_adapter_ttft_s": _worst_mean(requests.adapter, ttft, adapters),
        "completed": float(done.sum()),
        "starved": float(served < STARVATION_THRESHOLD),
    }


def _worst_mean(adapter: NDArray[np.int32], ttft: Array, adapters: int) -> float:
    """Longest mean TTFT of an adapter with some requests."""
    counts = np.bincount(adapter, minlength=adapters)
    sums = np.bincount(adapter, weights=ttft, minlength=adapters)
    judged = counts >= LEAST_REQUESTS
    return float((sums[judged] / counts[judged]).max()) if judged.any() else float("nan")
