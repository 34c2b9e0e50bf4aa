"""One window on its own: did it keep a rule, or break it by more than chance explains?

A window is a sample. At the limit itself (1 % of the requests late) every second window of a busy GPU lies above it,
and a window with five requests cannot show less than 20 %. So a window counts as *bad* only where its late requests
would come with a probability below `CHANCE` if the limit held exactly.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtrc

from twin.figures.prediction import BACKLOGGED
from twin.figures.result import SimulationResult
from twin.wording import percent

#: A window is bad if chance explains it with less than this probability, and its normal quantile.
CHANCE, CHANCE_Z = 0.01, 2.3263478740408408
#: Requests that wait, on average over the last minute of an hour, below which nobody waits for service.
WAITING = 0.5


def too_many_late(result: SimulationResult, share: float) -> str:
    """Whether more requests are late than chance explains where `share` of them may be; why, or empty."""
    decided = int(result.counts.sum())
    late = round(result.row["late_fraction"] * decided)
    if late == 0 or float(bdtrc(late - 1, decided, share)) >= CHANCE:
        return ""
    return f"{percent(late / decided)} of {decided} requests late"


def adapters_too_late(result: SimulationResult, share: float) -> str:
    """Whether adapters, weighted equally, are late for more of their requests than chance explains; why, or empty."""
    counts = result.counts[result.counts > 0]
    if not len(counts):
        return ""
    deviation = math.sqrt(share * (1 - share) * float((1.0 / counts).sum())) / len(counts)
    late = result.row["adapter_late_fraction"]
    if late <= share + CHANCE_Z * deviation:
        return ""
    return f"adapters late for {percent(late)} of their requests on average"


def served_or_in_service(result: SimulationResult) -> float:
    """Throughput / ideal, or 1 where no request waits at the end of the window.

    Requests in flight at the end count as not served, but for lack of time, not of throughput: where few requests
    arrive, or long ones, or in a short window, that would be a tenth on an idle GPU as well.
    """
    waiting = float(result.waiting_series[-1]) if len(result.waiting_series) else math.inf
    served = float(result.row["served_fraction"])
    return 1.0 if waiting < WAITING and np.isfinite(served) else served


def starved(result: SimulationResult, threshold: float) -> str:
    """Whether the throughput is below `threshold` of the ideal; why, or empty."""
    served = served_or_in_service(result)
    return "" if np.isfinite(served) and served >= threshold else f"throughput {percent(served)} of the ideal"


def queue_grows(result: SimulationResult) -> str:
    """Whether the waiting queue grows significantly, unless `starved`; why, or empty."""
    return "the waiting queue grows" if result.row["queue"] == BACKLOGGED else ""


def trials_without_failure(share: float, error: float) -> int:
    """Fewest trials, all good, that rule out a share of bad ones of `share` or more at this error probability.

    `(1 - share)^n <= error`: 29 for 10 % at 0.05, 59 for 5 %, 135 for 5 % at 0.001.
    """
    return math.ceil(math.log(error) / math.log1p(-share) - 1e-12)
