"""After the twin has not accepted some GPUs: move load off these, or add one GPU; what it accepted stays if it can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, violations
from placement.solvers.greedy import with_side_term
from placement.solvers.local_search import improve, repair
from placement.solvers.search_state import SearchState

#: Share of the load that a GPU gives away beyond what it used, first and growing with each round.
STEP = 0.03
#: Moves of one mending, and how many without progress end it.
MOVES, PATIENCE = 400, 80
#: Most GPUs added in one mending.
MOST_ADDED = 2


def warned(problem: PlacementProblem, unwanted: Sequence[GpuAssignment], round_: int) -> PlacementProblem:
    """The problem in which GPUs like these promise less: banned themselves, and with a reserve on their settings.

    Args:
        unwanted: GPUs that the twin did not accept.
        round_: 1 for the first time.
    """
    bans = tuple((g.option, frozenset(g.items)) for g in unwanted)
    reserve = list(problem.reserve or (0.0,) * len(problem.options))
    told = problem.judge.of([g.items for g in unwanted], [g.option for g in unwanted])
    for gpu, violation in zip(unwanted, told.violation.tolist(), strict=True):
        # What the GPU kept free was not enough; a GPU that kept much free was refuted for another reason.
        kept = min(max(-violation, 0.0), 4 * STEP)
        asked = kept + STEP * min(round_, 4)
        for o in _no_narrower(problem, gpu):
            reserve[o] = max(reserve[o], asked)
    return replace(
        problem, banned=tuple(dict.fromkeys((*problem.banned, *bans))), reserve=tuple(reserve),
        trusted=problem.trusted,
    )  # fmt: skip


def _no_narrower(problem: PlacementProblem, gpu: GpuAssignment) -> list[int]:
    """The GPU's setting and those that differ in nothing but slots or rank that its adapters do not need.

    More slots do not make the same adapters healthier: without this, they would be the way around the reserve.
    """
    own = problem.options[gpu.option].setting
    adapters = sum(problem.items[i].rank > 0 for i in gpu.items)
    found = [gpu.option]
    for o, option in enumerate(problem.options):
        s = option.setting
        alike = replace(s, max_loras=own.max_loras, max_lora_rank=own.max_lora_rank) == own
        wide = min(s.max_loras, adapters) >= min(own.max_loras, adapters) and s.max_lora_rank >= own.max_lora_rank
        if o != gpu.option and alike and wide:
            found.append(o)
    return found


def mend(
    problem: PlacementProblem, placement: Placement, *, may_add: bool, seed: int, deadline: float
) -> Placement | None:
    """A placement near this one that keeps the problem's rules; None where none was found.

    Args:
        problem: as `warned` made it.
        may_add: GPUs may be added where the others have no room.
    """
    searched = with_side_term(problem)
    options, members = [g.option for g in placement.gpus], [list(g.items) for g in placement.gpus]
    for added in range(1 + (MOST_ADDED if may_add else 0)):
        worst = options[0]
        state = SearchState(searched, [*options, *[worst] * added], [*members, *([] for _ in range(added))])
        if added:
            worst = state.options[int(np.argmax(state.excess))]
            state.options[len(options) :] = [worst] * added
        if problem.max_gpus is not None and len(state.options) > problem.max_gpus and not may_add:
            return None
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
