"""Iterated local search: kick a placement, repair it, descend again, keep it if it is better.

A kick moves a group of items that belong together (one rank, the hottest, the coldest, any) from one GPU to another,
mostly in exchange for others of the same load. Single exchanges cannot do that: the way leads through placements that
are worse. H. R. Lourenço, O. C. Martin, T. Stützle, "Iterated local search", Handbook of Metaheuristics, 2003.
"""

from __future__ import annotations

import numpy as np

from placement.problem import timing
from placement.problem.problem import Array, PlacementProblem
from placement.solvers.local_search import improve, repair
from placement.solvers.search_state import Indices, SearchState

#: Share of the kicks that exchange loads instead of moving one.
EXCHANGED = 0.6
#: Share of the kicks in which two GPUs of different types trade all that they hold.
TRADED = 0.3
#: Moves in which a kicked placement has to become feasible again, and rounds of descent.
REPAIRS, ROUNDS = 60, 2
#: A kick has to gain this share of the objective.
GAIN = 1e-6
#: Partners of the kicked GPUs in the descent after a kick.
PARTNERS = 1


def iterate(state: SearchState, rng: np.random.Generator, *, work: int, deadline: float) -> SearchState:
    """The best state found within `work` columns asked of the planning model, or until the deadline.

    Args:
        state: feasible; it is left as it is.
        deadline: `timing.now()` value.
    """
    best, spent = state, 0
    if sum(bool(m) for m in state.members) < 2:
        return best
    traits = Traits(state.problem)
    while spent < work and not timing.up(deadline, "kicks"):
        tried = best.copy()
        pair = _kick(tried, traits, rng)
        if pair:
            focus = (*pair, *rng.choice(len(tried.options), min(PARTNERS, len(tried.options)), replace=False).tolist())
            healthy = not (tried.excess > 0).any() or repair(
                tried, rng, deadline=deadline, max_moves=REPAIRS, patience=REPAIRS // 2
            )
            if healthy:
                improve(tried, rng, deadline=deadline, max_rounds=ROUNDS, focus=tuple(dict.fromkeys(focus)))
            merit = best.merit()
            if healthy and not (tried.excess > 0).any() and tried.merit() < merit - GAIN * abs(merit):
                tried.work, best = 0, tried
        spent += max(1, tried.work)
    return best


class Traits:
    """What makes items belong together, (N,) each.

    Attributes:
        rate: requests/s. tokens: output tokens/s. rank: of the adapter.
    """

    def __init__(self, problem: PlacementProblem) -> None:
        self.rate: Array = np.array([a.rate_req_per_s for a in problem.items])
        self.tokens: Array = np.array([a.rate_req_per_s * a.output_tokens.mean for a in problem.items])
        self.rank: Indices = np.array([a.rank for a in problem.items], dtype=np.int64)


def _kick(state: SearchState, traits: Traits, rng: np.random.Generator) -> tuple[int, int] | None:
    """Moves a group from one GPU to another; the two, or None where the group may not go there."""
    used = np.array([g for g in range(len(state.options)) if state.members[g]])
    g = int(rng.choice(used))
    h = int(rng.choice([x for x in range(len(state.options)) if x != g]))
    types = state.problem.option_type[[state.options[g], state.options[h]]]
    if types[0] != types[1] and rng.random() < TRADED:
        return _traded(state, g, h)
    given = _movable(state, _group(np.array(state.members[g]), traits, rng), h)
    taken = np.zeros(0, np.int64)
    if len(given) and state.members[h] and rng.random() < EXCHANGED:
        back = rng.permutation(_movable(state, np.array(state.members[h]), g))
        taken = back[: int(np.searchsorted(np.cumsum(traits.tokens[back]), traits.tokens[given].sum()))]
    if not len(given) or (len(given) == len(state.members[g]) and not len(taken) and not state.members[h]):
        return None
    gone, back_set = set(given.tolist()), set(taken.tolist())
    left = [i for i in state.members[g] if i not in gone] + taken.tolist()
    right = [i for i in state.members[h] if i not in back_set] + given.tolist()
    for x, items in ((g, left), (h, right)):
        state.members[x] = items
        if items and not state.problem.allowed[items, state.options[x]].all():
            usable = np.flatnonzero(
                state.problem.allowed[items].all(axis=0)
                & (state.problem.option_type == state.problem.option_type[state.options[x]])
            )
            if not len(usable):
                return None
            state.options[x] = int(usable[0])
    state.refresh(g, h)
    state.choose_options([g, h])
    return g, h


def _traded(state: SearchState, g: int, h: int) -> tuple[int, int] | None:
    """Two GPUs of different types trade all that they hold; None where one of the types may not hold it."""
    problem = state.problem
    items, options = [state.members[h], state.members[g]], []
    for x, own in ((g, items[0]), (h, items[1])):
        same = problem.option_type == problem.option_type[state.options[x]]
        usable = np.flatnonzero(problem.allowed[own].all(axis=0) & same)
        if not len(usable) or (own and (state.item_pin[own] >= 0).any()):
            return None
        options.append(state.options[x] if state.options[x] in usable else int(usable[0]))
    (state.members[g], state.members[h]), (state.options[g], state.options[h]) = items, options
    state.refresh(g, h)
    state.choose_options([g, h])
    return g, h


def _movable(state: SearchState, items: Indices, to: int) -> Indices:
    """Items that are not pinned and have no replica on the other GPU."""
    items = items[state.item_pin[items] < 0]
    hosted = state.item_adapter[state.members[to]]
    clash = state.item_has_twin[items] & np.isin(state.item_adapter[items], hosted)
    return np.asarray(items[~clash])


def _group(items: Indices, traits: Traits, rng: np.random.Generator) -> Indices:
    """Some of a GPU's items: any, of one rank, the hottest or the coldest."""
    kind = int(rng.integers(4))
    if kind == 0:
        return np.asarray(items[rng.random(len(items)) < rng.uniform(0.05, 0.3)])
    if kind == 1:
        own: Indices = items[traits.rank[items] == rng.choice(traits.rank[items])]
        return own if rng.random() < 0.5 else own[rng.random(len(own)) < 0.5]
    heat = traits.rate[items] if kind == 2 else traits.tokens[items]
    bound = np.quantile(heat, rng.uniform(0.3, 0.95))
    return np.asarray(items[heat >= bound] if rng.random() < 0.5 else items[heat <= bound])
