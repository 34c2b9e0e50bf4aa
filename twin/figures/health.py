"""What "healthy" means: the one definition for the twin, the surrogates and verification.

Two rules. `published` is the rule of the publications: throughput / ideal >= 0.90. It tolerates a growing queue: real
runs between 0.90 and 0.96 have mean TTFTs of minutes. `stable` therefore asks that the queue does not drift and that
nearly all requests, of every adapter, get their first token within its SLO, and that promises on mean ITL, TPOT and E2E
are kept (`twin.figures.promises`).

Each is there twice, with the same thresholds: as a verdict on simulated windows (`judge`), and as figures that
verification draws confidence limits for (`Stable`, `Published`, the options of `conf/constraint`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.figures import promises
from twin.figures.prediction import BACKLOGGED, OVERLOADED, STABLE
from twin.figures.result import SimulationResult
from twin.figures.window import (
    adapters_too_late,
    queue_grows,
    served_or_in_service,
    starved,
    too_many_late,
    trials_without_failure,
)
from twin.workload.adapter import Slo

Array = NDArray[np.float64]
Rule = Literal["stable", "published"]
RULES: tuple[Rule, ...] = get_args(Rule)

#: Starvation in the publications: throughput / ideal below this.
STARVATION_THRESHOLD = 0.90
#: A queue grows if it gains more than this many requests in the window, and more than this share of the arrivals.
DRIFT_REQUESTS, DRIFT_SHARE = 10.0, 0.01
#: Most late requests overall, and of an adapter (adapters weighted equally).
MAX_LATE_SHARE, MAX_ADAPTER_LATE_SHARE = 0.01, 0.05
#: An adapter with few requests is judged late only if chance explains it with less than this probability
#: (divided by the number of adapters).
FEW_REQUESTS_CONFIDENCE = 0.01


def queue_label(served_fraction: float, drift_low_per_s: float, arrivals: int, horizon_s: float) -> int:
    """STABLE, BACKLOGGED (the queue grows although the throughput rule holds) or OVERLOADED (starved)."""
    if served_fraction < STARVATION_THRESHOLD:
        return OVERLOADED
    if drift_low_per_s > 0 and drift_low_per_s * horizon_s > max(DRIFT_REQUESTS, DRIFT_SHARE * arrivals):
        return BACKLOGGED
    return STABLE


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a column is healthy, and the rule that it breaks first (empty if none)."""

    healthy: bool
    reason: str


def starving_adapters(
    counts: NDArray[np.int64], late_counts: NDArray[np.int64], share: float = MAX_ADAPTER_LATE_SHARE
) -> NDArray[np.int64]:
    """Indices of adapters that are late beyond `share` of their requests with confidence; pooled counts (A,)."""
    # Half of the time until a planning model answers first, if it were imported above.
    from scipy.stats import binom

    judged = counts > 0
    tail = np.ones(len(counts))
    tail[judged] = binom.sf(late_counts[judged] - 1, counts[judged], share)
    return np.flatnonzero(judged & (late_counts > 0) & (tail < FEW_REQUESTS_CONFIDENCE / max(1, int(judged.sum()))))


def stable(results: Sequence[SimulationResult], slo: Slo | None = None) -> Verdict:
    """Rule `stable` over one or more seeds of one column (requests of all seeds pooled).

    Args:
        slo: promises on means of adapters without their own; those on the TTFT are in the counts of late requests.
    """
    counts = np.sum([r.counts for r in results], axis=0)
    late = np.sum([r.late_counts for r in results], axis=0)
    share = float(late.sum() / max(1, counts.sum()))
    if share > MAX_LATE_SHARE:
        return Verdict(False, f"{100 * share:.2f} % of requests are later than their TTFT SLO")
    judged = counts > 0
    if judged.any():
        of_adapters = float((late[judged] / counts[judged]).mean())
        if of_adapters > MAX_ADAPTER_LATE_SHARE:
            return Verdict(False, f"adapters are late for {100 * of_adapters:.1f} % of their requests on average")
    worst = starving_adapters(counts, late)
    if len(worst):
        a = int(worst[np.argmax(late[worst] / counts[worst])])
        return Verdict(False, f"adapter {a} is late for {late[a]} of {counts[a]} requests")
    drifting = sum(r.row["queue"] != STABLE for r in results)
    if 2 * drifting > len(results):
        return Verdict(False, "the waiting queue grows")
    slo = Slo() if slo is None else slo
    certainly = promises.broken(results, slo)
    if certainly:
        return Verdict(False, certainly)
    for text, values in promises.uses(results, slo):
        if values.mean() > 1:
            return Verdict(False, f"{text}: {values.mean():.4g}")
    return Verdict(True, "")


def published(results: Sequence[SimulationResult]) -> Verdict:
    """Rule `published` over one or more seeds of one column (mean served fraction)."""
    served = float(np.mean([r.row["served_fraction"] for r in results]))
    if served < STARVATION_THRESHOLD:
        return Verdict(False, f"throughput is {100 * served:.1f} % of the ideal")
    return Verdict(True, "")


def judge(results: Sequence[SimulationResult], rule: Rule, slo: Slo | None = None) -> Verdict:
    """Verdict of a rule on one column from one or several seeds, pooled; `slo` as in `stable`."""
    return stable(results, slo) if rule == "stable" else published(results)


