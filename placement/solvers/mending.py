"""After the twin has not accepted some GPUs: move load off these, or add one GPU; what it accepted stays if it can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
#: Most GPUs added in one mending.
MOST_ADDED = 2


def warned(problem: PlacementProblem, unwanted: Sequence[GpuAssignment]) -> PlacementProblem:
    """The problem in which no GPU holds what these hold.

    Args:
        unwanted: GPUs that the twin did not accept.
    """
    bans = tuple((g.option, frozenset(g.items)) for g in unwanted)
    return replace(problem, banned=tuple(dict.fromkeys((*problem.banned, *bans))))


def mend(
    problem: PlacementProblem, placement: Placement, unwanted: Sequence[int], *, round_: int, may_add: bool, seed: int,
    deadline: float,
) -> Placement | None:  # fmt: skip
    """A placement near this one in which some GPUs carry less; None where none was found.

    Args:
        problem: as `warned` made it.
        unwanted: GPUs that the twin did not accept. round_: 1 for the first time: they give away more each time.
        may_add: GPUs may be added where the others have no room.
    """
    searched = with_side_term(problem)
    options, members = [g.option for g in placement.gpus], [list(g.items) for g in placement.gpus]
    for added in range(1 + (MOST_ADDED if may_add else 0)):
        worst = options[0]
        state = SearchState(searched, [*options, *[worst] * added], [*members, *([] for _ in range(added))])
        if added:
            worst = option_in_stock(state, state.options[int(np.argmax(state.excess))], added)
            state.options[len(options) :] = [worst] * added
        if problem.max_gpus is not None and len(state.options) > problem.max_gpus and not may_add:
            return None
        for g in unwanted:
            state.limit_load(g, max(0.5, 1.0 - STEP * round_))
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
        checked = replace(problem, max_gpus=None) if may_add else problem
        if not violations(checked, found):
            return found
    return None
