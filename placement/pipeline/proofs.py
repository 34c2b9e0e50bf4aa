"""What is proven of a problem: that no placement exists, and what none reaches."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from placement.pipeline.clock import Clock
from placement.problem.objectives import GpuCount
from placement.problem.problem import PlacementProblem
from placement.report.result import Result
from placement.solvers.bounds import certified_minimum, outer, proven_bound
from placement.solvers.certificate import fleet_limits

#: Share of the whole time for the bound, which uses what it gets, and for each further proof.
PROVING, BOUNDING = 0.1, 0.06
#: A phase that more time makes better, and that changes no placement.
THE_BOUND = "the bound"
#: A placement this near to its bound, as a share, is optimal.
OPTIMAL_GAP = 1e-6


def refuse_impossible(problem: PlacementProblem, clock: Clock) -> None:
    """Raises `InfeasibleError` where a price list or a count proves that no placement exists.

    Where the planning model is not linear, prices of the pieces are not enough: columns of the model itself have to
    ask for more GPUs than there may be, too.
    """
    from placement.solvers.aggregate import Aggregate
    from placement.solvers.bounds import bounding
    from placement.solvers.explain import infeasible_error, miscount

    counted = replace(bounding(problem), terms=(GpuCount(),))
    aggregate = Aggregate(counted)
    if aggregate.prove(clock.part_s(BOUNDING), refinements=0).status == "infeasible":
        _, proven = aggregate.carried_share(clock.part_s(BOUNDING))
        if aggregate.interrupted:
            raise KeyboardInterrupt
        if proven and problem.model is not None:
            unlimited = replace(problem, stock=np.full_like(problem.stock, len(problem.items)))
            fewest = certified_minimum(unlimited, clock.part_s(BOUNDING))
            proven = fewest is not None and fewest > fleet_limits(problem)[1]
        if proven:
            raise infeasible_error(counted)
    proof = miscount(counted)
    if proof is not None:
        raise proof


def bound_result(result: Result, clock: Clock) -> None:
    """Bounds of the problem; where the planning model is not linear they rest on its columns, as many as time allows.

    Then `bound_outer` is that of pieces on its optimistic side, without margin, where that is not above the other.
    """
    if clock.out_of_time():
        clock.cut[THE_BOUND] = None
        return
    bounds = [result.proven]
    known = () if result.placement is None else (result.placement,)
    for name, problem in (("bound", result.original), ("bound_outer", outer(result.original))):
        if name == "bound" and result.proven is not None:
            continue
        with clock.phase(THE_BOUND):
            limit_s = clock.part_s(PROVING if name == "bound" else BOUNDING)
            found = proven_bound(problem, limit_s, known=known if name == "bound" else ())
        value = None if found is None else found.value
        bounds.append(value)
        if name == "bound_outer":
            best = max((b for b in bounds[:-1] if b is not None), default=None)
            if result.bound_columns and best is not None and value is not None:
                bounds[-1] = value = min(value, best)
            result.bound_outer = value
        elif found is not None and found.columns:
            result.bound_columns = found.columns
    # What no placement beats without the margin, none beats with it.
    result.bound = max((b for b in bounds if b is not None), default=None)
    terms = result.original.terms
    if len(terms) == 1 and isinstance(terms[0], GpuCount) and set(result.original.context.price.values()) == {1.0}:
        fewest = None if result.bound is None else result.bound * terms[0].scale / terms[0].weight
        result.certified_minimum = None if fewest is None else max(1, math.ceil(fewest - 1e-6))
        return
    # At the level of the pieces: the bound itself has had the time that there is.
    with clock.phase(THE_BOUND):
        result.certified_minimum = certified_minimum(outer(result.original), clock.part_s(BOUNDING))


def drop_disproved_bounds(result: Result) -> None:
    """A bound above a placement's objective is none: pieces may not fit columns unlike those they were made of."""
    if result.original.model is None:
        return
    slack = OPTIMAL_GAP * max(1.0, abs(result.objective))
    if result.bound is not None and result.bound > result.objective + slack:
        result.bound = None
        result.warnings.append(
            "no bound is claimed: that of the planning model's linear pieces lies above this placement's objective"
        )
    if result.bound_outer is not None and result.bound_outer > result.objective + slack:
        result.bound_outer = None
