"""MILP solver: certified bound, settings with the most headroom, packing, dealing (Pyomo and HiGHS)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from placement.problem import timing
from placement.problem.problem import Placement, PlacementProblem
from placement.problem.refuted import refuted_by_rules, with_cuts
from placement.problem.solver import Capabilities, SolveReport
from placement.solvers.aggregate import Aggregate
from placement.solvers.capabilities import SHEET, refuse
from placement.solvers.dealing import deal
from placement.solvers.greedy import Greedy
from placement.solvers.incumbent import Incumbent
from placement.solvers.packing import pack
from placement.solvers.settings import PRICE_STEP, Relaxation, choose_settings, roomiest_settings


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to pack: window around the even split, reserve for unlike members, rules broken at a price or not."""

    window: int | None
    reserve: float
    elastic: bool


#: In the order in which they are tried. Strict packings are found at once or not at all; elastic ones leave small
#: excesses that dealing repairs.
COUNT_LADDER = (
    Rung(1, 0.003, False),
    Rung(3, 0.003, False),
    Rung(2, 0.0, True),
    Rung(1, 0.0, False),
    Rung(None, 0.0, True),
)
COST_LADDER = (Rung(2, 0.0, True), Rung(3, 0.003, True), Rung(None, 0.0, True))
#: Spare demand that the settings are chosen for, in the order tried, if the objective has load costs.
SPARES = (0.0, 0.01, 0.03)
#: Share of the time left that a greedy placement may take where packing left a gap.
GREEDY_SHARE = 0.3
#: Share of the gap that a finer bound must be able to close to be computed.
WORTHWHILE = 0.3
#: Share of the time limit that is kept for a greedy deal as long as nothing is packed.
RESERVED = 0.2
#: Shares of the time left for choosing settings, and for everything that is tried with them.
SETTINGS = 0.3
PER_FLEET = 0.4
#: Price of breaking a rule by one GPU, in average GPU costs.
EXCESS_COST = 100.0


class _Interrupted(Exception):
    """Ctrl-C arrived while HiGHS was running."""


