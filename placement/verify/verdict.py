"""What the twin says about the GPUs of a placement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from twin.figures.promises import Kept

#: `undecided`: the hours ended first. `untested`: no request arrived, so there was nothing to judge.
Decision = Literal["accepted", "refuted", "undecided", "untested"]
#: Reason of a GPU that stays undecided because the placement changes anyway.
NOT_JUDGED = "not judged further: another GPU is refuted"
#: Reason of a GPU whose hours could not all be simulated.
OUT_OF_TIME = "the time ended before enough hours were simulated (time_limit_s)"


@dataclass(frozen=True, slots=True)
class ColumnVerdict:
    """What the twin says about one GPU.

    Args:
        decision: see `Decision`; only `refuted` says that the GPU is known to break the rule.
        reason: what decided, or what is missing, in words; empty if accepted.
        seeds: of the windows simulated on this very GPU.
        simulated: metrics, means over its windows (fields of `twin.figures.prediction.Prediction`).
        hours: windows that the verdict rests on: its own and those of GPUs alike.
        bad_hours: those among them that broke the rule.
        window_s: length of a window in seconds: an hour, longer where hardly a request arrives.
        alike: GPUs that share the verdict, itself included.
        few_requests: adapters with too few requests to be judged one by one.
        promises: what was promised to each adapter and how much of it was used, its own windows together.
        deviations: standard deviations of the metrics over its windows; empty with fewer than two.
    """

    decision: Decision
    reason: str
    seeds: tuple[int, ...]
    simulated: dict[str, float]
    hours: int = 0
    bad_hours: int = 0
    window_s: float = 3600.0
    alike: int = 1
    few_requests: int = 0
    promises: tuple[Kept, ...] = ()
    deviations: dict[str, float] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return self.decision == "accepted"


@dataclass(frozen=True, slots=True)
class Peak:
    """One of the busiest windows of a workload whose rates change, on one GPU.

    Args:
        gpu: index of the GPU in the placement.
        recorded: whether these are the very requests of a recording, or drawn at the rates of that time.
        start_s: start of the window, seconds after the beginning of the recording or profile.
        window_s: its length; recorded seconds for a recording.
        requests: of this GPU's adapters in the window.
        peak_to_mean: their rate / the rate planned for on the GPU.
        broken: what the window breaks, in words; empty if it keeps the rule.
        figures: of the window (fields of `twin.figures.prediction.Prediction`).
    """

    gpu: int
    recorded: bool
    start_s: float
    window_s: float
    requests: int
    peak_to_mean: float
    broken: str
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Verification:
    """Verdicts of a placement's GPUs, in its order, and the busiest windows of a workload whose rates change."""

    gpus: tuple[ColumnVerdict, ...]
    peaks: tuple[Peak, ...] = ()

    @property
    def passed(self) -> bool:
        return all(v.accepted for v in self.gpus) and not any(p.broken for p in self.peaks)

    def having(self, *decisions: Decision) -> list[int]:
        """Indices of GPUs with one of these decisions."""
        return [k for k, v in enumerate(self.gpus) if v.decision in decisions]
