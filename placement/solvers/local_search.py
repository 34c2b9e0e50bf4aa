"""Moves and swaps of single items between pairs of GPUs: first towards feasibility, then towards the objective.

Exchanges of a pair of GPUs are scored in one batch: by the linear pieces first, and those that they like by the
planning model. Deterministic for a given generator, unless the clock stops it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from placement.problem import timing
from placement.solvers.search_state import Indices, SearchState

#: Items a GPU offers for exchange in one batch; bounds a batch at `2 * SAMPLE + SAMPLE**2` columns.
SAMPLE = 40
REPAIR_SAMPLE = 24
_GAIN = 1e-9
#: Share of its items that an unhealthy GPU gives away where no exchange helps, how often, and how many are asked.
SHARE_SHED, SHEDS, PARTNERS = 0.08, 4, 3
#: Exchanges of a pair that the planning model is asked for, of those that its linear pieces like best; a third more are
#: drawn at random. Objective that a unit of excess of the pieces is worth, in shares of the objective.
LOOKS, PRICE_OF_EXCESS = 12, 3.0


def _candidates(state: SearchState, g: int, h: int, rng: np.random.Generator, most: int) -> tuple[Indices, Indices]:
    """Exchanges (give, take) between g and h that the masks allow, from `most` items of each; -1 = nothing."""

    def sample(items: list[int]) -> Indices:
        array = np.array([*items, -1], dtype=np.int64)
        return array if len(items) <= most else array[np.append(rng.permutation(len(items))[:most], -1)]

    a, b = sample(state.members[g]), sample(state.members[h])
    # pinned items stay where they were dealt
    a = a[state.item_allowed[a, state.options[h]] & (state.item_pin[a] < 0)]
    b = b[state.item_allowed[b, state.options[g]] & (state.item_pin[b] < 0)]
    for items, other in ((a, h), (b, g)):
        if state.item_has_twin[items].any():
            hosted = state.item_adapter[state.members[other]]
            clash = state.item_has_twin[items] & np.isin(state.item_adapter[items], hosted)
            if items is a:
                a = a[~clash]
            else:
                b = b[~clash]
    give, take = np.repeat(a, len(b)), np.tile(b, len(a))
    return give[:-1], take[:-1]  # the last pair is (nothing, nothing)


def _bans(state: SearchState, g: int, leave: Indices, enter: Indices) -> np.ndarray:
    """Refuted columns contained in GPU g after each exchange, (P,)."""
    content = set(state.members[g])
    found = np.zeros(len(leave))
    for ban in state.bans.get(state.options[g], ()):
        missing = ban - content
        if len(missing) <= 1:
            complete = enter == next(iter(missing)) if missing else np.ones(len(enter), dtype=bool)
            found += complete & ~np.isin(leave, list(ban))
    return found


def best_exchange(
    state: SearchState, g: int, h: int, rng: np.random.Generator, *, most: int = SAMPLE, excess_only: bool = False
) -> tuple[float, float, int, int] | None:
    """(excess change, merit change, give, take) of the best exchange of a pair, or None without a gain.

    Less excess comes first; the objective decides among exchanges that leave the excess as it is.

    Args:
        most: items sampled from each GPU.
        excess_only: ignore the objective (its change is given as 0).
    """
    give, take = _candidates(state, g, h, rng, most)
    if not len(give):
        return None
    if state.problem.model is not None and len(give) > 2 * LOOKS:
        chosen = _worth_a_look(state, g, h, give, take, rng, excess_only=excess_only)
        give, take = give[chosen], take[chosen]
    (excess_g, costs_g), (excess_h, costs_h) = state.exchanged(g, give, take), state.exchanged(h, take, give)
    excess = excess_g + excess_h + _bans(state, g, give, take) + _bans(state, h, take, give)
    change = excess - (state.excess[g] + state.excess[h])
    if excess_only:
        best = int(change.argmin())
        return (float(change[best]), 0.0, int(give[best]), int(take[best])) if change[best] < -_GAIN else None
    # the objective matters only among exchanges of (nearly) the least excess
    tied = np.flatnonzero(change <= change.min() + _GAIN)
    if change[tied[0]] > _GAIN:
        return None
    costs = np.stack([costs_g[tied], costs_h[tied]], axis=1)
    merit = state.merit()
    change_objective = state.totals([g, h], costs) - merit
    row = int(change_objective.argmin())
    best = int(tied[row])
    if change[best] < -_GAIN or change_objective[row] < -_GAIN * max(1.0, abs(merit)):
        return float(change[best]), float(change_objective[row]), int(give[best]), int(take[best])
    return None


def _worth_a_look(
    state: SearchState, g: int, h: int, give: Indices, take: Indices, rng: np.random.Generator, *, excess_only: bool
) -> Indices:
    """Exchanges that the linear pieces like best, and a few others: the planning model is asked for these only."""
    if excess_only:
        # Less on the fuller one, however little the pieces mind what it holds, and not too much on the other.
        full, other = state.pieces_violation(g, give, take), state.pieces_violation(h, take, give)
        score = full + PRICE_OF_EXCESS * np.maximum(other, 0.0)
    else:
        (excess_g, costs_g), (excess_h, costs_h) = (
            state.exchanged(gpu, leave, enter, exact=False) for gpu, leave, enter in ((g, give, take), (h, take, give))
        )
        merit = max(abs(state.merit()), 1e-12)
        score = state.totals([g, h], np.stack([costs_g, costs_h], axis=1)) / merit
        score = score + PRICE_OF_EXCESS * (excess_g + excess_h)
    best = np.argpartition(score, LOOKS)[:LOOKS]
    return np.unique(np.concatenate([best, rng.choice(len(give), LOOKS // 3, replace=False)]))


def repair(
    state: SearchState, rng: np.random.Generator, *, deadline: float, max_moves: int = 2000, patience: int = 300
) -> bool:
    """Exchanges items until no GPU is violated; False if it stalls, runs out of moves or of time.

    The most violated GPU exchanges with the best of a few random partners, with all partners once those give nothing.

    Args:
        deadline: `timing.now()` value at which to give up.
        patience: stalled = less than 2 % of the excess gone within so many moves.
    """
    size = len(state.options)
    history = [state.total_excess()]
    stuck: set[int] = set()
    shed: dict[int, int] = {}
    for _ in range(max_moves):
        violated = [g for g in np.argsort(-state.excess, kind="stable").tolist() if state.excess[g] > 0]
        if not violated:
            return True
        g = next((v for v in violated if v not in stuck), None)
        stalled = len(history) > patience and history[-1] > 0.98 * history[-1 - patience]
        if g is None or stalled or timing.up(deadline, "repair"):
            return False
        others = [h for h in rng.permutation(size).tolist() if h != g]
        best, partner = None, -1
        for position, h in enumerate(others):
            found = best_exchange(state, g, h, rng, most=REPAIR_SAMPLE, excess_only=True)
            if found and (best is None or found[0] < best[0]):
                best, partner = found, h
            if best is not None and position >= 3:
                break
        if best is not None:
            state.exchange(g, partner, best[2], best[3])
            stuck.clear()
        elif not state.choose_options([g]) and not (shed.get(g, 0) < SHEDS and _shed(state, g, rng)):
            stuck.add(g)
        else:
            shed[g] = shed.get(g, 0) + (best is None)
        history.append(state.total_excess())
    return not (state.excess > 0).any()


def _shed(state: SearchState, g: int, rng: np.random.Generator) -> bool:
    """Gives a part of an unhealthy GPU's items to GPUs that stay healthy, though no single one of them would help.

    The planning model is not smooth: one item less may look worse where ten less are better.
    """
    if state.problem.model is None:
        return False
    own = np.array([i for i in state.members[g] if state.item_pin[i] < 0], dtype=np.int64)
    moved = False
    for i in rng.permutation(own)[: max(1, round(SHARE_SHED * len(own)))].tolist():
        room = [
            h
            for h in range(len(state.options))
            if h != g and state.members[h] and state.excess[h] == 0 and state.item_allowed[i, state.options[h]]
        ]
        one, none = np.array([i]), np.array([-1])
        room.sort(key=lambda h: float(state.pieces_violation(h, none, one)[0]))
        for h in room[:PARTNERS]:
            if state.item_has_twin[i] and state.item_adapter[i] in state.item_adapter[state.members[h]]:
                continue
            if state.exchanged(h, none, one)[0][0] == 0 and not _bans(state, h, none, one)[0]:
                state.exchange(g, h, i, -1)
                moved = True
                break
    return moved


def _pairs(state: SearchState, rng: np.random.Generator, most: int, focus: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of GPUs to look at in one round: all, or for large fleets the worst GPUs with everyone and a sample."""
    size = len(state.options)
    pairs = list(combinations(focus or range(size), 2))
    if len(pairs) <= most:
        chosen = [pairs[i] for i in rng.permutation(len(pairs)).tolist()]
    else:
        worst = int(np.argmax(state.costs.sum(axis=1)))
        chosen = [(worst, h) for h in range(size) if h != worst]
        chosen += [pairs[i] for i in rng.choice(len(pairs), most, replace=False).tolist()]
    if state.is_max.any():  # a MAX term only improves through the GPUs that attain it
        tops = np.unique(state.costs[:, state.is_max].argmax(axis=0)).tolist()
        chosen = [(t, h) for t in tops for h in range(size) if h != t] + chosen
    return chosen


def improve(
    state: SearchState,
    rng: np.random.Generator,
    *,
    deadline: float,
    max_rounds: int = 20,
    pairs_per_round: int = 300,
    focus: Sequence[int] = (),
    work: float = math.inf,
) -> int:
    """Descends on (excess, objective) by exchanges and option changes; returns the number of changes made.

    Args:
        work: it ends after so many columns asked of the planning model: a limit that is the same on every machine.
        focus: only these GPUs exchange; () = all.
    """
    changes, begun = 0, state.work
    for _ in range(max_rounds):
        before = changes
        for g, h in _pairs(state, rng, pairs_per_round, focus):
            if state.work - begun >= work or timing.up(deadline, "exchanges"):
                return changes
            for _ in range(8):
                found = best_exchange(state, g, h, rng)
                if found is None:
                    break
                state.exchange(g, h, found[2], found[3])
                changes += 1
        changes += int(state.choose_options(focus or None))
        if changes == before:
            break
    return changes
