"""CP-SAT solver: settings and bound from the relaxation, classes on concrete GPUs in integers (OR-Tools)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from placement.problem.objectives import relaxed_terms
from placement.problem.problem import Placement, PlacementProblem
from placement.problem.solver import Capabilities, SolveReport
from placement.solvers.capabilities import SHEET, refuse
from placement.solvers.dealing import deal
from placement.solvers.greedy import Greedy
from placement.solvers.incumbent import Incumbent

if TYPE_CHECKING:
    from placement.solvers.aggregate import Aggregate
    from placement.solvers.settings import Relaxation

Indices = NDArray[np.int64]

#: Windows around the even split (None = free) and room kept for unlike class members, in the order tried.
LADDER: tuple[tuple[int | None, float], ...] = ((1, 0.003), (3, 0.003), (3, 0.0), (None, 0.0))


@dataclass(frozen=True, slots=True)
class CpSat:
    """Assigns classes to concrete GPUs under conservatively rounded facets.

    1. Bound and engine settings from the aggregate relaxation (`placement.solvers.aggregate`, `.settings`).
    2. Class counts per GPU: near-even domains first, then wider, then free; warm start as hint; load costs inside.
    3. Members dealt by name and repaired; local search on the true features.
    4. If no assignment is found or a gap is left, a greedy deal; it is returned if it is better, and
       `details["construction"]` says so.

    A MAX term is bounded and searched through the SUM term that it offers as its lower bound (`relaxed`); local
    search then works on the term itself.

    Args:
        target_gap: stop at this gap.
        effort: CP-SAT's deterministic time per assignment (about seconds), five times that where any assignment will
            do; ends the search before the clock does, which keeps results reproducible.
        workers: CP-SAT threads; more than one makes results depend on timing.
        seed: of search, repair and local search.
    """

    target_gap: float = 0.002
    effort: float = 2.0
    workers: int = 1
    seed: int = 0
    name: str = "cpsat"

    @property
    def capabilities(self) -> Capabilities:
        return SHEET["cpsat"]

    def solve(
        self, problem: PlacementProblem, *, time_limit_s: float, warm_start: Placement | None = None
    ) -> SolveReport:
        """See `placement.problem.solver.Solver`.

        Raises:
            InputError: if a term has neither a convex form nor a convex lower bound.
        """
        refuse(problem, self)
        # imported here: a refused problem pays for no solver
        from placement.problem.refuted import with_cuts
        from placement.solvers.aggregate import Aggregate

        run = Incumbent(problem, time_limit_s, details={"assignments": 0.0, "branches": 0.0})
        if warm_start is not None:
            run.offer(warm_start, "warm start")
        proving = replace(problem, terms=relaxed_terms(problem.terms))
        aggregate: Aggregate | None = None
        infeasible = False
        try:
            aggregate = Aggregate(proving)
            impossible = aggregate.prove(run.left_s()).status == "infeasible"
            if impossible:  # of the class means, which is not yet true of the items
                run.details["carried_share"], infeasible = aggregate.carried_share(run.left_s())
            run.interrupted |= aggregate.interrupted
            searches = [] if impossible else [aggregate]
            if problem.banned and not impossible:
                searches.insert(0, Aggregate(with_cuts(proving), aggregate.classes))
                searches[0].lp_value = aggregate.lp_value
            for search in searches:
                self._search(run, search, aggregate, warm_start)
                if run.placement is not None or run.interrupted or run.late():
                    break
            if not infeasible and not run.interrupted:
                self._greedy(run, aggregate)
        except KeyboardInterrupt:
            run.interrupted = True
        return run.report(self.name, aggregate, infeasible=infeasible)

    def _search(self, run: Incumbent, search: Aggregate, proven: Aggregate, warm_start: Placement | None) -> None:
        """Fleets in order of promise until one is filled well enough."""
        for fleet in self._fleets(run, search):
            if fleet.interrupted or run.interrupted:
                run.interrupted = True
                return
            self._fill(run, search, fleet, warm_start)
            if run.interrupted or run.meets(proven.bound, self.target_gap) or run.late():
                return

    def _fleets(self, run: Incumbent, search: Aggregate) -> Iterator[Relaxation]:
        """Settings to fill: the relaxation's own, then with more room, then with a GPU more, until one is filled."""
        from placement.solvers.settings import choose_settings, roomiest_settings

        fewest, cheapest = 0, -np.inf
        while True:
            filled = run.placement is not None
            gpus = 0
            for spare in (0.0,) if search.rows.cost_is_per_gpu else (0.0, 0.01, 0.03):
                limit = max(0.1, 0.3 * run.left_s())
                found = choose_settings(search, limit, spare=spare, fewest=fewest, cheapest=cheapest)
                if found.status != "feasible":
                    break
                gpus = max(gpus, round(float(found.y.sum())))
                yield found
            if gpus == 0 or (run.placement is not None and (search.rows.cost_is_per_gpu or not filled)):
                return
            if not search.rows.cost_is_per_gpu:
                yield roomiest_settings(search, gpus, max(0.1, 0.3 * run.left_s()))
                if run.placement is not None:
                    return
            fewest = gpus + 1
            if search.rows.cost_is_per_gpu and not search.rows.cost_is_count:
                fewest = 0
                cheapest = float(search.rows.r @ found.y) + 1e-6 * float(np.abs(search.rows.r).max())

    def _fill(self, run: Incumbent, search: Aggregate, fleet: Relaxation, warm_start: Placement | None) -> None:
        """CP-SAT at fixed settings, wider and wider, until members can be dealt."""
        from placement.solvers.assignment import SearchLimits, assign
        from placement.solvers.packing import domains

        if fleet.status != "feasible":
            return
        for window, reserve in LADDER:
            if search.classes.exact and (window, reserve) == (3, 0.003):
                continue
            reserve = 0.0 if search.classes.exact else reserve
            options, lower, upper = domains(search.classes, fleet.y, fleet.a, window)
            limits = SearchLimits(
                min(run.left_s(), max(0.5, 0.3 * run.left_s())),
                effort=self.effort * (5.0 if search.rows.cost_is_per_gpu else 1.0),
                workers=self.workers,
                seed=self.seed,
            )
            if run.late():
                return
            found = assign(
                search.problem,
                search.rows,
                search.classes,
                options,
                lower,
                upper,
                reserve=reserve,
                cost_unit=max(abs(fleet.value), 1e-9),
                hint=self._hint(search, fleet, options, warm_start),
                limits=limits,
            )
            run.count("assignments")
            run.count("branches", found.branches)
            run.interrupted |= found.interrupted
            if found.status == "found":
                placement = deal(
                    run.problem,
                    [m.tolist() for m in search.classes.members],
                    found.counts,
                    options.tolist(),
                    seed=self.seed,
                    time_limit_s=max(0.2, 0.3 * run.left_s()),
                )
                if placement is not None:
                    run.offer(placement, "assignment")
                    run.improve(placement, "assignment", seed=self.seed)
                    return
            if run.interrupted:
                return

    def _hint(self, search: Aggregate, fleet: Relaxation, options: Indices, warm_start: Placement | None) -> Indices:
        """Counts of the warm start if it uses the same settings, else the rounded even split."""
        if warm_start is not None and sorted(g.option for g in warm_start.gpus) == options.tolist():
            gpus = sorted(warm_start.gpus, key=lambda g: g.option)
            return np.stack(
                [np.bincount(search.classes.class_of[list(g.items)], minlength=len(search.classes)) for g in gpus]
            )
        even = (fleet.a / np.maximum(fleet.y, 1.0)).T[options]
        # cumulative rounding over the GPUs of a setting keeps each class's total
        hint = np.zeros(even.shape, dtype=np.int64)
        for o in np.unique(options):
            own = options == o
            hint[own] = np.diff(np.round(np.cumsum(even[own], axis=0)), axis=0, prepend=0).astype(np.int64)
        return hint

    def _greedy(self, run: Incumbent, proven: Aggregate) -> None:
        """A greedy deal where no assignment was found, or one that leaves a gap; `construction` says which one won."""
        if run.placement is not None and (run.meets(proven.bound, self.target_gap) or run.late()):
            return
        dealt = Greedy(seed=self.seed, local_search=False).solve(run.problem, time_limit_s=max(1.0, run.left_s()))
        if dealt.placement is not None:
            run.offer(dealt.placement, "greedy deal")
            run.improve(dealt.placement, "greedy deal", seed=self.seed)
