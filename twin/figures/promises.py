"""Whether promises on mean ITL, TPOT and E2E are kept, adapter by adapter; `twin.figures.health` asks.

A promise on a mean is broken if the adapter's mean over all simulated hours exceeds it. The figure is therefore
`use = mean / promise`, at most 1. Three questions, so that neither few requests condemn an adapter nor many adapters
hide one:

* the adapters' uses on average, equally weighted, hour by hour (`uses`);
* the worst single adapter, hour by hour (`uses`); both only where chance moves an hour's figure by less than `STEADY`;
* any adapter, all hours pooled: condemned if the mean is above the promise by more than its requests' own spread
  explains (`broken`).

Requests that have not finished by the end of the window count with their time so far in the E2E, and not at all in
ITL and TPOT. Promises on the TTFT are counts of late requests, in `twin.figures.health`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from twin.figures.adapter_sums import MEANS, AdapterSums, pooled, ratio
from twin.workload.adapter import PROMISES, Adapter, Slo

Array = NDArray[np.float64]

#: A figure is judged hour by hour if its standard error in every hour is at most this share of the promise.
STEADY = 0.05
#: Chance that an adapter is condemned although its promise is just kept, divided by the number of promises.
CONDEMN = 0.01


class Windows(Protocol):
    """What is asked of a simulated window: of one server or of a fleet."""

    @property
    def adapters(self) -> tuple[Adapter, ...]: ...
    @property
    def counts(self) -> NDArray[np.int64]: ...
    @property
    def late_counts(self) -> NDArray[np.int64]: ...
    @property
    def adapter_sums(self) -> Array: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """One promise to one adapter, and what was simulated, all windows pooled.

    Args:
        promise: a field of `twin.workload.adapter.Slo`.
        promised: the limit, in its unit.
        requests: that the figure rests on.
        simulated: the share of requests that are late for a promise on the TTFT, else the mean; NaN without requests.
        use: share of what is allowed, at most 1: late share / allowed late share, or mean / promise.
    """

    adapter_id: str
    promise: str
    promised: float
    requests: int
    simulated: float
    use: float


def limit_of(promise: str, adapters: Sequence[Adapter], default: Slo) -> Array:
    """Limits of one of `PROMISES` that hold, (A,); inf = none.

    Args:
        default: promises of adapters that have none of their own.
    """
    return np.array([a.promised(promise, getattr(default, promise)) for a in adapters])


def limits(adapters: Sequence[Adapter], default: Slo) -> Array:
    """Limits of the figures `MEANS`, (3, A)."""
    return np.stack([limit_of(name, adapters, default) for name in MEANS])


def uses(results: Sequence[Windows], default: Slo) -> list[tuple[str, Array]]:
    """Figures that must be at most 1, in words, with one value for every window, (S,).

    Args:
        default: promises of adapters that have none of their own.
    """
    limit = limits(results[0].adapters, default)
    promised = np.isfinite(limit)
    if not promised.any():
        return []
    windows = [AdapterSums(r.adapter_sums) for r in results]
    by_window = np.stack([w.means for w in windows]) / limit
    error = np.stack([w.errors for w in windows]) / limit
    whole = pooled(r.adapter_sums for r in results).means / limit
    steady = promised & (error <= STEADY).all(axis=0)
    found = []
    for figure, name in enumerate(MEANS):
        mine = promised[figure] & np.isfinite(whole[figure])
        average, spread = _averages(by_window[:, figure, mine], error[:, figure, mine])
        told = np.isfinite(average)
        if told.any() and (spread[told] <= STEADY).all():
            text = f"{PROMISES[name]} / its promise, on average over {mine.sum()} adapters"
            # Windows without a request say nothing: they get the mean of the others.
            found.append((text, np.where(told, average, average[told].mean())))
        if steady[figure].any():
            worst = int(np.argmax(np.where(steady[figure], whole[figure], -np.inf)))
            text = f"{PROMISES[name]} of adapter {results[0].adapters[worst].adapter_id!r} / its promise"
            found.append((text, by_window[:, figure, worst]))
    return found


def _averages(values: Array, errors: Array) -> tuple[Array, Array]:
    """Mean over the adapters that have a value, and its standard error, of each window, (S,); NaN without any.

    One that has a single request, and so no error of its own, counts with the largest of the others.
    """
    known = np.isfinite(values)
    count = known.sum(axis=1)
    largest = np.where(np.isfinite(errors), errors, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    errors = np.where(np.isfinite(errors), errors, np.where(np.isfinite(largest), largest, np.inf))
    variance = np.where(known, errors, 0.0) ** 2
    mean = ratio(np.where(known, values, 0.0).sum(axis=1), count, count > 0)
    return mean, ratio(np.sqrt(variance.sum(axis=1)), count, count > 0)


def broken(results: Sequence[Windows], default: Slo) -> str:
    """Promises that adapters certainly break, all windows pooled, in words; empty if none."""
    adapters = results[0].adapters
    limit = limits(adapters, default)
    promised = np.isfinite(limit)
    if not promised.any():
        return ""
    sums = pooled(r.adapter_sums for r in results)
    mean, error = sums.means, sums.errors
    # A mean of at least two requests that is above the promise by more than their own spread explains.
    freedom = np.maximum(sums.requests - 1, 1)
    beyond = stdtrit(freedom, 1 - CONDEMN / promised.sum())
    condemned = promised & np.isfinite(error) & (mean - limit > beyond * error)
    if not condemned.any():
        return ""
    figure, worst = np.unravel_index(np.argmax(np.where(condemned, mean / limit, -np.inf)), mean.shape)
    name, number = MEANS[figure], int(condemned.any(axis=0).sum())
    unit = name.rsplit("_", 1)[1]
    whose = f"{number} adapters break promises, the worst " if number > 1 else "adapter "
    return (
        f"{whose}{adapters[worst].adapter_id!r} with a {PROMISES[name]} of {mean[figure, worst]:.4g} {unit} over "
        f"{sums.requests[figure, worst]:.0f} requests, promised {limit[figure, worst]:.4g} {unit}"
    )


def kept(results: Sequence[Windows], default: Slo, *, late_share: float) -> tuple[Kept, ...]:
    """Every promise to every adapter of a column, all windows pooled.

    Args:
        late_share: most of an adapter's requests that may be later than its TTFT promise.
    """
    adapters = results[0].adapters
    counts, late = (np.sum([getattr(r, name) for r in results], axis=0) for name in ("counts", "late_counts"))
    sums, limit = pooled(r.adapter_sums for r in results), limits(adapters, default)
    found = []
    for a, adapter in enumerate(adapters):
        ttft_s = adapter.promised("ttft_p99_s", default.ttft_p99_s)
        if np.isfinite(ttft_s):
            share = float(late[a] / counts[a]) if counts[a] else float("nan")
            found.append(Kept(adapter.adapter_id, "ttft_p99_s", ttft_s, int(counts[a]), share, share / late_share))
        for figure in np.flatnonzero(np.isfinite(limit[:, a])).tolist():
            mean, promised = float(sums.means[figure, a]), float(limit[figure, a])
            asked = int(sums.requests[figure, a])
            found.append(Kept(adapter.adapter_id, MEANS[figure], promised, asked, mean, mean / promised))
    return tuple(found)


def summary(promises: Sequence[Kept]) -> dict[str, dict[str, Any]]:
    """For each promise that somebody has: to how many adapters, of what, how many break it, and the worst.

    The worst is the one of which most is used; `None` where no request tells.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in PROMISES:
        mine = [k for k in promises if k.promise == name]
        if mine:
            worst = max((k for k in mine if np.isfinite(k.use)), key=lambda k: k.use, default=None)
            found[name] = {
                "adapters": len(mine),
                "strictest": min(k.promised for k in mine),
                "loosest": max(k.promised for k in mine),
                "beyond": sum(k.use > 1 for k in mine),
                "worst": None if worst is None else asdict(worst),
            }
    return found
