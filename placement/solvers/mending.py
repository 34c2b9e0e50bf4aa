"""After the twin has not accepted some GPUs: move load off these, or add one GPU; what it accepted stays if it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, violations
from placement.solvers.fleets import option_in_stock
from placement.solvers.greedy import with_side_term
from placement.solvers.local_search import improve, repair
from placement.solvers.search_state import SearchState

#: Share of the load that a GPU gives away beyond what it used, first and growing with each round.
STEP = 0.03
#: Moves of one mending, and how many without progress end it.
MOVES, PATIENCE = 400, 80
#: GPUs added in one mending, tried in turn; at most one for each GPU that the twin did not accept, and two.
ADDED = (0, 1, 2, 4, 8, 16, 32)


def warned(problem: PlacementProblem, unwanted: Sequence[GpuAssignment]) -> PlacementProblem:
    """The problem in which no GPU holds what these hold.

    Args:
        unwanted: GPUs that the twin did not accept.
    """
    bans = tuple((g.option, frozenset(g.items)) for g in unwanted)
    return replace(problem, banned=tuple(dict.fromkeys((*problem.banned, *bans))))


def mend(
    problem: PlacementProblem, placement: Placement, unwanted: Sequence[int], *, round_: int, most: int, seed: int,
    deadline: float, shares: Mapping[int, float] = MappingProxyType({}),
) -> Placement | None:  # fmt: skip
    """A placement near this one in which some GPUs carry less; None where none was found.

    Args:
        problem: as `warned` made it.
        unwanted: GPUs that the twin did not accept. round_: 1 for the first time: they give away more each time.
        shares: of their load that some of them may keep, where that is known better.
        most: GPUs there may be: one or more are added where the others have no room.
    """
    searched = with_side_term(problem)
    options, members = [g.option for g in placement.gpus], [list(g.items) for g in placement.gpus]
    for added in (n for n in ADDED if n <= max(2, len(unwanted)) and len(options) + n <= max(most, len(options))):
        worst = options[0]
        state = SearchState(searched, [*options, *[worst] * added], [*members, *([] for _ in range(added))])
        if added:
            worst = option_in_stock(state, state.options[int(np.argmax(state.excess))], added)
            state.options[len(options) :] = [worst] * added
        for g in unwanted:
            state.limit_load(g, min(max(0.5, 1.0 - STEP * round_), shares.get(g, 1.0)))
        # What they may not carry, a new GPU may not carry either.
        ceilings = [state.ceilings[g] for g in unwanted if g in state.ceilings]
        if ceilings:
            state.ceilings |= dict.fromkeys(range(len(options), len(state.options)), min(ceilings, key=lambda c: c[1]))
        bad = np.flatnonzero(state.excess > 0).tolist()
        rng = np.random.default_rng([seed, len(problem.banned), added])
        if not repair(state, rng, deadline=deadline, max_moves=MOVES, patience=PATIENCE):
            continue
        touched = [
            g
            for g in range(len(state.options))
            if g >= len(options) or state.options[g] != options[g] or set(state.members[g]) != set(members[g])
        ]
        state.choose_options(touched)
        improve(state, rng, deadline=deadline, max_rounds=2, focus=tuple(dict.fromkeys((*bad, *touched))))
        found = state.placement()
        if not violations(replace(problem, max_gpus=most), found):
            return found
    return None
