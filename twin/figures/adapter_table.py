"""Figures of every adapter of a simulated column, on request: `adapter_table(...)`.

The same definitions as in `twin.figures.metrics`: the cohort of requests that arrived in the window, TTFT censored at
its end. `docs/metrics.md` defines them by symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range, check
from twin.engine.outcome import KernelOutput
from twin.errors import InputError
from twin.workload.adapter import PROMISES, Adapter, Slo
from twin.workload.requests import Requests

Array = NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class AdapterFigures:
    """One row of the table; NaN where an adapter has no request that gives the figure.

    Args:
        requests: requests of the cohort.
        completed: those whose last token came within the window.
        waiting: those without a first token at the end of the window.
        ttft_mean_s, ttft_p50_s, ttft_p99_s: over the cohort, censored; percentiles are order statistics.
        itl_mean_ms: token-weighted, over completed requests of two tokens and more.
        tpot_mean_ms: request-weighted, over the same requests.
        e2e_mean_s: over the cohort, censored.
        late_fraction: late / decided requests.
        served_fraction: tokens (prompt + output) of completed requests / tokens of all.
        slo_ttft_p99_s, slo_itl_mean_ms, slo_tpot_mean_ms, slo_e2e_mean_s: what is promised; NaN = nothing.
    """

    adapter_id: str
    rank: int
    requests: int
    completed: int
    waiting: int
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    itl_mean_ms: float
    tpot_mean_ms: float
    e2e_mean_s: float
    late_fraction: float
    served_fraction: float
    slo_ttft_p99_s: float = NAN
    slo_itl_mean_ms: float = NAN
    slo_tpot_mean_ms: float = NAN
    slo_e2e_mean_s: float = NAN

    def as_dict(self) -> dict[str, float | int | str]:
        """Column names and values, for CSV and JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def order_statistic(ascending: Array, share: float) -> float:
    """The smallest of n sorted values that at least `share` of them do not exceed; NaN if there are none."""
    n = len(ascending)
    return float(ascending[min(n - 1, max(0, int(np.ceil(share * n)) - 1))]) if n else NAN


def _figures(adapter: Adapter, requests: Requests, out: KernelOutput, mine: NDArray[np.int64], *, horizon_s: float,
             slo: Slo) -> AdapterFigures:  # fmt: skip
    promised = {name: adapter.promised(name, getattr(slo, name)) for name in PROMISES}
    arrival, first, finish = requests.arrival_s[mine], out.first_token_s[mine], out.finish_s[mine]
    prompt, output = requests.prompt[mine].astype(np.int64), requests.output[mine].astype(np.int64)
    done, started = finish <= horizon_s, first <= horizon_s
    ttft = np.where(started, first - arrival, horizon_s - arrival)
    late = ttft > promised["ttft_p99_s"]
    decided = int((started | late).sum())
    several = done & (output > 1)
    decode_s, gaps = (finish - first)[several], output[several] - 1
    ranked = np.sort(ttft)
    n = len(mine)
    sent = int((prompt + output).sum())
    return AdapterFigures(
        adapter_id=adapter.adapter_id,
        rank=adapter.rank,
        requests=n,
        completed=int(done.sum()),
        waiting=int(n - started.sum()),
        ttft_mean_s=float(ttft.mean()) if n else NAN,
        ttft_p50_s=order_statistic(ranked, 0.5),
        ttft_p99_s=order_statistic(ranked, 0.99),
        itl_mean_ms=1000 * float(decode_s.sum()) / int(gaps.sum()) if len(gaps) else NAN,
        tpot_mean_ms=1000 * float((decode_s / gaps).mean()) if len(gaps) else NAN,
        e2e_mean_s=float(np.where(done, finish - arrival, horizon_s - arrival).mean()) if n else NAN,
        late_fraction=float(late.sum() / decided) if decided else NAN,
        served_fraction=int((prompt + output)[done].sum()) / sent if sent else NAN,
        **{f"slo_{name}": limit if np.isfinite(limit) else NAN for name, limit in promised.items()},
    )


def adapter_table(
    adapters: Sequence[Adapter],
    requests: Requests,
    out: KernelOutput,
    *,
    horizon_s: float,
    warmup_s: float = 0.0,
    slo: Slo | None = None,
) -> tuple[AdapterFigures, ...]:
    """One row for every adapter of the column, in its order.

    Args:
        requests, out: what was simulated and the kernel's times of each request (`first_token_s`, `finish_s`).
        warmup_s: the cohort is the requests that arrived at or after this time.
        slo: promises to adapters without their own; None = `Slo()`.

    Raises:
        InputError: a request names an adapter that the column does not have, or the warm-up leaves no window.
    """
    check(warmup_s, "warmup_s", Range(0, below=horizon_s, unit="seconds", hint="less than the whole window"))
    if len(requests) and not 0 <= requests.adapter.min() <= requests.adapter.max() < len(adapters):
        wrong = requests.adapter[(requests.adapter < 0) | (requests.adapter >= len(adapters))][0]
        raise InputError(
            f"a request names adapter {int(wrong)}, the column has {len(adapters)}",
            remedy="give the adapters in the order that the requests' indices refer to",
        )
    order = np.argsort(requests.adapter, kind="stable")
    order = order[requests.arrival_s[order] >= warmup_s]
    edges = np.searchsorted(requests.adapter[order], np.arange(len(adapters) + 1))
    return tuple(
        _figures(
            adapter, requests, out, order[edges[a] : edges[a + 1]],
            horizon_s=horizon_s, slo=slo or Slo(),
        )
        for a, adapter in enumerate(adapters)
    )  # fmt: skip
