"""Changing rates for a whole workload: what the options `workload.drift` name.

Each model turns adapters with constant rates into adapters with a `rate_process` and the same mean rates. Rates drawn
here (`Unpredictable`, `Reshuffled`) are a property of the workload, fixed by `seed`; the phases of `Switching` and
`Peaks` are drawn anew in every simulation. Adapters that have a process of their own keep it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twin.config.arguments import number, whole_number
from twin.errors import InputError
from twin.wording import counted, percent
from twin.workload.adapter import Adapter
from twin.workload.rates import OnOff, RateProcess, check_plan_rate, even_profile

Floats = NDArray[np.float64]
#: Number of windows of a profile; more is a mistake in the units.
MOST_WINDOWS = 100_000


class Drift(Protocol):
    """How the rates of a workload change."""

    def applied(self, adapters: Sequence[Adapter]) -> tuple[tuple[Adapter, ...], str]:
        """The adapters with rate processes, in order, and a sentence that says what was done."""
        ...


def apply_drift(adapters: Sequence[Adapter], drift: Any, plan_rate: Any) -> tuple[tuple[Adapter, ...], tuple[str, ...]]:
    """Applies the options `workload.drift` and `workload.plan_rate`; adapters and notes.

    Raises:
        InputError: an option is wrong.
    """
    check_plan_rate(plan_rate, "workload.plan_rate")
    notes = []
    if drift is not None:
        if not callable(getattr(drift, "applied", None)):
            raise InputError(
                f"{drift!r} is not a model of changing rates",
                where="option workload.drift",
                remedy="use null, or e.g. {_target_: twin.traffic.drift.Unpredictable, change_s: 300}",
            )
        adapters, note = drift.applied(adapters)
        notes.append(note)
    if plan_rate != "mean" and any(a.rate_process for a in adapters):
        mean = sum(a.mean_rate_req_per_s for a in adapters)
        adapters = tuple(a.planned_at(plan_rate) for a in adapters)
        chosen = "peak" if plan_rate == "peak" else f"{plan_rate:g} quantile over time"
        notes.append(
            f"Rates planned for are each adapter's {chosen}, {sum(a.rate_req_per_s for a in adapters):.4g} req/s in "
            f"total, against {mean:.4g} req/s on average; what is simulated is the changing rate."
        )
    return tuple(adapters), tuple(notes)


def _windows(change_s: Any, span_s: Any) -> tuple[int, float]:
    change = number(change_s, "workload.drift.change_s", above=0.0)
    span = number(span_s, "workload.drift.span_s", low=change)
    count = round(span / change)
    if not np.isclose(count * change, span, rtol=1e-9) or count > MOST_WINDOWS:
        raise InputError(
            f"{span:g} s are not 1 to {MOST_WINDOWS} windows of {change:g} s",
            where="options workload.drift.span_s, workload.drift.change_s",
            remedy="make the span a multiple of the time between changes, e.g. 3600 and 300",
        )
    return count, change


def _steady(adapters: Sequence[Adapter]) -> NDArray[np.int64]:
    """Indices of the adapters without a process of their own."""
    return np.flatnonzero([a.rate_process is None for a in adapters])


def _chosen(adapters: Sequence[Adapter], share: float, rng: np.random.Generator) -> list[int]:
    """A random share of the adapters without a process, at least one if there are any."""
    steady = _steady(adapters)
    count = min(len(steady), max(1, round(share * len(steady)))) if share > 0 else 0
    return sorted(rng.permutation(steady)[:count].tolist())


@dataclass(frozen=True, slots=True)
class Unpredictable:
    """Every adapter's rate jumps to a new level every `change_s` seconds.

    Levels are lognormal: `log f_a(w) = sigma (sqrt(c) C(w) + sqrt(1 - c) X_a(w))` with `sigma^2 = log(1 +
    spread_cv^2)`, c = `common_share` and C, X_a normal series whose neighbours correlate by `persistence`.
    Each adapter's levels are scaled to mean 1 over the span, and repeat after it.

    Args:
        change_s: time between jumps, seconds.
        span_s: time after which the levels repeat, a multiple of `change_s`.
        spread_cv: standard deviation / mean of the levels.
        common_share: share of the variance that all adapters have in common, 0..1.
        persistence: correlation of one level's logarithm with the next, 0..1 (exclusive).
        share: share of the adapters whose rates change.
        seed: of the levels.
    """

    change_s: float = 300.0
    span_s: float = 3600.0
    spread_cv: float = 1.0
    common_share: float = 0.0
    persistence: float = 0.0
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _windows(self.change_s, self.span_s)
        number(self.spread_cv, "workload.drift.spread_cv", low=0.0, high=20.0)
        number(self.common_share, "workload.drift.common_share", low=0.0, high=1.0)
        number(self.persistence, "workload.drift.persistence", low=0.0, high=0.999)
        number(self.share, "workload.drift.share", low=0.0, high=1.0)
        whole_number(self.seed, "workload.drift.seed")

    def applied(self, adapters: Sequence[Adapter]) -> tuple[tuple[Adapter, ...], str]:
        from twin import portable  # compiled code: only where it is asked for

        rng = np.random.default_rng([self.seed, 1])
        windows, change_s = _windows(self.change_s, self.span_s)
        chosen = _chosen(adapters, self.share, rng)
        sigma = math.sqrt(portable.log1p(self.spread_cv * self.spread_cv))
        common = self._series(rng, 1, windows)
        own = self._series(rng, len(chosen), windows)
        shared, apart = math.sqrt(self.common_share), math.sqrt(1.0 - self.common_share)
        levels = portable.exps(sigma * (shared * common + apart * own))
        processes = {a: even_profile(row, change_s) for a, row in zip(chosen, levels.tolist(), strict=True)}
        return _with_processes(adapters, processes), (
            f"Rates of {counted(len(chosen), 'adapter')} jump every {change_s:g} s (CV of the levels "
            f"{self.spread_cv:g}, {percent(self.common_share)} in common), with the same mean over {self.span_s:g} s; "
            f"levels drawn with seed {self.seed}."
        )

    def _series(self, rng: np.random.Generator, rows: int, windows: int) -> Floats:
        """Standard normal series with autocorrelation `persistence`, (rows, windows)."""
        from twin.traffic.streams import normals

        series = normals(rng, (rows, windows))
        fresh = math.sqrt(1.0 - self.persistence * self.persistence)
        for w in range(1, windows):
            series[:, w] = self.persistence * series[:, w - 1] + fresh * series[:, w]
        return series


@dataclass(frozen=True, slots=True)
class Reshuffled:
    """Popularity changes hands: every `change_s` seconds some adapters swap their rates at random.

    The total rate is constant, and so is the number of adapters at each rate. An adapter's `rate_req_per_s` becomes
    the mean of the rates it has over the span. Entries of rank 0 keep their rate.

    Args:
        change_s, span_s, seed: as in `Unpredictable`.
        turnover: share of the adapters that swap at each change, 0..1.
    """

    change_s: float = 600.0
    span_s: float = 3600.0
    turnover: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _windows(self.change_s, self.span_s)
        number(self.turnover, "workload.drift.turnover", low=0.0, high=1.0)
        whole_number(self.seed, "workload.drift.seed")

    def applied(self, adapters: Sequence[Adapter]) -> tuple[tuple[Adapter, ...], str]:
        rng = np.random.default_rng([self.seed, 2])
        windows, change_s = _windows(self.change_s, self.span_s)
        chosen = [int(a) for a in _steady(adapters) if adapters[a].rank > 0]
        rates = np.array([adapters[a].rate_req_per_s for a in chosen])
        path = np.empty((len(chosen), windows))
        for w in range(windows):
            if w:
                swapping = rng.permutation(len(chosen))[: round(self.turnover * len(chosen))]
                rates[swapping] = rates[rng.permutation(swapping)]
            path[:, w] = rates
        changed = list(adapters)
        for a, row in zip(chosen, path, strict=True):
            changed[a] = replace(
                adapters[a], rate_req_per_s=float(row.mean()), rate_process=even_profile(row.tolist(), change_s)
            )
        return tuple(changed), (
            f"{percent(self.turnover)} of {counted(len(chosen), 'adapter')} swap their rates every {change_s:g} s; the "
            f"rates planned for are means over {self.span_s:g} s; drawn with seed {self.seed}."
        )


@dataclass(frozen=True, slots=True)
class Switching:
    """Adapters that send in phases, each on its own (`twin.workload.rates.OnOff`).

    Args:
        on_s, off_s, off_factor, phases: as in `OnOff`.
        share: share of the adapters that switch, chosen with `seed`.
    """

    on_s: float = 120.0
    off_s: float = 480.0
    off_factor: float = 0.0
    phases: str = "exponential"
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        OnOff(self.on_s, self.off_s, self.off_factor, self.phases)
        number(self.share, "workload.drift.share", low=0.0, high=1.0)
        whole_number(self.seed, "workload.drift.seed")

    def applied(self, adapters: Sequence[Adapter]) -> tuple[tuple[Adapter, ...], str]:
        chosen = _chosen(adapters, self.share, np.random.default_rng([self.seed, 3]))
        process = OnOff(self.on_s, self.off_s, self.off_factor, self.phases)
        return _with_processes(adapters, dict.fromkeys(chosen, process)), (
            f"{counted(len(chosen), 'adapter')} of {len(adapters)} switch on and off on their own, {self.on_s:g} and "
            f"{self.off_s:g} s on average ({self.phases} phases), with the same mean rates."
        )


@dataclass(frozen=True, slots=True)
class Peaks:
    """Adapters that peak together: a common factor lifts the rates of a group at the same time, on every GPU.

    Args:
        height: rate in a peak / rate between peaks, > 1.
        peak_s: mean length of a peak, seconds.
        every_s: mean time from one peak's start to the next, > peak_s.
        phases: `exponential` lengths, or `fixed` ones.
        share: share of the adapters that take part, chosen with `seed`.
        groups: number of groups, which peak independently of each other; adapters are dealt to them at random.
    """

    height: float = 4.0
    peak_s: float = 120.0
    every_s: float = 1200.0
    phases: str = "exponential"
    share: float = 1.0
    groups: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        number(self.height, "workload.drift.height", above=1.0)
        number(self.peak_s, "workload.drift.peak_s", above=0.0)
        number(self.every_s, "workload.drift.every_s", above=self.peak_s)
        number(self.share, "workload.drift.share", low=0.0, high=1.0)
        whole_number(self.groups, "workload.drift.groups", low=1)
        whole_number(self.seed, "workload.drift.seed")
        self._process(0)

    def _process(self, group: int) -> OnOff:
        rest_s = self.every_s - self.peak_s
        return OnOff(self.peak_s, rest_s, 1.0 / self.height, self.phases, group=f"peak-{group + 1}")

    def applied(self, adapters: Sequence[Adapter]) -> tuple[tuple[Adapter, ...], str]:
        rng = np.random.default_rng([self.seed, 4])
        chosen = _chosen(adapters, self.share, rng)
        group = rng.permutation(np.resize(np.arange(self.groups), len(chosen)))
        processes = {a: self._process(int(g)) for a, g in zip(chosen, group, strict=True)}
        together = "together" if self.groups == 1 else f"in {self.groups} groups"
        return _with_processes(adapters, processes), (
            f"{counted(len(chosen), 'adapter')} of {len(adapters)} peak {together}: {self.height:g} times the rate for "
            f"{self.peak_s:g} s about every {self.every_s:g} s ({self.phases} phases), with the same mean rates."
        )


def _with_processes(adapters: Sequence[Adapter], processes: dict[int, Any]) -> tuple[Adapter, ...]:
    def changed(a: int, adapter: Adapter) -> Adapter:
        process: RateProcess | None = processes.get(a, adapter.rate_process)
        return adapter if process is adapter.rate_process else replace(adapter, rate_process=process)

    return tuple(changed(a, adapter) for a, adapter in enumerate(adapters))
