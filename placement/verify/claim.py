"""What a verdict claims, and how many simulated hours the claim takes.

A mean over a few hours proves little about a GPU that is fine for nine hours and collapses in the tenth: until the bad
hour is seen, the hours have no spread. So the claim is one about hours: *a GPU on which `bad_hours` of the hours (or
more) break the rule is accepted with a probability of at most `error`*. It needs no law of the figures, only
independent hours. Beside it, means must lie within their limits by Student's t, which catches what is a little too much
in every hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from twin.confidence.sequential import success_boundary
from twin.confidence.shares import allowed_failures
from twin.config.ranges import Range, check, check_fields
from twin.figures.window import trials_without_failure
from twin.wording import counted, percent

#: Hours after which a GPU may be refuted before it could be accepted; hopeless ones cost no more.
EARLY_LOOKS = (3, 12)
#: Probability that a GPU is called refuted though no more than `bad_hours` of its hours are bad.
REFUTE_ERROR = 0.01


@dataclass(frozen=True)
class Claim:
    """What is claimed of every accepted GPU, and the hours at which it is looked at.

    Args:
        name: of the level, for people.
        bad_hours: share of hours that break the rule.
        error: probability that a GPU with that share, or more, is accepted, in whichever round of verifying and solving
            again: a GPU that comes back nearly unchanged gets no second chance.
        hours: of the first look that may accept.
        max_hours: of the last look; hours double from look to look, and a few more may be bad.
        rounds: most rounds, which share the error equally.
    """

    name: str
    bad_hours: Annotated[float, Range(above=0, below=1, hint="a share of hours, e.g. 0.1")]
    error: Annotated[float, Range(above=0, below=0.5, hint="a probability, e.g. 0.05")]
    hours: int
    max_hours: int
    rounds: int = 1

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"verify.{name}")
        least = trials_without_failure(self.bad_hours, self.error / self.rounds)
        shared = f", shared by {counted(self.rounds, 'round')}," if self.rounds > 1 else ""
        why = (
            f"{least} good hours are the fewest that prove anything with verify.bad_hours={self.bad_hours:g} and "
            f"verify.error={self.error:g}{shared} which may be raised"
        )
        check(self.hours, "verify.hours", Range(least, max(10_000, least), whole=True, hint=why))
        check(self.max_hours, "verify.max_hours", Range(self.hours, 100_000, whole=True, hint="at least verify.hours"))

    @property
    def confidence(self) -> float:
        return 1 - self.error

    def looks(self, least: int = 0) -> tuple[int, ...]:
        """Hours at which a GPU may be accepted: `hours`, twice that, ..., `max_hours`; none below `least`."""
        counts = [max(self.hours, least)]
        while counts[-1] < self.max_hours:
            counts.append(min(2 * counts[-1], self.max_hours))
        return tuple(counts)

    def allowed(self, looks: tuple[int, ...]) -> tuple[int, ...]:
        """Most bad hours at each look with which a GPU may be accepted; -1 = none may."""
        return allowed_failures(self.bad_hours, self.error / self.rounds, looks)

    @cached_property
    def _refuting(self) -> tuple[int, ...]:
        return success_boundary(self.bad_hours, REFUTE_ERROR, 400)

    def refuting(self, hours: int) -> int:
        """Fewest bad hours among so many that prove more than `bad_hours` of all hours to be bad."""
        return self._refuting[min(hours, len(self._refuting)) - 1] if hours else 1

    @property
    def text(self) -> str:
        return (
            f"a GPU on which {percent(self.bad_hours)} of the hours or more break the rule would be accepted with a "
            f"probability of at most {percent(self.error)}"
        )