def check_rule(rule: str) -> Rule:
    """Narrows a configured name.

    Raises:
        InputError: no such rule.
    """
    for known in RULES:
        if rule == known:
            return known
    raise InputError(f"constraint {rule!r} is not known", remedy=f"choose one of: {', '.join(RULES)}")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One figure that must stay on the right side of a limit, with its value under every seed.

    Args:
        text: for people, e.g. `late requests`.
        values: one per seed, (S,).
        limit: in the unit of the values.
        at_most: the mean must be <= limit; else >= limit.
    """

    text: str
    values: Array
    limit: float
    at_most: bool


class Constraint(Protocol):
    """What must hold on every GPU."""

    @property
    def rule(self) -> Rule:
        """Name of the rule, `stable` or `published`: chooses the planning model's facets."""
        ...

    @property
    def slo(self) -> Slo:
        """Promise for adapters that have none of their own."""
        ...

    @property
    def margin(self) -> float | None:
        """Margin of the planning model in its own units; None = the model's own."""
        ...

    def requirements(self, results: Sequence[SimulationResult]) -> list[Requirement]:
        """Figures of one column under several seeds that a confidence limit is drawn for."""
        ...

    def broken(self, results: Sequence[SimulationResult]) -> str:
        """A rule on pooled counts that the column certainly breaks, in words; empty if none."""
        ...

    def broken_window(self, result: SimulationResult) -> str:
        """What one window breaks by more than chance explains, in words; empty if it keeps the rule."""
        ...

    def least_requests(self, error: float) -> int:
        """Fewest requests from which the rule can be told at all, at this error probability."""
        ...


def _column(results: Sequence[SimulationResult], name: str) -> Array:
    return np.array([r.row[name] for r in results])


def _served(results: Sequence[SimulationResult]) -> Array:
    return np.array([served_or_in_service(r) for r in results])


MARGIN = Range(0, below=1, hint="e.g. 0.05, or null for the model's own")


@dataclass(frozen=True, slots=True)
class Stable:
    """Queue stable, at most `late_share` of all requests and on average `adapter_late_share` of an adapter's late.

    And promises on mean ITL, TPOT and E2E are kept (`twin.figures.promises`).

    Args:
        slo: promises to adapters without their own.
        late_share: most requests later than their promise, share of all.
        adapter_late_share: the same per adapter, adapters weighted equally.
        margin: overrides the planning model's margin.
    """

    slo: Slo = field(default_factory=Slo)
    late_share: Annotated[float, Range(above=0, below=1)] = MAX_LATE_SHARE
    adapter_late_share: Annotated[float, Range(above=0, below=1)] = MAX_ADAPTER_LATE_SHARE
    margin: Annotated[float | None, MARGIN] = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def rule(self) -> Rule:
        return "stable"

    def requirements(self, results: Sequence[SimulationResult]) -> list[Requirement]:
        hours = np.array([r.horizon_s for r in results]) / 3600.0
        arrivals_per_h = float(np.mean(np.array([r.arrivals for r in results]) / hours))
        return [
            Requirement("late requests", _column(results, "late_fraction"), self.late_share, True),
            Requirement(
                "late requests of an adapter",
                _column(results, "adapter_late_fraction"),
                self.adapter_late_share,
                True,
            ),
            Requirement(
                "queue growth per hour",
                3600.0 * _column(results, "waiting_drift_per_s"),
                max(DRIFT_REQUESTS, DRIFT_SHARE * arrivals_per_h),
                True,
            ),
            Requirement("throughput / ideal", _served(results), STARVATION_THRESHOLD, False),
            *(Requirement(text, values, 1.0, True) for text, values in promises.uses(results, self.slo)),
        ]

    def broken(self, results: Sequence[SimulationResult]) -> str:
        counts = np.sum([r.counts for r in results], axis=0)
        late = np.sum([r.late_counts for r in results], axis=0)
        return self._starving(counts, late) or promises.broken(results, self.slo)

    def _starving(self, counts: NDArray[np.int64], late: NDArray[np.int64]) -> str:
        starving = starving_adapters(counts, late, self.adapter_late_share)
        if not len(starving):
            return ""
        worst = int(starving[np.argmax(late[starving] / counts[starving])])
        return f"{len(starving)} adapters starve, the worst with {late[worst]} of {counts[worst]} requests late"

    def broken_window(self, result: SimulationResult) -> str:
        return (
            too_many_late(result, self.late_share)
            or adapters_too_late(result, self.adapter_late_share)
            or self._starving(result.counts, result.late_counts)
            or starved(result, STARVATION_THRESHOLD)
            or queue_grows(result)
        )

    def least_requests(self, error: float) -> int:
        return trials_without_failure(self.late_share, error)


@dataclass(frozen=True, slots=True)
class Published:
    """Throughput / ideal >= 0.90 over the window; tolerates a growing queue.

    Args:
        slo: only decides what is reported as late.
        margin: overrides the planning model's margin.
    """

    slo: Slo = field(default_factory=Slo)
    margin: Annotated[float | None, MARGIN] = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def rule(self) -> Rule:
        return "published"

    def requirements(self, results: Sequence[SimulationResult]) -> list[Requirement]:
        return [Requirement("throughput / ideal", _served(results), STARVATION_THRESHOLD, False)]

    def broken(self, results: Sequence[SimulationResult]) -> str:
        return ""

    def broken_window(self, result: SimulationResult) -> str:
        return starved(result, STARVATION_THRESHOLD)

    def least_requests(self, error: float) -> int:
        return trials_without_failure(1 - STARVATION_THRESHOLD, error)
