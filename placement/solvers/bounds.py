"""What no placement beats: bounds of the planning model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.problem import timing
from placement.problem.objectives import GpuCount, relaxed_terms, without_convex_form
from placement.problem.problem import Placement, PlacementProblem, evaluate
from placement.problem.rows import Cuts
from placement.solvers.aggregate import Aggregate
from placement.solvers.certificate import Certificate, rounded_bound
from placement.solvers.priced import PriceList

#: Relative difference that is none.
MET = 1e-6


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound for every placement, and what it rests on.

    Args:
        value: objective units.
        columns: 0 = it holds for every column of the pieces that it was computed from (which are the planning model
            itself, or lie below it on most columns of the workload); otherwise as many columns of the planning model
            were looked at, and it holds if none that was not is worth more than it costs.
        beyond: share of the last random columns that were worth more than any before; NaN where none were drawn.
        certificate, cuts: prove the value, up to whole GPUs, for `bounding` of the problem with relaxed terms
            (`placement.solvers.certificate.certifies`).
    """

    value: float
    columns: int = 0
    beyond: float = math.nan
    certificate: Certificate | None = None
    cuts: Cuts | None = None


def prove_bound(
    problem: PlacementProblem, time_limit_s: float, *, refinements: int = 1, known: Sequence[Placement] = ()
) -> float | None:
    """Lower bound for every placement under the planning model, from a price list; None if there is none.

    Arguments as in `proven_bound`.
    """
    found = proven_bound(problem, time_limit_s, refinements=refinements, known=known)
    return None if found is None else found.value


def proven_bound(
    problem: PlacementProblem, time_limit_s: float, *, refinements: int = 1, known: Sequence[Placement] = ()
) -> Bound | None:
    """The bound, and what it rests on.

    Where the planning model is not linear itself, two bounds are computed: that of pieces on its optimistic side
    (`PlacementProblem.below`), without any margin, and that of its columns (`placement.solvers.priced`), which uses all
    of the time that it needs and may have. The pieces are not used where a column or a placement refutes them.

    Args:
        refinements: rounds of finer classes, each of which costs more than the bound itself and raises it a little.
        known: placements: near their columns others are looked for that cost less.

    Raises:
        KeyboardInterrupt: Ctrl-C came; HiGHS itself raises nothing.
    """
    if without_convex_form(problem, relaxed=True):
        return None
    began = timing.now()
    relaxed = replace(problem, terms=relaxed_terms(problem.terms))
    aggregate = Aggregate(bounding(relaxed))
    aggregate.prove(time_limit_s, refinements=refinements if problem.model is None else 0)
    if aggregate.interrupted:
        raise KeyboardInterrupt
    pieces = None if aggregate.bound is None else Bound(aggregate.bound, certificate=aggregate.certificate)
    if problem.model is None or aggregate.certificate is None or pieces is None:
        return pieces
    best = min((evaluate(problem, p)[0] for p in known), default=math.inf)
    if math.isfinite(best) and abs(pieces.value - best) <= MET * abs(best):
        return pieces
    prices = PriceList(relaxed, aggregate.problem, known)
    prices.start(aggregate.certificate)
    prices.improve(began + time_limit_s - timing.now())
    timing.up(began + time_limit_s, "columns of the bound")
    found = prices.result()
    if found is None:
        aggregate.refine(max(0.0, began + time_limit_s - timing.now()), refinements)
        pieces = Bound(aggregate.bound or pieces.value, certificate=aggregate.certificate)
        return None if pieces.value > best else pieces
    columns = Bound(
        rounded_bound(aggregate.rows, found.bound), found.columns, found.beyond, found.certificate, found.cuts
    )
    # What no prices of the columns reach, no valid pieces reach.
    refuted = aggregate.price_list > found.value + MET * abs(found.value)
    return columns if refuted or pieces.value <= columns.value else pieces


def bounding(problem: PlacementProblem) -> PlacementProblem:
    """The linear problem whose bounds are bounds for this one."""
    if problem.model is None:
        return problem
    return replace(problem, options=problem.below, model=None, below=(), reserve=())


def certified_minimum(problem: PlacementProblem, time_limit_s: float, *, known: Sequence[Placement] = ()) -> int | None:
    """Fewest GPUs that any placement needs under the planning model; None if that could not be proven."""
    price = dict.fromkeys(problem.context.price, 1.0)
    counted = replace(
        problem, terms=(GpuCount(),), context=replace(problem.context, price=price), max_gpus=None, banned=()
    )
    bound = prove_bound(counted, time_limit_s, known=known)
    return None if bound is None else max(1, math.ceil(bound - 1e-6))


def outer(problem: PlacementProblem) -> PlacementProblem:
    """The optimistic side: facets without the margin."""
    if problem.model is not None:
        return replace(bounding(problem), banned=())
    return replace(problem, options=tuple(replace(o, feasible=o.outer) for o in problem.options), banned=())
