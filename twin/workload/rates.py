"""Rates that change over time: descriptions that an adapter carries (`Adapter.rate_process`).

A process multiplies the adapter's rate by a factor `f(t) >= 0`. Arrivals follow by time rescaling: a renewal process
in equilibrium with the adapter's `arrival_cv` runs in operational time `int f dt`, so that burstiness and change of
rate combine (`twin.traffic.arrivals`). Factors are relative: they are divided by what `rate_req_per_s` stands for,
their mean unless said otherwise, so that the mean rate stays the adapter's rate.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Annotated, Any

from twin.config.ranges import Range, check, check_fields
from twin.errors import InputError

#: Shorter phases have no effect on requests that take seconds, and cost a step each.
SHORTEST_PHASE_S = 0.001
#: Largest coefficient of variation, of lengths and of the gaps between arrivals.
MAX_CV = 20.0
#: Least CV of gaps between arrivals: as regular as a clock for all that a server sees.
MIN_ARRIVAL_CV = 0.001
PHASES = ("exponential", "fixed")


@dataclass(frozen=True, slots=True)
class RateProfile:
    """A rate that is constant in given windows: drift, days and nights, a recording.

    Args:
        edges_s: W + 1 ascending times, the first 0: window w is `edges_s[w] <= t < edges_s[w + 1]`.
        factors: W relative rates, >= 0, not all 0. Their scale does not matter (see `stands_for`).
        arrival_cvs: W CVs of the gaps between arrivals; empty = the adapter's own throughout. Where two neighbours
            differ, arrivals start anew in equilibrium.
        repeats: whether the windows start again after the last one; else its rate stays.
        stands_for: what the adapter's `rate_req_per_s` is: `mean` over all windows, `peak`, or a quantile in (0, 1]
            over time (never less than the mean). For planning at more than the mean (`at_plan_rate`).
    """

    edges_s: tuple[float, ...]
    factors: tuple[float, ...]
    arrival_cvs: tuple[float, ...] = ()
    repeats: bool = True
    stands_for: str | float = "mean"

    def __post_init__(self) -> None:
        if len(self.edges_s) != len(self.factors) + 1 or not self.factors:
            raise InputError(
                f"{len(self.edges_s)} window edges for {len(self.factors)} factors",
                remedy="give one factor a window, and one edge more than windows",
            )
        if self.edges_s[0] != 0 or not math.isfinite(self.edges_s[-1]):
            raise InputError(
                f"the windows reach from {self.edges_s[0]!r} to {self.edges_s[-1]!r} s",
                remedy="start at 0 s and end at a finite time",
            )
        for left, right in pairwise(self.edges_s):
            if not right - left >= SHORTEST_PHASE_S:
                raise InputError(
                    f"window {left!r}..{right!r} s of a rate profile is shorter than {SHORTEST_PHASE_S:g} s",
                    remedy="give ascending edges in seconds",
                )
        for factor in self.factors:
            check(factor, "factor of a rate profile", Range(0, hint="1 = the usual rate, 0 = none"))
        if not sum(self.factors) > 0:
            raise InputError(
                "all factors of a rate profile are 0",
                remedy="leave out adapters without traffic, or give one window some",
            )
        if self.arrival_cvs and len(self.arrival_cvs) != len(self.factors):
            raise InputError(
                f"{len(self.arrival_cvs)} arrival CVs for {len(self.factors)} windows",
                remedy="give one a window, or none",
            )
        for cv in self.arrival_cvs:
            check(cv, "arrival CV of a window", Range(MIN_ARRIVAL_CV, MAX_CV, hint="1 is Poisson"))
        check_plan_rate(self.stands_for, "stands_for")

    @property
    def levels(self) -> tuple[tuple[float, float], ...]:
        """(factor, share of time) of each window."""
        return tuple(
            (factor, (right - left) / self.edges_s[-1])
            for factor, (left, right) in zip(self.factors, pairwise(self.edges_s), strict=True)
        )


@dataclass(frozen=True, slots=True)
class OnOff:
    """A rate that switches between two levels at random, or in a fixed rhythm.

    With phases of mean length `on_s` and `off_s`, the share of time *on* is `p = on_s / (on_s + off_s)`; with
    `r = off_factor`, the factors are `1 / (p + (1 - p) r)` while on and `r` times that while off, so that the mean
    over many phases is 1. A run starts at a random point of the rhythm (stationary).

    Args:
        on_s, off_s: mean length of the phases, seconds.
        off_factor: rate while off / rate while on, 0..1 (exclusive); 0 = silence.
        phases: `exponential` lengths, or `fixed` ones (only the start is random then).
        group: adapters with the same group switch together, wherever they are served; empty = on their own.
        stands_for: as in `RateProfile`.
    """

    on_s: Annotated[float, Range(SHORTEST_PHASE_S, unit="seconds", hint="a stationary rate has no phases")]
    off_s: Annotated[float, Range(SHORTEST_PHASE_S, unit="seconds", hint="a stationary rate has no phases")]
    off_factor: Annotated[float, Range(0, below=1, hint="rate while off / rate while on")] = 0.0
    phases: str = "exponential"
    group: str = ""
    stands_for: str | float = "mean"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.phases not in PHASES:
            raise InputError(f"phases {self.phases!r} are not known", remedy=f"use {' or '.join(PHASES)}")
        check_plan_rate(self.stands_for, "stands_for")

    @property
    def levels(self) -> tuple[tuple[float, float], ...]:
        """(factor, share of time) on and off; the scale is that of `RateProfile.factors`: any."""
        on = self.on_s / (self.on_s + self.off_s)
        return ((1.0, on), (self.off_factor, 1.0 - on))


RateProcess = RateProfile | OnOff


def check_plan_rate(value: Any, option: str) -> None:
    """Raises `InputError` unless `value` is `mean`, `peak` or a quantile in (0, 1]."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value in ("mean", "peak") if not number else 0 < value <= 1:
        return
    raise InputError(
        f"{value!r} is not a rate to plan for",
        where=f"option {option}",
        remedy="use mean, peak, or a quantile over time in (0, 1], e.g. 0.95",
    )


