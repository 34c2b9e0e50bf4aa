"""Moving on after the twin has refuted columns.

Excluding exactly the refuted columns leads a solver to propose their neighbours, which are refuted next. So solvers
first look for placements behind a cut: the facet that comes closest to binding at a refuted column is moved inwards
until the column lies a step outside. The cut is a heuristic: bounds are always computed without it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from placement.problem.problem import PlacementProblem
from surrogates.model.planning import OptionModel, Polyhedron

#: How far behind a refuted column its facet is moved, as a share of the facet's constant.
STEP = 0.06
#: Columns further inside than this were not refuted because of a facet; only the column itself is excluded.
NEAR = 0.25


def tightened(problem: PlacementProblem, *, step: float = STEP) -> PlacementProblem:
    """The problem with one facet cut per refuted column that lies near the boundary; columns stay banned."""
    options = list(problem.options)
    for option, items in problem.banned:
        options[option] = _cut(problem.options[option], options[option], problem.phi[sorted(items)].sum(axis=0), step)
    return replace(problem, options=tuple(options))


def _cut(original: OptionModel, current: OptionModel, phi: np.ndarray, step: float) -> OptionModel:
    """Adds a facet parallel to the one nearest to phi, just below it."""
    facets = original.feasible
    usable = np.flatnonzero(facets.g < 0)
    if not len(usable):
        return current
    fill = (facets.G[usable] @ phi) / -facets.g[usable]
    nearest = usable[int(np.argmax(fill))]
    if fill.max() < 1 - NEAR:
        return current
    limit = float(facets.G[nearest] @ phi) * (1 - step)
    feasible = Polyhedron(np.vstack([current.feasible.G, facets.G[nearest]]), np.append(current.feasible.g, -limit))
    return replace(current, feasible=feasible)


def refuted_by_rules(problem: PlacementProblem) -> bool:
    """Whether the facets exclude every refuted column already (true without any)."""
    return all(
        float(problem.options[option].violation(problem.phi[sorted(items)].sum(axis=0)[None])[0]) > 0
        for option, items in problem.banned
    )
