"""Several solvers under one clock, each starting from the best placement so far; the default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from placement.problem import timing
from placement.problem.objectives import GpuCount
from placement.problem.problem import Placement, PlacementProblem, evaluate, violations
from placement.problem.solver import Capabilities, Solver, SolveReport, relative_gap
from placement.solvers.capabilities import SHEET, refuse, unsupported
from placement.solvers.fleets import cheapest, may_be_cheaper
from placement.solvers.greedy import Greedy, with_side_term
from placement.solvers.milp import MilpSolver
from placement.solvers.perturb import iterate
from placement.solvers.search_state import state_of
from twin.config.ranges import Range, check_fields

#: Shares of the time left for the milp, and for each greedy.
MILP, GREEDY = 0.5, 0.5


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Greedy, then the milp from its placement, then kicks from the best of both.

    The milp chooses settings and counts from the linear pieces, which sees combinations that no exchange reaches; local
    search on the planning model itself finishes. Terms that the milp does not take are left to the others.

    Args:
        target_gap: of the milp.
        effort: columns that the planning model is asked for in the kicks at the end, in thousands.
        seed: of everything random.
    """

    target_gap: float = 0.002
    effort: Annotated[float, Range(0, 1e6)] = 30.0
    seed: int = 0
    name: str = "portfolio"

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"solver.{name}")

    @property
    def capabilities(self) -> Capabilities:
        return SHEET["portfolio"]

    def solve(
        self, problem: PlacementProblem, *, time_limit_s: float, warm_start: Placement | None = None
    ) -> SolveReport:
        """See `placement.problem.solver.Solver`."""
        refuse(problem, self)
        began = timing.now()
        deadline = began + time_limit_s
        found: list[tuple[float, Placement, str]] = []
        reports: list[SolveReport] = []
        interrupted = False

        def offer(placement: Placement | None, origin: str) -> None:
            if placement is not None and not violations(problem, placement):
                found.append((evaluate(problem, placement)[0], placement, origin))

        offer(warm_start, "warm start")
        counts = all(isinstance(t, GpuCount) for t in problem.terms)
        try:
            solvers: list[Solver] = [
                Greedy(seed=self.seed, effort=self.effort / 6),
                MilpSolver(self.target_gap, self.seed),
            ]
            for solver, share in zip(solvers, (GREEDY, MILP), strict=True):
                if unsupported(problem, solver.capabilities) or timing.up(deadline, solver.name):
                    continue
                # Where GPUs count the milp stops at what is known; else it is to find another valley.
                start = min(found, key=lambda f: f[0])[1] if found and (counts or solver.name != "milp") else None
                limit_s = max(0.2, share * (deadline - timing.now()))
                report = solver.solve(problem, time_limit_s=limit_s, warm_start=start)
                reports.append(report)
                offer(report.placement, f"{solver.name}: {report.details.get('construction', 'local search')}")
                if report.termination == "interrupted":
                    raise KeyboardInterrupt
            if found and may_be_cheaper(problem):
                known = min(found, key=lambda f: f[0])[1]
                offer(cheapest(problem, known, seed=self.seed, deadline=deadline), "cheaper fleets")
            self._kick(problem, found, reports, deadline, offer)
        except KeyboardInterrupt:
            interrupted = True
        return self._report(found, reports, interrupted=interrupted, began=began, deadline=deadline)

    def _kick(
        self,
        problem: PlacementProblem,
        found: list[tuple[float, Placement, str]],
        reports: list[SolveReport],
        deadline: float,
        offer: Callable[[Placement | None, str], None],
    ) -> None:
        """Iterated local search from the best placement of each solver, then from the best of these."""
        counts = all(isinstance(t, GpuCount) for t in problem.terms)
        work = int(1000 * self.effort / (12 if counts else 3))
        starts = sorted(found, key=lambda f: f[0])[: 1 if counts else 2]
        for turn in range(len(starts) + 1):
            if not found or self._settled(problem, found, reports) or timing.up(deadline, "kicks"):
                return
            start = starts[turn][1] if turn < len(starts) else min(found, key=lambda f: f[0])[1]
            state = state_of(with_side_term(problem), start)
            rng = np.random.default_rng([self.seed, 2, turn])
            offer(iterate(state, rng, work=work, deadline=deadline).placement(), "kicks")

    def _settled(
        self, problem: PlacementProblem, found: list[tuple[float, Placement, str]], reports: list[SolveReport]
    ) -> bool:
        """Whether nothing better can be found: a bound is met, and the objective has no ties worth breaking."""
        bounds = [r.bound for r in reports if r.bound is not None]
        gap = relative_gap(min(f[0] for f in found), max(bounds, default=None))
        counts = all(isinstance(t, GpuCount) for t in problem.terms)
        return gap is not None and gap <= (1e-9 if counts else self.target_gap) and not counts

    def _report(
        self,
        found: list[tuple[float, Placement, str]],
        reports: list[SolveReport],
        *,
        interrupted: bool,
        began: float,
        deadline: float,
    ) -> SolveReport:
        value, placement, origin = min(found, key=lambda f: f[0]) if found else (float("nan"), None, "")
        bound = max((r.bound for r in reports if r.bound is not None), default=None)
        infeasible = not found and any(r.status == "infeasible" for r in reports)
        details: dict[str, float | str] = {"construction": origin}
        for report in reports:
            details |= {f"{report.solver}_s": round(report.runtime_s, 3)}
        gap = relative_gap(value, bound) if found else None
        optimal = infeasible or (gap is not None and gap <= 1e-6)
        return SolveReport(
            status="feasible" if found else "infeasible" if infeasible else "no_solution",
            termination="interrupted"
            if interrupted
            else "optimal"
            if optimal
            else "time_limit"
            if timing.now() >= deadline
            else "gap",
            placement=placement,
            objective=value,
            bound=bound,
            gap=gap,
            runtime_s=timing.now() - began,
            solver=self.name,
            details=details,
        )
