"""Whether one GPU keeps what its plan promised, given what a window can show.

A promise is broken where the measured share of late requests is above the allowed one even at the lower end of its
95 % interval (Clopper-Pearson), where a promised mean is exceeded, or where the queue grows. Where the upper end is
above, too few requests came to tell: that is said, and does not break it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from twin.client.cohort import cohort
from twin.figures.health import MAX_ADAPTER_LATE_SHARE, MAX_LATE_SHARE, STARVATION_THRESHOLD
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests

#: Error of each side of an interval.
ERROR = 0.025
#: Share of requests, but for those of the last seconds, that may wait for a first token at the end.
MOST_STUCK = 0.05
#: Promises on means, and the figure of a window that they limit.
MEANS = {"itl_mean_ms": "itl_mean_ms", "tpot_mean_ms": "tpot_mean_ms", "e2e_mean_s": "e2e_mean_s"}


@dataclass(frozen=True, slots=True)
class GpuOutcome:
    """What one GPU did.

    Args:
        planned: figures of the plan, simulated or else predicted.
        broken, undecided: promises, in words.
    """

    gpu_id: str
    requests: int
    planned: Mapping[str, float]
    measured: Mapping[str, float]
    broken: tuple[str, ...]
    undecided: tuple[str, ...]

    @property
    def kept(self) -> bool:
        return not self.broken

    def to_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, **asdict(self)}


def share_limits(bad: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson limits of a share, 95 %."""
    low = float(beta.ppf(ERROR, bad, trials - bad + 1)) if bad else 0.0
    high = float(beta.ppf(1 - ERROR, bad + 1, trials - bad)) if bad < trials else 1.0
    return low, high


def judge(
    document: Mapping[str, Any],
    index: int,
    adapters: Sequence[Adapter],
    seen: tuple[Requests, np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]],
    *,
    horizon_s: float,
    warmup_s: float,
) -> GpuOutcome:
    """Compares a GPU's window with its plan.

    Args:
        document: `placement.json`.
        seen: requests sent to the GPU, their first and last token times.
    """
    gpu, rules = document["gpus"][index], document["verification"]
    requests, first_s, finish_s = seen
    later = requests.arrival_s >= warmup_s
    kept = {n: getattr(requests, n)[later] for n in ("adapter", "prompt", "cached", "output")}
    cut = Requests(requests.arrival_s[later] - warmup_s, **kept)
    window_s = horizon_s - warmup_s
    row = cohort(cut, first_s[later] - warmup_s, finish_s[later] - warmup_s, horizon_s=window_s, adapters=len(adapters))
    planned = {k: v for k, v in (gpu["simulated"] or gpu["predicted"]).items() if v is not None}
    broken: list[str] = []
    undecided: list[str] = []
    first = first_s[later] - warmup_s
    if rules["rule"] == "published":
        if row["served_fraction"] < STARVATION_THRESHOLD:
            broken.append(f"{row['served_fraction']:.3f} of the tokens served, promised {STARVATION_THRESHOLD:g}")
        late_share = float("nan")
    else:
        late_share = _late(cut, first, window_s, adapters, rules["default_promises"], broken, undecided)
        _means(row, rules["default_promises"], broken)
    return GpuOutcome(
        gpu["gpu_id"], len(cut), planned, {**row, "late_fraction": late_share}, tuple(broken), tuple(undecided)
    )


def _late(
    cut: Requests, first: Any, window_s: float, adapters: Sequence[Adapter], defaults: Mapping[str, Any],
    broken: list[str], undecided: list[str],
) -> float:  # fmt: skip
    """Judges the shares of late requests; returns that of all requests."""
    slo = np.array([a.ttft_slo_s(defaults["ttft_p99_s"]) for a in adapters])
    waited = np.minimum(first, window_s) - cut.arrival_s
    late = waited > slo[cut.adapter]
    decided = (first <= window_s) | late
    bad, trials = int(late.sum()), int(decided.sum())
    if trials:
        low, high = share_limits(bad, trials)
        if low > MAX_LATE_SHARE:
            broken.append(f"{100 * bad / trials:.1f} % of {trials} requests late, promised {100 * MAX_LATE_SHARE:g} %")
        elif high > MAX_LATE_SHARE:
            undecided.append(
                f"{bad} of {trials} requests late: up to {100 * high:.1f} % possible, a longer window tells"
            )
    shares = [
        late[(cut.adapter == a) & decided].mean() for a in range(len(adapters)) if ((cut.adapter == a) & decided).any()
    ]
    worst = float(np.mean(shares)) if shares else 0.0
    if worst > MAX_ADAPTER_LATE_SHARE and share_limits(bad, max(1, trials))[0] > MAX_LATE_SHARE / 2:
        broken.append(
            f"{100 * worst:.1f} % of an adapter's requests late on average, promised {100 * MAX_ADAPTER_LATE_SHARE:g} %"
        )
    # A queue that grows is not late yet where the promise is long.
    stuck = int(((first > window_s) & (cut.arrival_s < window_s - 5)).sum())
    if stuck > max(10, MOST_STUCK * len(cut)):
        broken.append(f"the queue grows: {stuck} of {len(cut)} requests still wait")
    return bad / trials if trials else float("nan")


def _means(row: Mapping[str, float], defaults: Mapping[str, Any], broken: list[str]) -> None:
    for promise, figure in MEANS.items():
        limit = defaults.get(promise)
        if limit is not None and row[figure] > limit:
            broken.append(f"{promise} {row[figure]:.4g}, promised {limit:g}")
