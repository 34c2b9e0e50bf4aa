"""The verdict on one GPU (or on GPUs alike) from the windows simulated so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from placement.verify.claim import REFUTE_ERROR, Claim
from twin.confidence.sequential import mean_limit
from twin.figures.health import MAX_ADAPTER_LATE_SHARE, Constraint, Requirement
from twin.figures.promises import Kept, kept
from twin.figures.window import trials_without_failure
from twin.wording import counted, percent

if TYPE_CHECKING:
    from twin.figures.result import SimulationResult


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the windows so far say.

    Args:
        decision: `open` = more windows may decide.
        reason: what decided or stands in the way, in words.
        bad: number of windows that break the rule.
    """

    decision: Literal["accepted", "refuted", "open"]
    reason: str
    bad: int


def judge(
    members: Sequence[Sequence[SimulationResult]], constraint: Constraint, claim: Claim, *, allowed: int, looks: int
) -> Opinion:
    """Verdict from independent windows of one column, or of columns alike.

    *Refuted*: adapters starve, more windows are bad than the claim's share explains, or a mean lies beyond its limit by
    Student's t. *Accepted*: at most `allowed` windows are bad, every mean keeps its limit by Student's t, and enough
    requests arrived to tell. Anything else is open: it is not refuted.

    Args:
        members: windows of each column; adapters are judged one by one within a column, hours all together.
        allowed: most bad windows with which this look may accept; -1 = none.
        looks: number of looks, among which the error probability of the means is shared.
    """
    results = [result for own in members for result in own]
    reasons = [why for why in map(constraint.broken_window, results) if why]
    bad = len(reasons)
    shown = f"{bad} of {counted(len(results), 'hour')} broke the rule" + (f", e.g. {reasons[0]}" if bad else "")
    for own in members:
        starving = constraint.broken(own) if own else ""
        if starving:
            return Opinion("refuted", starving, bad)
    if bad >= claim.refuting(len(results)):
        return Opinion("refuted", shown, bad)
    missing = ""
    for requirement in constraint.requirements(results):
        if beyond(requirement, REFUTE_ERROR / looks):
            return Opinion("refuted", _told(requirement), bad)
        if not within(requirement, claim.error / looks):
            missing = missing or _told(requirement)
    if bad > allowed:
        missing = shown
    decided = sum(int(r.counts.sum()) for r in results)
    late = sum(int(r.late_counts.sum()) for r in results)
    allowed_late = getattr(constraint, "late_share", 1.0)
    if late > allowed_late * decided:
        # Hours weigh alike in the means; requests do here, so that a rare hour with most of them is not averaged away.
        missing = missing or f"{percent(late / decided)} of all {decided} requests late"
    needed = constraint.least_requests(claim.error)
    if decided < needed:
        missing = (
            f"only {counted(decided, 'request')} arrived in {len(results)} windows: {needed} tell whether it holds"
        )
    if missing or allowed < 0:
        return Opinion("open", missing or "too few hours", bad)
    return Opinion("accepted", "", bad)


def within(requirement: Requirement, alpha: float) -> bool:
    """Whether the mean keeps its limit, at this error probability (Student's t)."""
    if not np.isfinite(requirement.values).all():
        return False
    worst = mean_limit(requirement.values, alpha, upper=requirement.at_most)
    return worst <= requirement.limit if requirement.at_most else worst >= requirement.limit


def beyond(requirement: Requirement, alpha: float) -> bool:
    """Whether the mean breaks its limit, at this error probability. A figure that is not finite breaks it."""
    values = requirement.values
    if not np.isfinite(values).all():
        return True
    if len(values) < 3:
        return False
    best = mean_limit(values, alpha, upper=not requirement.at_most)
    return best > requirement.limit if requirement.at_most else best < requirement.limit


def _told(requirement: Requirement) -> str:
    values = requirement.values
    return (
        f"{requirement.text} {values.mean():.4g} (limit {'<=' if requirement.at_most else '>='} "
        f"{requirement.limit:.4g}, {counted(len(values), 'hour')})"
    )


def promises_kept(results: Sequence[SimulationResult], constraint: Constraint) -> tuple[Kept, ...]:
    """Every promise to every adapter of a column, all windows together."""
    allowed = float(getattr(constraint, "adapter_late_share", MAX_ADAPTER_LATE_SHARE))
    return kept(results, constraint.slo, late_share=allowed)


def few_requests(results: Sequence[SimulationResult], constraint: Constraint, error: float) -> int:
    """Adapters whose requests are too few to tell whether more than the allowed share of them is late."""
    allowed = getattr(constraint, "adapter_late_share", None)
    if allowed is None:
        return 0  # a rule that does not look at single adapters
    counts = np.sum([r.counts for r in results], axis=0)
    return int((counts < trials_without_failure(float(allowed), error)).sum())


def deviations(results: Sequence[SimulationResult]) -> dict[str, float]:
    """Standard deviations of the metrics over windows, of those that every window gives; none with fewer than two."""
    rows = [r.prediction_row() for r in results]
    if len(rows) < 2:
        return {}
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {name: float(v.std(ddof=1)) for name, v in values.items() if np.isfinite(v).all()}


def mean_metrics(results: Sequence[SimulationResult]) -> dict[str, float]:
    """Metrics averaged over windows; NaN where no window gives one, none at all without windows."""
    rows = [r.prediction_row() for r in results]
    means = {}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows])
        values = values[np.isfinite(values)]
        means[name] = float(values.mean()) if len(values) else math.nan
    return means