def level(process: RateProcess, of: str | float) -> float:
    """The factor that is the `mean`, the `peak` or a quantile over time (at least the mean), in the process's scale."""
    levels = process.levels
    mean = math.fsum(factor * share for factor, share in levels)
    if of == "mean":
        return mean
    if of == "peak":
        return max(factor for factor, share in levels if share > 0)
    ordered = sorted(levels)
    reached = list(accumulate(share for _, share in ordered))
    # Rounding of the sum must not lift a quantile of 1 (or the share itself) to the next level.
    position = min(bisect_left(reached, float(of) - 1e-12), len(ordered) - 1)
    return max(mean, ordered[position][0])


def mean_factor(process: RateProcess | None) -> float:
    """Mean rate over time / `rate_req_per_s`; 1 unless the rate stands for more than the mean."""
    if process is None or process.stands_for == "mean":
        return 1.0
    return level(process, "mean") / level(process, process.stands_for)


def planned_at(process: RateProcess, plan_rate: str | float) -> tuple[RateProcess, float]:
    """The same traffic described by another rate: the process, and the factor on `rate_req_per_s` that goes with it."""
    check_plan_rate(plan_rate, "workload.plan_rate")
    factor = level(process, plan_rate) / level(process, process.stands_for)
    return replace(process, stands_for=plan_rate), factor


def even_profile(factors: Sequence[float], window_s: float, **fields: Any) -> RateProfile:
    """A profile of windows of equal length, seconds."""
    edges = tuple(w * float(window_s) for w in range(len(factors) + 1))
    return RateProfile(edges, tuple(map(float, factors)), **fields)
