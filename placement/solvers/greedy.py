"""Greedy placement: several deals, the best setting of each GPU, repair, then local search on the planning model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np

from placement.problem import timing
from placement.problem.objectives import GpuCount, MeanE2E
from placement.problem.problem import Placement, PlacementProblem, evaluate, violations
from placement.problem.refuted import with_cuts
from placement.problem.solver import Capabilities, SolveReport
from placement.solvers.capabilities import SHEET, refuse
from placement.solvers.deals import Deal, deals
from placement.solvers.fleets import cheapest, limits_mix, may_be_cheaper, of_one_type, worth_alone
from placement.solvers.local_search import improve, repair
from placement.solvers.lpt import Tier, tier_of, tiers_by_mask
from placement.solvers.perturb import iterate
from placement.solvers.search_state import SearchState, state_of
from twin.config.ranges import Range, check_fields

log = logging.getLogger(__name__)

#: Weight of the mean latency, seconds, beside an objective that does not care how GPUs are used: of plans with equally
#: many GPUs the one that waits least, which is also the one that keeps farthest from its limits.
SIDE_WEIGHT = 1e-5
#: GPUs that are tried to be emptied, and moves in which the others have to become healthy again.
EMPTIED, EMPTYING_MOVES = 3, 400
#: Work of the descent from each start, in shares of the work of the kicks after it.
DESCENT = 2.0


@dataclass(slots=True)
class _Best:
    """The incumbent, and what has been tried."""

    problem: PlacementProblem
    placement: Placement | None = None
    objective: float = np.inf
    #: fleet size -> objective of its best deal, inf if none was feasible
    tried: dict[int, float] = field(default_factory=dict)
    pool: list[tuple[float, Placement]] = field(default_factory=list)

    def offer(self, state: SearchState) -> float:
        """Objective of a state, inf if infeasible; keeps it if it is the best so far."""
        if (state.excess > 0).any():
            return np.inf
        placement = state.placement()
        if violations(self.problem, placement):
            return np.inf
        value = evaluate(self.problem, placement)[0]
        self.pool.append((value, placement))
        if value < self.objective:
            self.placement, self.objective = placement, value
        return value

    def take(self, other: _Best) -> None:
        """What another search has found."""
        self.tried |= other.tried
        self.pool += other.pool
        if other.objective < self.objective:
            self.placement, self.objective = other.placement, other.objective

    def starts(self, most: int) -> list[Placement]:
        """The best placements, best first: of different value, so that they are not one and the same."""
        chosen: dict[tuple[int, float], Placement] = {}
        for value, placement in sorted(self.pool, key=lambda entry: entry[0]):
            chosen.setdefault((len(placement.gpus), round(value, 9)), placement)
        return list(chosen.values())[:most]


@dataclass(frozen=True, slots=True)
class Greedy:
    """Deals + best setting per GPU + local search, for any terms. Computes no bound and proves nothing.

    For each number of GPUs several deals are tried (`placement.solvers.deals`): everything mixed by falling load, GPUs
    reserved by rank, blocks of equal load by rank or by rate. The number of GPUs grows from the divisible minimum until
    a deal is feasible after repair and the objective stops falling.

    Args:
        seed: of the random order of exchanges.
        local_search: improve the best deals by moves, swaps, settings, emptied GPUs and kicks; False = the deal alone.
        patience: stop raising the number of GPUs after so many steps without a better objective.
        starts: local search starts from so many placements.
        max_rounds: rounds of descent from each.
        quick: a first placement within a second (a minute for 100,000 adapters): the number of GPUs only grows, and
            little is repaired.
        effort: columns that the planning model is asked for after the descent, in thousands; each descent may ask for
            `DESCENT` times as many. With this, not the clock, ending the search, results are reproducible.
    """

    seed: int = 0
    local_search: bool = True
    patience: int = 3
    max_rounds: int = 12
    starts: int = 3
    effort: Annotated[float, Range(0, 1e6)] = 30.0
    quick: bool = False
    name: str = "greedy"

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"solver.{name}")

    @property
    def capabilities(self) -> Capabilities:
        return SHEET["greedy"]

    def solve(
        self, problem: PlacementProblem, *, time_limit_s: float, warm_start: Placement | None = None
    ) -> SolveReport:
        refuse(problem, self)
        start = timing.now()
        deadline = start + time_limit_s
        best = _Best(problem)
        if warm_start is not None and not violations(problem, warm_start):
            best.offer(state_of(problem, warm_start))
        changes = 0
        # behind cuts at the refuted columns first, then with the refuted columns alone excluded
        for search in [with_cuts(problem), problem] if problem.banned and problem.model is None else [problem]:
            best.tried.clear()
            changes += self._searches(search, best, deadline)
            if best.placement is not None:
                break
        timed_out = timing.up(deadline, "greedy")
        found = best.placement is not None
        return SolveReport(
            status="feasible" if found else "no_solution",
            termination="time_limit" if timed_out else "gap",
            placement=best.placement,
            objective=best.objective if found else float("nan"),
            bound=None,
            gap=None,
            runtime_s=timing.now() - start,
            solver=self.name,
            details={"fleet_sizes_tried": float(len(best.tried)), "local_search_changes": float(changes)},
        )

    def _searches(self, problem: PlacementProblem, best: _Best, deadline: float) -> int:
        """Deals on each type of GPU alone and on all, then local search; returns the exchanges made."""
        several = len(problem.stock) > 1
        types, alone = (len(of_one_type(problem)), worth_alone(problem)) if several else (0, [])
        if not alone:
            self._deal(problem, best, deadline)
        searches = [*alone, problem] if alone and limits_mix(problem, types) else alone
        for n, search in enumerate(searches):
            own = _Best(problem)
            # All of them have half of the time.
            share = 1 / (1 + len(searches) - n)
            self._deal(search, own, timing.now() + share * (deadline - timing.now()))
            best.take(own)
            if timing.up(deadline, "fleets"):
                break
        if best.placement is None or not self.local_search:
            return 0
        if may_be_cheaper(problem):
            limit = timing.now() + 0.5 * (deadline - timing.now())
            best.offer(state_of(problem, cheapest(problem, best.placement, seed=self.seed, deadline=limit)))
        return self._polish(problem, best, deadline)

    def _deal(self, problem: PlacementProblem, best: _Best, deadline: float) -> None:
        """Deals over fleet sizes, and with one GPU less as long as that works."""
        start = timing.now()
        tiers = tiers_by_mask(problem)
        mixed = tier_of(problem, np.arange(len(problem.items)))
        variants = [tiers]
        if len(tiers) > 1 and np.isfinite(mixed.load).any():
            variants.insert(0, [mixed])
        for gpus in self._sizes(problem, variants, best):
            best.tried[gpus] = self._attempt(problem, variants, gpus, best, deadline)
            if timing.up(deadline, "fleet sizes"):
                break
        if best.placement is None or not self.local_search:
            return
        if any(isinstance(t, GpuCount) for t in problem.terms):
            limit = min(deadline, timing.now() + 0.3 * (deadline - start))
            self._save_gpus(problem, variants, best, limit)

    def _sizes(self, problem: PlacementProblem, variants: list[list[Tier]], best: _Best) -> Iterator[int]:
        """Fleet sizes worth trying: up from the divisible minimum, down if that works, out while it pays."""
        most = int(min(problem.stock.sum(), len(problem.items)))
        if problem.max_gpus is not None:
            most = min(most, problem.max_gpus)
        divisible = min(sum(float(t.load.sum(axis=0).min()) for t in tiers) for tiers in variants)
        lowest = max(1, min(most, int(np.ceil(0.95 * divisible)) if np.isfinite(divisible) else 1))
        # if GPUs of one price are all that counts, more of them cannot be better
        prices = {problem.context.price[t] for t, n in zip(problem.gpu_types, problem.stock, strict=True) if n > 0}
        one_price = len(prices) == 1
        patience = 0 if one_price and all(isinstance(t, GpuCount) for t in problem.terms) else self.patience
        size, step, worse = lowest, 1, 0
        top = -1.0
        if self.quick:
            patience, step = 0, max(1, round(0.02 * lowest))
        while size <= most and worse <= patience:
            yield size
            value = best.tried[size]
            if np.isfinite(value):
                if patience == 0:
                    break
                worse = worse + 1 if top >= 0 and value >= top * (1 - 1e-9) else 0
                top = value if top < 0 else min(top, value)
                step = max(1, round(0.06 * size))
            elif size >= 2 * lowest + 8 or self.quick:
                step *= 2
            size += step
        feasible = [s for s, v in best.tried.items() if np.isfinite(v)]
        if most not in best.tried and (not feasible or problem.max_gpus is not None):
            yield most
        feasible = [s for s, v in best.tried.items() if np.isfinite(v)]
        if not feasible or self.quick:
            return
        for size in range(min(feasible) - 1, 0, -1):  # one GPU less, as long as that works
            if size in best.tried:
                continue
            yield size
            if not np.isfinite(best.tried[size]):
                break
        centre = min((s for s in best.tried), key=lambda s: best.tried[s])
        for size in () if patience == 0 else (centre - 2, centre - 1, centre + 1, centre + 2):
            if 0 < size <= most and size not in best.tried:
                yield size

    def _attempt(
        self,
        problem: PlacementProblem,
        variants: list[list[Tier]],
        gpus: int,
        best: _Best,
        deadline: float,
        *,
        thorough: bool = False,
    ) -> float:
        """Best objective over the deals onto a number of GPUs; inf if none is feasible."""
        lowest = np.inf
        effort = 8 if thorough else 1
        for dealt in deals(problem, variants, gpus):
            state = self._dealt(problem, dealt)
            if (state.excess > 0).any():
                rng = np.random.default_rng([self.seed, gpus])
                limit = min(deadline, timing.now() + max(1.0, 0.2 * (deadline - timing.now())))
                moves, patience = effort * (60 + 4 * gpus), effort * max(20, gpus)
                if self.quick:
                    moves, patience = 20 + gpus, 10
                if not repair(state, rng, deadline=limit, max_moves=moves, patience=patience):
                    continue
            state.choose_options()
            lowest = min(lowest, best.offer(state))
            if (self.quick and np.isfinite(lowest)) or timing.up(deadline, "deals"):
                break
        return lowest

    def _dealt(self, problem: PlacementProblem, dealt: Deal) -> SearchState:
        state = SearchState(problem, dealt.options, dealt.members)
        state.choose_options(any_type=False)
        return state

    def _save_gpus(self, problem: PlacementProblem, variants: list[list[Tier]], best: _Best, deadline: float) -> None:
        """One GPU less than the smallest feasible fleet, with more effort, as long as that works."""
        while not timing.up(deadline, "one GPU less"):
            assert best.placement is not None
            size = len(best.placement.gpus) - 1
            if size < 1 or best.tried.get(size, 0.0) == -np.inf:
                return
            value = self._emptied(problem, best, deadline)
            if not np.isfinite(value):
                value = self._attempt(problem, variants, size, best, deadline, thorough=True)
            best.tried[size] = value
            if not np.isfinite(value) or best.placement is None or len(best.placement.gpus) > size:
                return

    def _emptied(self, problem: PlacementProblem, best: _Best, deadline: float) -> float:
        """The best placement with one of its least loaded GPUs emptied onto the others; inf if none becomes healthy."""
        assert best.placement is not None
        found = one_gpu_less(problem, best.placement, seed=self.seed, deadline=deadline)
        return np.inf if found is None else best.offer(state_of(problem, found))

    def _polish(self, problem: PlacementProblem, best: _Best, deadline: float) -> int:
        """Local search from the best starts, then kicks; may empty GPUs."""
        changes = 0
        searched = with_side_term(problem)
        found: list[SearchState] = []
        for placement in best.starts(self.starts):
            state = state_of(searched, placement)
            rng = np.random.default_rng(self.seed)
            work = 1000 * DESCENT * self.effort
            changes += improve(state, rng, deadline=deadline, max_rounds=self.max_rounds, work=work)
            log.debug("descent: %d columns asked of the planning model, at most %d", state.work, work)
            best.offer(state)
            found.append(state)
        for state in sorted(found, key=SearchState.merit)[:2]:
            rng = np.random.default_rng([self.seed, 1])
            best.offer(iterate(state, rng, work=int(1000 * self.effort / 2), deadline=deadline))
        return changes


def with_side_term(problem: PlacementProblem) -> PlacementProblem:
    """The problem with a little of the mean latency in the objective, where only GPUs count."""
    if not all(isinstance(t, GpuCount) for t in problem.terms):
        return problem
    scale = max(t.scale / max(t.weight, 1e-12) for t in problem.terms)
    return replace(problem, terms=(*problem.terms, MeanE2E(weight=SIDE_WEIGHT, scale=scale)))


def one_gpu_less(problem: PlacementProblem, placement: Placement, *, seed: int, deadline: float) -> Placement | None:
    """The placement with one of its least loaded GPUs emptied onto the others; None if they do not become healthy."""
    base = state_of(with_side_term(problem), placement)
    load = base.phi @ (1.0 / np.maximum(base.phi.max(axis=0), 1e-12))
    for g in np.argsort(load, kind="stable").tolist()[:EMPTIED]:
        state = base.copy()
        if timing.up(deadline, "emptying a GPU") or not _empty(state, g):
            continue
        rng = np.random.default_rng([seed, g])
        if repair(state, rng, deadline=deadline, max_moves=EMPTYING_MOVES, patience=EMPTYING_MOVES // 4):
            state.choose_options()
            found = state.placement()
            if not violations(problem, found):
                return found
    return None


def _empty(state: SearchState, g: int) -> bool:
    """Deals the items of a GPU to the others, the heaviest first, each to where it does least harm."""
    others = [h for h in range(len(state.options)) if h != g and state.members[h]]
    if not others or (state.item_pin[state.members[g]] >= 0).any():
        return False
    weight = state.item_phi[state.members[g]].sum(axis=1)
    for i in np.array(state.members[g])[np.argsort(-weight, kind="stable")].tolist():
        best, target = np.inf, -1
        for h in others:
            if not state.item_allowed[i, state.options[h]] or (
                state.item_has_twin[i] and state.item_adapter[i] in state.item_adapter[state.members[h]]
            ):
                continue
            excess, costs = state.exchanged(h, np.array([-1]), np.array([i]), exact=False)
            harm = 1e6 * float(excess[0] - 0.0) + float(costs.sum() - state.costs[h].sum())
            if harm < best:
                best, target = harm, h
        if target < 0:
            return False
        state.members[g].remove(i)
        state.members[target].append(i)
        state.phi[target] += state.item_phi[i]
    state.refresh(*range(len(state.options)))
    state.choose_options(others)
    return True
