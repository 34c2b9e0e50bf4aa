"""How much more than its mean a workload asks for at its busiest: what one rate an adapter cannot say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.wording import counted, number
from twin.workload.rates import level
from twin.workload.workload import Workload

#: Windows of a recording: an hour, or a twelfth of a shorter one.
WINDOW_S, PARTS = 3600.0, 12


@dataclass(frozen=True, slots=True)
class PeakToMean:
    """The largest rate over the mean rate.

    Args:
        ratio: of the busiest window of a recording, all adapters together; or of the adapter whose rate changes most.
        window_s: length of the window, recorded seconds; None for rates that follow a process.
        changing: adapters whose rates change.
    """

    ratio: float
    window_s: float | None
    changing: int

    def __str__(self) -> str:
        if self.window_s is not None:
            length = f"{self.window_s / 3600:.3g} h" if self.window_s >= 3600 else f"{self.window_s / 60:.3g} min"
            return f"peak / mean of the recorded requests: {number(self.ratio)} (the busiest {length})"
        return (
            f"peak / mean of the rates: up to {number(self.ratio)} ({counted(self.changing, 'adapter')} change theirs)"
        )


def peak_to_mean(workload: Workload) -> PeakToMean | None:
    """The peak of a workload whose rates are known to change; None where they are not."""
    recording = workload.recording
    if recording is not None and len(recording) > 1 and recording.span_s > 0:
        span_s = recording.span_s
        parts = max(PARTS, round(span_s / WINDOW_S))
        since = recording.log.time_s - recording.log.time_s.min()
        sent = np.bincount(np.minimum((since / span_s * parts).astype(np.int64), parts - 1), minlength=parts)
        changing = len(np.unique(recording.log.adapter))
        return PeakToMean(float(sent.max() / sent.mean()), span_s / parts, changing)
    ratios = [level(p, "peak") / level(p, "mean") for a in workload.adapters if (p := a.rate_process) is not None]
    return PeakToMean(max(ratios), None, len(ratios)) if ratios else None
