"""What no placement beats: bounds of the planning model."""

from __future__ import annotations

import math
from dataclasses import replace

from placement.problem.objectives import GpuCount, relaxed_terms, without_convex_form
from placement.problem.problem import PlacementProblem
from placement.solvers.aggregate import Aggregate


def prove_bound(problem: PlacementProblem, time_limit_s: float, *, refinements: int = 1) -> float | None:
    """Lower bound for every placement under the planning model, from the price list; None if there is none.

    Where the planning model is not linear itself, the bound is that of pieces on its optimistic side
    (`PlacementProblem.below`), without any margin.

    Args:
        refinements: rounds of finer classes, each of which costs more than the bound itself and raises it a little.

    Raises:
        KeyboardInterrupt: Ctrl-C came; HiGHS itself raises nothing.
    """
    if without_convex_form(problem, relaxed=True):
        return None
    aggregate = Aggregate(replace(bounding(problem), terms=relaxed_terms(problem.terms)))
    aggregate.prove(time_limit_s, refinements=refinements)
    if aggregate.interrupted:
        raise KeyboardInterrupt
    return aggregate.bound


def bounding(problem: PlacementProblem) -> PlacementProblem:
    """The linear problem whose bounds are bounds for this one."""
    if problem.model is None:
        return problem
    return replace(problem, options=problem.below, model=None, below=(), reserve=())


def certified_minimum(problem: PlacementProblem, time_limit_s: float) -> int | None:
    """Fewest GPUs that any placement needs under the planning model; None if that could not be proven."""
    price = dict.fromkeys(problem.context.price, 1.0)
    counted = replace(
        problem, terms=(GpuCount(),), context=replace(problem.context, price=price), max_gpus=None, banned=()
    )
    bound = prove_bound(counted, time_limit_s)
    return None if bound is None else max(1, math.ceil(bound - 1e-6))


def outer(problem: PlacementProblem) -> PlacementProblem:
    """The optimistic side: facets without the margin."""
    if problem.model is not None:
        return replace(bounding(problem), banned=())
    return replace(problem, options=tuple(replace(o, feasible=o.outer) for o in problem.options), banned=())
