"""What "does not starve" means: the rules `stable` and `published`.

`published` is the rule of the publications: throughput / ideal >= 0.90. It tolerates a growing queue: real runs
between 0.90 and 0.96 have mean TTFTs of minutes. `stable` therefore asks that the queue does not drift and that
nearly all requests, of every adapter, get their first token within its SLO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from twin.figures.metrics import STARVATION_THRESHOLD
from twin.figures.prediction import STABLE
from twin.simulation import SimulationResult

#: Most late requests overall, and of an adapter (adapters weighted equally).
MAX_LATE_SHARE, MAX_ADAPTER_LATE_SHARE = 0.01, 0.05
#: An adapter with few requests is judged late only if chance explains it with less than this probability
#: (divided by the number of adapters).
FEW_REQUESTS_CONFIDENCE = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a column is healthy, and the rule that it breaks first (empty if none)."""

    healthy: bool
    reason: str


def starving_adapters(counts: NDArray[np.int64], late_counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of adapters that are late beyond `MAX_ADAPTER_LATE_SHARE` with confidence; pooled counts (A,)."""
    judged = counts > 0
    tail = np.ones(len(counts))
    tail[judged] = binom.sf(late_counts[judged] - 1, counts[judged], MAX_ADAPTER_LATE_SHARE)
    return np.flatnonzero(judged & (late_counts > 0) & (tail < FEW_REQUESTS_CONFIDENCE / max(1, int(judged.sum()))))


def stable(results: Sequence[SimulationResult]) -> Verdict:
    """Rule `stable` over one or more seeds of one column (requests of all seeds pooled)."""
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
    return Verdict(True, "")


def published(results: Sequence[SimulationResult]) -> Verdict:
    """Rule `published` over one or more seeds of one column (mean served fraction)."""
    served = float(np.mean([r.row["served_fraction"] for r in results]))
    if served < STARVATION_THRESHOLD:
        return Verdict(False, f"throughput is {100 * served:.1f} % of the ideal")
    return Verdict(True, "")


RULES = {"stable": stable, "published": published}