@dataclass(frozen=True, slots=True)
class MilpSolver:
    """Proves a bound, then builds a placement down to it.

    1. Linear program over setting counts and classes -> price-list bound (`placement.solvers.certificate`).
    2. Whole GPUs per setting: most headroom at the bound's GPU count, or least cost (`placement.solvers.settings`).
    3. Whole class members per GPU near the even split (`placement.solvers.packing`), objective inside.
    4. Members dealt by name, repaired, improved; one GPU more if nothing fits.

    If no packing is found in time, a greedy deal is returned and `details["construction"]` says so.

    Args:
        target_gap: stop looking for better placements at this gap.
        seed: of repair and local search.
    """

    target_gap: float = 0.002
    seed: int = 0
    name: str = "milp"

    @property
    def capabilities(self) -> Capabilities:
        return SHEET["milp"]

    def solve(
        self, problem: PlacementProblem, *, time_limit_s: float, warm_start: Placement | None = None
    ) -> SolveReport:
        """See `placement.problem.solver.Solver`.

        Raises:
            InputError: if a term is not a sum of convex loads.
        """
        refuse(problem, self)
        run = Incumbent(problem, time_limit_s, details={"packings": 0.0})
        if warm_start is not None:
            run.offer(warm_start, "warm start")
        aggregate: Aggregate | None = None
        infeasible = False
        try:
            aggregate = Aggregate(problem)
            first = aggregate.prove(run.left_s(), refinements=0)
            if first.interrupted:
                raise _Interrupted
            if first.status == "infeasible":
                share, infeasible = aggregate.carried_share(run.left_s())
                run.details["carried_share"] = share
            else:
                # the bound first: searching stops where a placement meets it. After a refutation the bound that
                # counts is already known; and where the planning model is not linear, it is that of other pieces.
                if not problem.banned and problem.model is None:
                    aggregate.refine(0.25 * run.left_s())
                self._search(run, aggregate)
                if run.placement is not None and problem.model is None and not self._done(run, aggregate):
                    self._compare(run)
                if self._worth_refining(run, aggregate):
                    aggregate.refine(run.left_s(), rounds=2)
                if aggregate.interrupted:
                    raise _Interrupted
            if run.placement is None and not infeasible:
                self._construct(run)
        except (KeyboardInterrupt, _Interrupted):
            run.interrupted = True
        return run.report(self.name, aggregate, infeasible=infeasible)

    def _search(self, run: Incumbent, aggregate: Aggregate) -> None:
        """Settings, packing, dealing."""
        searches = [aggregate]
        if not refuted_by_rules(run.problem):
            # first with facets cut behind the refuted columns, then with the refuted columns alone excluded
            searches.insert(0, Aggregate(with_cuts(run.problem), aggregate.classes))
            searches[0].lp_value = aggregate.lp_value
        for search in searches:
            for settings in self._settings(run, search):
                if settings.interrupted:
                    raise _Interrupted
                if settings.status != "feasible":
                    break
                self._pack(run, search, settings)
                if self._done(run, aggregate) or _late(run):
                    return
            if run.packed:
                break

    def _settings(self, run: Incumbent, search: Aggregate) -> Iterator[Relaxation]:
        """Settings worth packing, best first. More are asked for only while nothing is packed."""
        if search.rows.cost_is_per_gpu:
            fewest, cheapest = 0, -np.inf
            while not run.packed:
                found = choose_settings(search, SETTINGS * run.left_s(), fewest=fewest, cheapest=cheapest)
                yield found
                cost = float(search.rows.r @ found.y)
                fewest = round(float(found.y.sum())) + 1 if search.rows.cost_is_count else 0
                cheapest = cost + PRICE_STEP * float(np.abs(search.rows.r).max())
                if cost >= run.objective:  # a warm start is at least as good as what would come next
                    return
            return
        fewest = 0
        while not run.packed:
            gpus = 0
            for spare in SPARES:
                found = choose_settings(search, SETTINGS * run.left_s(), spare=spare, fewest=fewest)
                gpus = max(gpus, round(float(found.y.sum())))
                if found.status != "feasible" and spare > 0:
                    break
                yield found
                if run.placement is not None:
                    return
                if not run.packed:
                    yield replace(roomiest_settings(search, gpus, SETTINGS * run.left_s()), value=found.value)
                if not run.packed:
                    break
            fewest = gpus + 1

    def _pack(self, run: Incumbent, search: Aggregate, settings: Relaxation) -> None:
        """Packs and deals at fixed settings; the first feasible rung of the ladder counts."""
        roomy = search.rows.cost_is_per_gpu or np.isfinite(settings.headroom)
        ladder = COUNT_LADDER if roomy else COST_LADDER
        price = EXCESS_COST * max(settings.value, 1e-9) / max(float(settings.y.sum()), 1.0)
        fleet_deadline = timing.now() + PER_FLEET * run.left_s()
        for rung in ladder:
            if search.classes.exact and rung.reserve > 0 and not rung.elastic:
                continue
            packing = pack(
                search.problem,
                search.rows,
                search.classes,
                settings.y,
                settings.a,
                window=rung.window,
                reserve=rung.reserve,
                time_limit_s=max(0.1, 0.15 * run.left_s()),
                excess_cost=price if rung.elastic else None,
                relative_gap=self.target_gap,
            )
            run.count("packings")
            if packing.interrupted and packing.status != "packed":
                raise _Interrupted
            if packing.status == "packed":
                placement = deal(
                    run.problem,
                    [m.tolist() for m in search.classes.members],
                    packing.counts,
                    packing.options.tolist(),
                    seed=self.seed,
                    time_limit_s=max(0.2, 0.15 * run.left_s()),
                )
                if placement is not None:
                    run.offer(placement, "packing")
                    run.packed = True
                    run.details["window"] = "free" if rung.window is None else float(rung.window)
                    run.details["headroom"] = settings.headroom
                    if not search.rows.cost_is_per_gpu:
                        run.improve(placement, "packing", seed=self.seed)
                    if packing.interrupted:
                        raise _Interrupted
                    return
            if _late(run) or timing.up(fleet_deadline, "packings of a fleet"):
                return

    def _compare(self, run: Incumbent) -> None:
        """A greedy placement with local search, kept if it is better: packing near the even split can miss it."""
        report = Greedy(seed=self.seed).solve(run.problem, time_limit_s=max(0.5, GREEDY_SHARE * run.left_s()))
        if report.placement is not None:
            run.offer(report.placement, "greedy deal and local search")

    def _construct(self, run: Incumbent) -> None:
        """Greedy deal without a bound of its own, if nothing could be packed."""
        report = Greedy(seed=self.seed, local_search=False).solve(run.problem, time_limit_s=max(1.0, run.left_s()))
        if report.placement is not None:
            run.offer(report.placement, "greedy deal")

    def _done(self, run: Incumbent, aggregate: Aggregate) -> bool:
        return run.meets(aggregate.bound, self.target_gap)

    def _worth_refining(self, run: Incumbent, aggregate: Aggregate) -> bool:
        """Whether finer classes could close a good part of the gap that is left."""
        if run.placement is None or run.problem.banned or self._done(run, aggregate) or aggregate.bound is None:
            return False
        if run.problem.model is not None:
            return False
        return aggregate.unproven >= WORTHWHILE * (run.objective - aggregate.bound)


def _late(run: Incumbent) -> bool:
    """Time to stop: up, or so little left that a greedy deal needs it."""
    kept = RESERVED * run.time_limit_s if run.placement is None else 0.0
    return timing.up(run.began + run.time_limit_s - kept, "milp")
