"""One clock for a whole run: what is left of `time_limit_s`, and what it cut short; and who is told of its phases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from placement.problem import timing


@dataclass(slots=True)
class Clock:
    """Seconds of a run.

    Args:
        limit_s: for everything: first placement, solver, bound, verification, repairs.
        cut: phases that ended because time was up: their results depend on the speed of the machine.
    """

    limit_s: float
    began: float = field(default_factory=lambda: timing.now())
    cut: dict[str, None] = field(default_factory=dict)

    @property
    def deadline(self) -> float:
        """In `timing.now()`."""
        return self.began + self.limit_s

    def spent_s(self) -> float:
        return timing.now() - self.began

    def left_s(self, share: float = 1.0) -> float:
        """Seconds of what is left that a phase may take, at least a little."""
        return max(0.1, share * (self.deadline - timing.now()))

    def part_s(self, share: float) -> float:
        """This share of the whole limit, at most what is left."""
        return min(self.left_s(), max(0.1, share * self.limit_s))

    def out_of_time(self) -> bool:
        return timing.now() >= self.deadline

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Remembers a phase in which the clock ended anything."""
        with timing.cuts() as found:
            try:
                yield
            finally:
                if found:
                    self.cut[name] = None


class Progress(Protocol):
    """Where the job says how far it is; see `placement.report.progress`."""

    def stage(self, text: str) -> AbstractContextManager[Advance]: ...


class Advance(Protocol):
    """Called with (done, total)."""

    def __call__(self, done: int, total: int) -> None: ...
