"""How many GPUs of each type: other fleets for a placement, cheaper ones first of all.

Exchanges of items keep the fleet, and giving one GPU another type keeps what is on it. One dear GPU for two cheap ones,
or three cheap ones for a dear one, is a step of its own: some GPUs leave, others come, the items of those that left are
dealt to all, and the rest is repair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from placement.problem import timing
from placement.problem.objectives import GpuCount
from placement.problem.prices import fleet_limits
from placement.problem.problem import Array, Placement, PlacementProblem, violations
from placement.solvers.local_search import repair
from placement.solvers.lpt import deal_lpt, tiers_by_mask
from placement.solvers.search_state import SearchState, state_of

Indices = NDArray[np.int64]

#: Share of the workload that a fleet must be able to carry, by loads added up, to be tried.
CARRIES = 0.9
#: Fleets tried from one placement, and most of them that are looked at.
TRIES, LOOKED_AT = 6, 40_000
#: A type of GPU that costs so many times what the cheapest one does is not tried alone.
DEARER = 1.5
#: Moves in which a placement on another fleet has to become healthy.
MOVES = 400
#: Prices that differ by less than this share are the same.
SAME = 1e-9


def price_of(problem: PlacementProblem) -> Array:
    """What a GPU of each type adds to the objective, (T,): its price, or 1 where no term prices GPUs."""
    weight = sum(t.weight / t.scale for t in problem.terms if isinstance(t, GpuCount))
    if weight == 0.0:
        return np.ones(len(problem.gpu_types))
    return weight * np.array([problem.context.price[t] for t in problem.gpu_types])


def may_be_cheaper(problem: PlacementProblem) -> bool:
    """Whether fleets differ in price by more than their number of GPUs."""
    return len(problem.stock) > 1 and any(isinstance(t, GpuCount) for t in problem.terms)


def of_one_type(problem: PlacementProblem) -> list[PlacementProblem]:
    """The problem on each type of GPU that can serve every item, alone; its answers are answers of the problem."""
    found = []
    for t in range(len(problem.stock)):
        allowed = problem.allowed & (problem.option_type == t)
        if allowed.any(axis=1).all():
            stock = np.where(np.arange(len(problem.stock)) == t, problem.stock, 0)
            found.append(replace(problem, allowed=allowed, stock=stock))
    return found


def worth_alone(problem: PlacementProblem) -> list[PlacementProblem]:
    """Of `of_one_type` those whose GPUs, by loads added up, cost at most `DEARER` times those of the cheapest."""
    alone = of_one_type(problem)
    if len(alone) < 2:
        return alone
    costs = price_of(problem) * np.ceil(CARRIES / np.maximum(shares_of(loads_of(problem)), 1e-9))
    own = np.array([costs[int(np.flatnonzero(p.stock > 0)[0])] for p in alone])
    return [p for p, cost in zip(alone, own.tolist(), strict=True) if cost <= DEARER * own.min()]


def limits_mix(problem: PlacementProblem, alone: int) -> bool:
    """Whether fleets of one type are not all that a deal can find: a stock is small, or a type serves only some items.

    Args:
        alone: types that can serve every item.
    """
    return len(problem.stock) > 1 and (alone < len(problem.stock) or bool((problem.stock < len(problem.items)).any()))


def loads_of(problem: PlacementProblem) -> Array:
    """GPUs of each type that each item fills, (N, T), by the linear pieces; inf where a type cannot serve it."""
    loads = np.full((len(problem.items), len(problem.stock)), np.inf)
    for tier in tiers_by_mask(problem):
        loads[tier.items] = tier.load
    return loads


def shares_of(loads: Array) -> Array:
    """Share of the workload that one GPU of each type carries, (T,); of types that serve only some, of these."""
    least = loads.min(axis=1)
    served = np.isfinite(loads)
    own = np.where(served, loads, 0.0).sum(axis=0)
    return np.asarray((served * least[:, None]).sum(axis=0) / np.maximum(own, 1e-12) / max(least.sum(), 1e-12))


def cheaper(problem: PlacementProblem, placement: Placement, *, seed: int, deadline: float) -> Placement | None:
    """A placement on a cheaper fleet near this one's; None if none of those tried becomes healthy.

    Args:
        problem: with several types of GPU, its objective a price.
        deadline: `timing.now()` value.
    """
    loads = loads_of(problem)
    for n, fleet in enumerate(_cheaper_fleets(problem, placement, shares_of(loads))):
        if n >= TRIES or timing.up(deadline, "cheaper fleets"):
            return None
        # With no stock beyond the fleet, repair gives no GPU a dearer type.
        limited = replace(problem, stock=fleet)
        for state in _on_fleet(limited, placement, fleet, loads):
            rng = np.random.default_rng([seed, n])
            state.choose_options()
            if repair(state, rng, deadline=deadline, max_moves=MOVES, patience=MOVES // 4):
                found = state.placement()
                if not violations(limited, found):
                    return found
    return None


def cheapest(problem: PlacementProblem, placement: Placement, *, seed: int, deadline: float) -> Placement:
    """The placement after as many steps to cheaper fleets as succeed."""
    while not timing.up(deadline, "cheaper fleets"):
        found = cheaper(problem, placement, seed=seed, deadline=deadline)
        if found is None:
            break
        placement = found
    return placement


def option_in_stock(state: SearchState, option: int, count: int) -> int:
    """The option, where so many more GPUs of its type exist, or that of another type which most items may use."""
    problem, spare = state.problem, state.spare_stock()
    if spare[problem.option_type[option]] >= count:
        return option
    usable = problem.allowed.sum(axis=0) * (spare[problem.option_type] >= count)
    return int(usable.argmax()) if usable.any() else option


def fleet_of(problem: PlacementProblem, placement: Placement) -> Indices:
    """GPUs of each type, (T,)."""
    types = problem.option_type[[g.option for g in placement.gpus]]
    return np.bincount(types, minlength=len(problem.stock)).astype(np.int64)


def fleet_price(problem: PlacementProblem, placement: Placement) -> float:
    """What the GPUs add to the objective."""
    return float(fleet_of(problem, placement) @ price_of(problem))


def _cheaper_fleets(problem: PlacementProblem, placement: Placement, shares: Array) -> list[Indices]:
    """Cheaper fleets that may carry the workload, those that carry most first."""
    now, price = fleet_of(problem, placement), price_of(problem)
    stock, total = fleet_limits(problem)
    most = max(2, int(LOOKED_AT ** (1 / len(now)) / 2))
    ranges = [range(max(-most, -int(n)), min(most, int(s - n)) + 1) for n, s in zip(now, stock, strict=True)]
    fleets = now + np.array(list(product(*ranges)), dtype=np.int64)
    good = (fleets @ price < (now @ price) * (1 - SAME)) & (fleets.sum(axis=1) <= total) & (fleets.sum(axis=1) > 0)
    carried = fleets @ shares
    fleets, carried = fleets[good & (carried >= CARRIES)], carried[good & (carried >= CARRIES)]
    # Of fleets that carry as much the cheapest, then the one that is most alike.
    order = np.lexsort((np.abs(fleets - now).sum(axis=1), fleets @ price, -np.round(carried, 2)))
    return list(fleets[order])


def _on_fleet(problem: PlacementProblem, placement: Placement, fleet: Indices, loads: Array) -> Iterator[SearchState]:
    """The placement with as few GPUs changed as possible, then everything dealt anew."""
    moved = _moved(problem, placement, fleet, loads)
    if moved is not None:
        yield moved
    types = [t for t, n in enumerate(fleet.tolist()) for _ in range(n)]
    dealt = deal_lpt(problem, tiers_by_mask(problem), types)
    if dealt is not None:
        yield SearchState(problem, dealt[1], dealt[0])


def _moved(problem: PlacementProblem, placement: Placement, fleet: Indices, loads: Array) -> SearchState | None:
    """The least loaded GPUs of types that become fewer leave, new ones come, and what was on them is dealt to all."""
    state = state_of(problem, placement)
    change = fleet - fleet_of(problem, placement)
    types = problem.option_type[state.options]
    fill = [float(loads[m, t].sum()) for m, t in zip(state.members, types.tolist(), strict=True)]
    free = np.zeros(len(problem.items), np.bool_)
    for t in np.flatnonzero(change < 0).tolist():
        own = [g for g in np.argsort(fill, kind="stable").tolist() if types[g] == t]
        leaving = [g for g in own if (state.item_pin[state.members[g]] < 0).all()][: -int(change[t])]
        if len(leaving) < -change[t]:
            return None
        for g in leaving:
            free[state.members[g]] = True
            state.members[g], fill[g] = [], np.inf
    for t in np.flatnonzero(change > 0).tolist():
        widest = int(
            np.flatnonzero(problem.option_type == t)[problem.allowed[:, problem.option_type == t].sum(0).argmax()]
        )
        state = _with_gpus(state, widest, int(change[t]))
        fill += [0.0] * int(change[t])
    return _dealt(state, np.flatnonzero(free), fill, loads)


def _with_gpus(state: SearchState, option: int, count: int) -> SearchState:
    """The state with empty GPUs more."""
    return SearchState(
        state.problem, [*state.options, *[option] * count], [*state.members, *([] for _ in range(count))]
    )


def _dealt(state: SearchState, items: Indices, fill: list[float], loads: Array) -> SearchState | None:
    """Items dealt by falling load, each to the GPU that is least full with it."""
    problem = state.problem
    types = problem.option_type[state.options]
    filled = np.array(fill)
    usable = np.array([problem.allowed[:, problem.option_type == t].any(axis=1) for t in range(len(problem.stock))])
    hosts = [set(state.item_adapter[m].tolist()) for m in state.members]
    for i in items[np.argsort(-loads[items].min(axis=1), kind="stable")].tolist():
        after = np.where(usable[types, i], filled + loads[i, types], np.inf)
        if state.item_has_twin[i]:
            after[[int(state.item_adapter[i]) in own for own in hosts]] = np.inf
        g = int(after.argmin())
        if not np.isfinite(after[g]):
            return None
        state.members[g].append(i)
        hosts[g].add(int(state.item_adapter[i]))
        filled[g] = after[g]
    return SearchState(problem, *_with_usable_options(state))


def _with_usable_options(state: SearchState) -> tuple[list[int], list[list[int]]]:
    """Options and members of the GPUs in use; an option that may not hold its items gives way to one of its type."""
    problem, options, members = state.problem, [], []
    for option, items in zip(state.options, state.members, strict=True):
        if not items:
            continue
        own = problem.option_type == problem.option_type[option]
        if not problem.allowed[items, option].all() and (good := problem.allowed[items].all(axis=0) & own).any():
            option = int(np.flatnonzero(good)[0])
        options.append(option)
        members.append(items)
    return options, members
