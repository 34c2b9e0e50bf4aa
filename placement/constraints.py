"""What "healthy" means for a GPU, as requirements that verification can test statistically.

`stable` (default): the queue does not grow and nearly all requests, of every adapter, get their first token within
the promise. `published`: throughput / ideal >= 0.90, the rule of the publications, for comparisons. The thresholds
live in `twin.figures.metrics` and `twin.figures.health`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.workload.adapter import Slo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from twin.simulation import SimulationResult

Array = NDArray[np.float64]

#: A queue that grows by less than this many requests an hour does not grow.
DRIFT_REQUESTS, DRIFT_SHARE = 10.0, 0.01


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
    def rule(self) -> str:
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


def _column(results: Sequence[SimulationResult], name: str) -> Array:
    return np.array([r.row[name] for r in results])


def _check_margin(margin: float | None) -> None:
    if margin is not None and not 0 <= margin < 1:
        raise InputError(f"margin {margin!r} is outside [0, 1)", remedy="use e.g. 0.05, or null for the model's own")


@dataclass(frozen=True, slots=True)
class Stable:
    """Queue stable, at most `late_share` of all requests and on average `adapter_late_share` of an adapter's late.

    Args:
        slo: TTFT promise of adapters without their own.
        late_share: most requests later than their promise, share of all.
        adapter_late_share: the same per adapter, adapters weighted equally.
        margin: overrides the planning model's margin.
    """

    slo: Slo = field(default_factory=Slo)
    late_share: float = 0.01
    adapter_late_share: float = 0.05
    margin: float | None = None

    def __post_init__(self) -> None:
        for name in ("late_share", "adapter_late_share"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)!r} is not a share in (0, 1)", remedy="use e.g. 0.01")
        _check_margin(self.margin)

    @property
    def rule(self) -> str:
        return "stable"

    def requirements(self, results: Sequence[SimulationResult]) -> list[Requirement]:
        from twin.figures.metrics import STARVATION_THRESHOLD

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
            Requirement("throughput / ideal", _column(results, "served_fraction"), STARVATION_THRESHOLD, False),
        ]

    def broken(self, results: Sequence[SimulationResult]) -> str:
        from twin.figures.health import starving_adapters

        counts = np.sum([r.counts for r in results], axis=0)
        late = np.sum([r.late_counts for r in results], axis=0)
        starving = starving_adapters(counts, late)
        if not len(starving):
            return ""
        worst = int(starving[np.argmax(late[starving] / counts[starving])])
        return f"{len(starving)} adapters starve, the worst with {late[worst]} of {counts[worst]} requests late"


@dataclass(frozen=True, slots=True)
class Published:
    """Throughput / ideal >= 0.90 over the window; tolerates a growing queue.

    Args:
        slo: only decides what is reported as late.
        margin: overrides the planning model's margin.
    """

    slo: Slo = field(default_factory=Slo)
    margin: float | None = None

    def __post_init__(self) -> None:
        _check_margin(self.margin)

    @property
    def rule(self) -> str:
        return "published"

    def requirements(self, results: Sequence[SimulationResult]) -> list[Requirement]:
        from twin.figures.metrics import STARVATION_THRESHOLD

        return [Requirement("throughput / ideal", _column(results, "served_fraction"), STARVATION_THRESHOLD, False)]

    def broken(self, results: Sequence[SimulationResult]) -> str:
        return ""
