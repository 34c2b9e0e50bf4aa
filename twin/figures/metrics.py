"""Figures of a simulated window, per GPU and per adapter.

One definition of the requests counted: the cohort that **arrived** in the window. A request that still waits for
its first token at the end has a censored TTFT (the time waited so far); it is *late* if that already exceeds its
SLO and undecided otherwise. `docs/metrics.md` defines every figure by symbols.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twin.compiled import allocating
from twin.engine.outcome import KernelOutput
from twin.engine.state import ITL_BINS_PER_MS
from twin.figures.adapter_sums import adapter_sums
from twin.figures.health import STARVATION_THRESHOLD, queue_label
from twin.figures.result import CompletedMetrics
from twin.figures.warmup import EngineFigures, Warmup, engine_after, resolve
from twin.workload.requests import Requests

Array = NDArray[np.float64]

#: The waiting queue's drift: confidence of its lower limit, blocks of the window, and Student's t for both.
DRIFT_CONFIDENCE, DRIFT_BLOCKS, DRIFT_T = 0.995, 15, 3.0122758387165782


@allocating
def _per_adapter(
    adapter: NDArray[np.int32], ttft: Array, late: NDArray[np.bool_], decided: NDArray[np.bool_], n_adapters: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Decided and late requests and the p99 of the (censored) TTFT of every adapter."""
    size = np.zeros(n_adapters + 1, np.int64)
    counts, lates = np.zeros(n_adapters, np.int64), np.zeros(n_adapters, np.int64)
    for r in range(len(adapter)):
        a = adapter[r]
        size[a + 1] += 1
        counts[a] += decided[r]
        lates[a] += late[r]
    starts = np.cumsum(size)
    fill = starts[:-1].copy()
    grouped = np.empty(len(adapter))
    for r in range(len(adapter)):
        a = adapter[r]
        grouped[fill[a]] = ttft[r]
        fill[a] += 1
    p99 = np.full(n_adapters, np.nan)
    for a in range(n_adapters):
        n = starts[a + 1] - starts[a]
        if n > 0:
            values = np.sort(grouped[starts[a] : starts[a + 1]])
            p99[a] = values[min(n - 1, int(np.ceil(0.99 * n)) - 1)]
    return counts, lates, p99


