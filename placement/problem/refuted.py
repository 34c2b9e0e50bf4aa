"""Moving on after the twin has refuted columns: the planning model promises less, and the solver runs again.

A refuted column is banned (`tighten`). Excluding exactly the refuted columns leads a solver to propose their
neighbours, which are refuted next. So solvers first look for placements behind a cut (`with_cuts`): the facet that
comes closest to binding at a refuted column is moved inwards until the column lies a step outside. The cut is a
heuristic: bounds are always computed without it. If the next round still finds columns that the twin refutes, the model
errs in more places than one: then all facets move inwards by a step that doubles every round, so that a bounded number
of rounds suffices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from placement.problem.problem import GpuAssignment, PlacementProblem
from surrogates.model.planning import OptionModel, Polyhedron

#: How far behind a refuted column its facet is moved, as a share of the facet's constant.
STEP = 0.06
#: Columns further inside than this were not refuted because of a facet; only the column itself is excluded.
NEAR = 0.25


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
        banned = replace(banned, options=tuple(_scaled_inwards(o, share) for o in banned.options))
    return with_cuts(banned)


def _scaled_inwards(option: OptionModel, share: float) -> OptionModel:
    """Facets that allow `1 - share` of the load: `G phi + (1 - share) g <= 0` where g < 0."""
    facets = option.feasible
    return replace(option, feasible=Polyhedron(facets.G, np.where(facets.g < 0, (1 - share) * facets.g, facets.g)))


def with_cuts(problem: PlacementProblem) -> PlacementProblem:
    """The problem with one facet cut per refuted column that lies near the boundary; columns stay banned."""
    options = list(problem.options)
    for option, items in problem.banned:
        options[option] = _cut(problem.options[option], options[option], problem.phi[sorted(items)].sum(axis=0))
    return replace(problem, options=tuple(options))


def _cut(original: OptionModel, current: OptionModel, phi: np.ndarray) -> OptionModel:
    """Adds a facet parallel to the one nearest to phi, just below it."""
    facets = original.feasible
    usable = np.flatnonzero(facets.g < 0)
    if not len(usable):
        return current
    fill = (facets.G[usable] @ phi) / -facets.g[usable]
    nearest = usable[int(np.argmax(fill))]
    if fill.max() < 1 - NEAR:
        return current
    limit = float(facets.G[nearest] @ phi) * (1 - STEP)
    feasible = Polyhedron(np.vstack([current.feasible.G, facets.G[nearest]]), np.append(current.feasible.g, -limit))
    return replace(current, feasible=feasible)


def refuted_by_rules(problem: PlacementProblem) -> bool:
    """Whether the facets exclude every refuted column already (true without any)."""
    return all(
        float(problem.options[option].violation(problem.phi[sorted(items)].sum(axis=0)[None])[0]) > 0
        for option, items in problem.banned
    )
