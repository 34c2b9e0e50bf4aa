"""One clock for a whole run: what is left of `time_limit_s`, and what it cut short; and who is told of its phases."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

#: A phase that ends this near to its limit was ended by the clock.
NEAR_S = 0.05


@dataclass(slots=True)
class Clock:
    """Seconds of a run.

    Args:
        limit_s: for everything: first placement, solver, bound, verification, repairs.
        cut: phases that ended because time was up: their results depend on the speed of the machine.
    """

    limit_s: float
    began: float = field(default_factory=time.perf_counter)
    cut: dict[str, None] = field(default_factory=dict)

    @property
    def deadline(self) -> float:
        """In `time.perf_counter()`."""
        return self.began + self.limit_s

    def spent_s(self) -> float:
        return time.perf_counter() - self.began

    def left_s(self, share: float = 1.0) -> float:
        """Seconds of what is left that a phase may take, at least a little."""
        return max(0.1, share * (self.deadline - time.perf_counter()))

    def part_s(self, share: float) -> float:
        """This share of the whole limit, at most what is left."""
        return min(self.left_s(), max(0.1, share * self.limit_s))

    def out_of_time(self) -> bool:
        return time.perf_counter() >= self.deadline

    def note(self, phase: str, took_s: float, limit_s: float) -> None:
        """Remembers a phase that took all it was given."""
        if took_s >= limit_s - NEAR_S:
            self.cut[phase] = None


class Progress(Protocol):
    """Where the job says how far it is; see `placement.report.progress`."""

    def stage(self, text: str) -> AbstractContextManager[Advance]: ...


class Advance(Protocol):
    """Called with (done, total)."""

    def __call__(self, done: int, total: int) -> None: ...