def queue_drift(waiting_bins: Array, horizon_s: float, warmup_s: float = 0.0) -> tuple[float, float]:
    """Slope of the waiting queue over the last three quarters of the window and its lower confidence limit.

    Least squares over block means, requests per second; blocks of a minute or more are nearly independent.
    A warm-up of more than a quarter of the window is left out too.
    """
    usable, share = waiting_bins[len(waiting_bins) // 4 :], 0.75
    removed = int(np.ceil(warmup_s / horizon_s * len(waiting_bins)))
    if removed > len(waiting_bins) // 4:
        usable, share = waiting_bins[removed:], 1 - removed / len(waiting_bins)
    blocks = np.array([b.mean() for b in np.array_split(usable, DRIFT_BLOCKS)])
    x = (np.arange(DRIFT_BLOCKS) - (DRIFT_BLOCKS - 1) / 2) * (share * horizon_s / DRIFT_BLOCKS)
    # No dot products: BLAS orders its sums by the processor.
    spread = float((x * x).sum())
    slope = float((x * blocks).sum()) / spread
    residual = blocks - blocks.mean() - slope * x
    error = float(np.sqrt((residual * residual).sum() / (DRIFT_BLOCKS - 2) / spread))
    return slope, slope - DRIFT_T * error


@dataclass(frozen=True, slots=True)
class WindowMetrics:
    """All figures of one window; `row` holds the fields of `twin.figures.prediction.Prediction`."""

    row: dict[str, float]
    counts: NDArray[np.int64]
    late_counts: NDArray[np.int64]
    adapter_sums: Array
    completed: CompletedMetrics
    warmup: Warmup = field(default_factory=lambda: Warmup(0.0, "none"))


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _after(requests: Requests, out: KernelOutput, warmup_s: float) -> tuple[Requests, Array, Array]:
    """The cohort, requests that arrived at or after the warm-up, and its first and last token times."""
    if warmup_s == 0:
        return requests, out.first_token_s, out.finish_s
    later = requests.arrival_s >= warmup_s
    values = {f.name: getattr(requests, f.name) for f in fields(Requests)}
    kept = {name: v[later] if isinstance(v, np.ndarray) else v for name, v in values.items()}
    return Requests(**kept), out.first_token_s[later], out.finish_s[later]


def _whole_window(out: KernelOutput, horizon_s: float) -> EngineFigures:
    return EngineFigures(
        running=float(out.running_bins.sum()) / horizon_s,
        waiting=float(out.waiting_bins.sum()) / horizon_s,
        kv_blocks=out.kv_integral / horizon_s,
        preemptions_per_s=out.preemptions / horizon_s,
        loads_per_s=out.loads / horizon_s,
        itl_histogram=out.itl_histogram,
    )


def measure(
    requests: Requests,
    out: KernelOutput,
    *,
    horizon_s: float,
    slo_s: Array,
    total_blocks: int,
    warmup_s: float | Literal["auto"] = 0.0,
) -> WindowMetrics:
    """Computes all figures of a window; `slo_s` (A,) is the TTFT promise of every adapter; inf = none.

    Args:
        warmup_s: seconds at the start that do not count, or "auto" (`twin.figures.warmup`). With a warm-up `w` the
            cohort is the requests that arrived in `[w, H)`, throughput counts all tokens of requests that finished in
            `(w, H]`, and `out.trace` must hold every step (`twin.figures.warmup.steps_to_trace`).

    Raises:
        InputError: the warm-up is impossible or the trace is incomplete.
    """
    warmup = resolve(warmup_s, out.trace, horizon_s=horizon_s, busy_s=out.busy_s)
    window_s = horizon_s - warmup.seconds
    engine = _whole_window(out, horizon_s)
    finished = out.finish_s <= horizon_s
    if warmup.seconds > 0:
        finished &= out.finish_s > warmup.seconds
        engine = engine_after(warmup, out.trace, horizon_s=horizon_s, total_blocks=total_blocks, busy_s=out.busy_s)
    in_tps = float(requests.prompt[finished].sum()) / window_s
    out_tps = float(requests.output[finished].sum()) / window_s
    requests, first_s, finish_s = _after(requests, out, warmup.seconds)

    done = finish_s <= horizon_s
    started = first_s <= horizon_s
    waited = horizon_s - requests.arrival_s
    # Waiting, and refused before they reached the server: the time waited so far.
    ttft = np.where(started, first_s - requests.arrival_s, waited)
    slo = slo_s[requests.adapter]
    late = ttft > slo
    decided = started | late
    counts, late_counts, p99 = _per_adapter(requests.adapter, ttft, late, decided, len(slo_s))

    sent_tokens = float(requests.prompt.sum() + requests.output.sum())
    served = (in_tps + out_tps) * window_s / sent_tokens if sent_tokens else 1.0

    decode_s = (finish_s - first_s)[done]
    gaps = requests.output[done] - 1
    several = gaps > 0
    tpot_ms = 1000 * decode_s[several] / gaps[several]
    itl_ms = 1000 * float(decode_s.sum()) / float(gaps.sum()) if gaps.sum() else float("nan")
    cumulative = np.cumsum(engine.itl_histogram)
    itl_p99 = float("nan")
    if len(cumulative) and cumulative[-1] > 0:
        itl_p99 = (int(np.searchsorted(cumulative, 0.99 * cumulative[-1])) + 0.5) / ITL_BINS_PER_MS

    n = len(requests)
    slope, slope_low = queue_drift(out.waiting_bins, horizon_s, warmup.seconds)
    label = queue_label(served, slope_low * len(out.waiting_bins) / horizon_s, n, window_s)
    # A request waits beyond its SLO at the end: it was not admitted, whatever the adapter's tokens say.
    stuck = np.bincount(requests.adapter[late & ~started], minlength=len(slo_s))
    sent = np.bincount(requests.adapter, minlength=len(slo_s))
    asked, judged = sent > 0, counts > 0
    started_ttft = np.sort(ttft[started & done])
    e2e = np.where(done, finish_s - requests.arrival_s, waited)
    quantiles = np.quantile(ttft, [0.5, 0.99]) if n else (float("nan"),) * 2
    row = {
        "in_throughput_tps": in_tps,
        "out_throughput_tps": out_tps,
        "throughput_tps": in_tps + out_tps,
        "served_fraction": served,
        "ttft_mean_s": _mean(ttft),
        "ttft_p50_s": float(quantiles[0]),
        "ttft_p99_s": float(quantiles[1]),
        "itl_mean_ms": itl_ms,
        "itl_p99_ms": itl_p99,
        "tpot_mean_ms": _mean(tpot_ms),
        "e2e_mean_s": _mean(e2e),
        "requests_in_system": engine.running + engine.waiting,
        "running": engine.running,
        "waiting": engine.waiting,
        "waiting_drift_per_s": slope * len(out.waiting_bins) / horizon_s,
        "kv_usage": engine.kv_blocks / total_blocks,
        "preemptions_per_s": engine.preemptions_per_s,
        "loads_per_s": engine.loads_per_s,
        "late_fraction": float(late.sum() / max(1, decided.sum())),
        "adapter_late_fraction": float((late_counts[judged] / counts[judged]).mean()) if judged.any() else 0.0,
        "min_adapter_served_fraction": float((1 - stuck[asked] / sent[asked]).min()) if asked.any() else 1.0,
        "worst_adapter_ttft_p99_s": float(np.nanmax(p99)) if asked.any() else float("nan"),
        "queue": float(label),
        "starved": float(served < STARVATION_THRESHOLD),
    }
    completed = CompletedMetrics(
        completed=int(done.sum()),
        ttft_mean_s=_mean(started_ttft),
        ttft_p50_s=float(started_ttft[len(started_ttft) // 2]) if len(started_ttft) else float("nan"),
        ttft_p99_s=float(started_ttft[int(0.99 * (len(started_ttft) - 1))]) if len(started_ttft) else float("nan"),
        tpot_mean_ms=row["tpot_mean_ms"],
        itl_mean_ms=itl_ms,
    )
    sums = adapter_sums(requests.adapter, e2e, finish_s - first_s, requests.output - 1, done, len(slo_s))
    return WindowMetrics(row, counts, late_counts, sums, completed, warmup)
