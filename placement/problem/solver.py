"""What is asked of a solver: one protocol, what it supports, and the report that it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from placement.problem.problem import Placement, PlacementProblem


@dataclass(frozen=True, slots=True)
class SolveReport:
    """What a solver returns.

    Args:
        status: did it work? `feasible`, `infeasible` (proven under the planning model) or `no_solution`.
        termination: why it stopped.
        objective: of the placement, objective units; NaN without one.
        bound: lower bound on the objective for every placement under the planning model; None = none claimed.
        gap: (objective - bound) / |objective|, or None.
        details: solver figures for logs and benchmarks (nodes, iterations, headroom, ...).
    """

    status: Literal["feasible", "infeasible", "no_solution"]
    termination: Literal["optimal", "gap", "time_limit", "interrupted"]
    placement: Placement | None
    objective: float
    bound: float | None
    gap: float | None
    runtime_s: float
    solver: str
    details: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a solver supports (`placement.solvers.capabilities`); asked for something else it refuses.

    Args:
        bound: proves a lower bound.
        max_terms: takes MAX terms that offer a convex lower bound (`relaxed`); together with `non_convex_terms`, any.
        non_convex_terms: takes terms without a convex form.
        gpu_count_only: minimises the GPU count and needs a term for it; other terms are reported, not optimised.
        refuted_columns: keeps away from columns that the twin refuted.
        pins: keeps adapters that are pinned to single GPUs together, and apart from others.
    """

    bound: bool = False
    max_terms: bool = False
    non_convex_terms: bool = False
    gpu_count_only: bool = False
    refuted_columns: bool = True
    pins: bool = True


class Solver(Protocol):
    """Places items; the same protocol for all solvers."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def solve(
        self, problem: PlacementProblem, *, time_limit_s: float, warm_start: Placement | None = None
    ) -> SolveReport:
        """Solves a problem within a time limit; a warm start is a placement to begin with, feasible or not.

        Raises:
            InputError: the problem needs something that `capabilities` does not name.
        """
        ...


def relative_gap(objective: float | None, bound: float | None) -> float | None:
    """(objective - bound) / |objective|, clipped at 0; None without one of them."""
    if bound is None or objective is None or not np.isfinite(objective):
        return None
    return max(0.0, (objective - bound) / max(abs(objective), 1e-12))
