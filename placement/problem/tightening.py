"""What is learned from refuted columns: the planning model promises less, and the solver runs again.

A refuted column is banned, and the facet nearest to it is moved behind it (`placement.problem.refuted`). If the next
round still finds columns that the twin refutes, the model errs in more places than one: then all facets move inwards by
a step that doubles every round, so that a bounded number of rounds suffices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from placement.problem.problem import GpuAssignment, PlacementProblem
from placement.problem.refuted import STEP, tightened
from surrogates.model.planning import OptionModel, Polyhedron


def scaled_inwards(option: OptionModel, share: float) -> OptionModel:
    """Facets that allow `1 - share` of the load: `G phi + (1 - share) g <= 0` where g < 0."""
    facets = option.feasible
    return replace(option, feasible=Polyhedron(facets.G, np.where(facets.g < 0, (1 - share) * facets.g, facets.g)))


def tighten(problem: PlacementProblem, refuted: Sequence[GpuAssignment], round_: int) -> PlacementProblem:
    """The problem with the refuted columns excluded; from the second round on, with a margin for all settings.

    Args:
        refuted: GPUs that the twin did not accept.
        round_: 1 for the first tightening.
    """
    bans = tuple((g.option, frozenset(g.items)) for g in refuted)
    banned = replace(problem, banned=tuple(dict.fromkeys((*problem.banned, *bans))))
    if round_ > 1:
        share = min(0.5, STEP * 2 ** (round_ - 2))
        banned = replace(banned, options=tuple(scaled_inwards(o, share) for o in banned.options))
    return tightened(banned)
