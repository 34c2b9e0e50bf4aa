"""The best placement so far of a solver that also proves a bound, its clock, and the report at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from placement.problem import timing
from placement.problem.problem import Placement, PlacementProblem, evaluate, violations
from placement.problem.solver import SolveReport, relative_gap
from placement.solvers.fleets import cheapest, may_be_cheaper
from placement.solvers.local_search import improve
from placement.solvers.search_state import state_of

if TYPE_CHECKING:
    from placement.solvers.aggregate import Aggregate

#: A gap up to here is none: the placement is optimal under the planning model.
OPTIMAL_GAP = 1e-6
#: Local search of one placement takes at most so many seconds, and this share of the time left.
MOST_IMPROVING_S, IMPROVING_SHARE = 2.0, 0.3


@dataclass(slots=True)
class Incumbent:
    """State of one call of `solve`.

    Args:
        origin: how the best placement was made.
        packed: the solver's own model gave a placement, the best one or not.
        interrupted: Ctrl-C arrived.
        details: figures for the report.
    """

    problem: PlacementProblem
    time_limit_s: float
    began: float = field(default_factory=lambda: timing.now())
    placement: Placement | None = None
    objective: float = np.inf
    origin: str = ""
    packed: bool = False
    interrupted: bool = False
    details: dict[str, float | str] = field(default_factory=dict)

    def left_s(self) -> float:
        return self.began + self.time_limit_s - timing.now()

    def late(self) -> bool:
        """Whether the time is up; then something was cut short."""
        return timing.up(self.began + self.time_limit_s, "search")

    def offer(self, placement: Placement, origin: str) -> None:
        """Keeps a placement if it breaks no rule and is the best so far."""
        if violations(self.problem, placement):
            return
        value = evaluate(self.problem, placement)[0]
        if value < self.objective:
            self.placement, self.objective, self.origin = placement, value, origin

    def improve(self, placement: Placement, origin: str, *, seed: int) -> None:
        """Offers what local search makes of a placement, on the true features of the items and the true terms."""
        limit = timing.now() + min(MOST_IMPROVING_S, max(0.0, IMPROVING_SHARE * self.left_s()))
        if may_be_cheaper(self.problem):
            placement = cheapest(self.problem, placement, seed=seed, deadline=limit)
            self.offer(placement, f"{origin} and cheaper fleets")
        state = state_of(self.problem, placement)
        if improve(state, np.random.default_rng(seed), deadline=limit, max_rounds=4):
            self.offer(state.placement(), f"{origin} and local search")

    def meets(self, bound: float | None, target_gap: float) -> bool:
        """Whether the best placement is within a gap of a bound."""
        gap = relative_gap(self.objective, bound)
        return gap is not None and gap <= target_gap

    def count(self, name: str, amount: float = 1.0) -> None:
        """Adds to a figure of the report."""
        self.details[name] = float(self.details.get(name, 0.0)) + amount

    def report(self, solver: str, aggregate: Aggregate | None, *, infeasible: bool) -> SolveReport:
        """The report of a solver whose bound is the class model's.

        Args:
            aggregate: None if the call was interrupted before there was one.
            infeasible: proven that no placement exists; without effect if there is one.
        """
        found = self.placement is not None
        infeasible = infeasible and not found
        # What is proven of the pieces is not proven of a planning model that they only approximate.
        exact = self.problem.model is None
        bound = None if aggregate is None or not exact else aggregate.bound
        infeasible = infeasible and exact
        if bound is not None:
            self.details["proven"] = bound
        if found and bound is not None:
            # a placement may use the tolerance of `violations`, which the bound does not know
            bound = min(bound, self.objective)
        if aggregate is not None:
            self.details |= {
                "classes": float(len(aggregate.classes)),
                "bound_from": aggregate.bound_from,
                "lp_value": aggregate.lp_value,
            }
        if found:
            self.details["construction"] = self.origin
        optimal = infeasible or (found and self.meets(bound, OPTIMAL_GAP))
        return SolveReport(
            status="feasible" if found else "infeasible" if infeasible else "no_solution",
            termination="interrupted"
            if self.interrupted
            else "optimal"
            if optimal
            else "time_limit"
            if self.left_s() <= 0
            else "gap",
            placement=self.placement,
            objective=self.objective if found else float("nan"),
            bound=bound,
            gap=relative_gap(self.objective, bound) if found else None,
            runtime_s=timing.now() - self.began,
            solver=solver,
            details=self.details,
        )
