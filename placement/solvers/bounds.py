"""What no placement beats: bounds of the planning model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.problem import timing
from placement.problem.objectives import GpuCount, relaxed_terms, without_convex_form
from placement.problem.prices import PriceTable, class_caps, slot_features
from placement.problem.problem import Placement, PlacementProblem, evaluate
from placement.problem.rows import ColumnRows, Cuts
from placement.solvers.aggregate import Aggregate
from placement.solvers.certificate import Certificate, price_table, rounded_bound
from placement.solvers.pool import ColumnPool
from placement.solvers.priced import Priced, PriceList
from surrogates.pieces.fleet import Judge

Indices = NDArray[np.int64]

#: Relative difference that is none.
MET = 1e-6
#: GPUs of a placement that climbs begin from, one of those whose features agree to 1 / ALIKE; moves of a step.
KINDS, ALIKE, MOVES = 32, 8, 96


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
        table: the same prices per feature, for the problem with relaxed terms.
    """

    value: float
    columns: int = 0
    beyond: float = math.nan
    certificate: Certificate | None = None
    cuts: Cuts | None = None
    table: PriceTable | None = None


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
    of the time that it needs and may have. The pieces are used
    only where a placement meets their bound, or where no column could be looked at.

    Args:
        refinements: rounds of finer classes, each of which costs more than the bound itself and raises it a little.
        known: placements: near their columns others are looked for that cost less.

    Raises:
        KeyboardInterrupt: Ctrl-C came; HiGHS itself raises nothing.
    """
    return _proven(problem, time_limit_s, refinements, known)[0]


def proven_bounds(
    problem: PlacementProblem, time_limit_s: float, more_s: float, *, known: Sequence[Placement] = ()
) -> tuple[Bound | None, Bound | None]:
    """The bound with the safety margin, and the one without it, which is never higher.

    Args:
        time_limit_s: of the first; more_s: of the second, which begins with the columns and prices of the first.
    """
    bound, prices = _proven(problem, time_limit_s, 1, known)
    if problem.model is None:
        return bound, proven_bound(outer(problem), more_s)
    if prices is None or bound is None:  # pieces on the optimistic side keep no margin
        return bound, bound
    without = prices.under(replace(outer(problem), terms=prices.problem.terms))
    deadline = timing.now() + more_s
    without.audit(deadline)  # first of all: this is what makes the other one's prices a bound here
    without.improve(deadline - timing.now())
    found = without.result()
    if found is None:
        return bound, None
    wider = _of_columns(prices.rows, found)
    # What no placement beats without the margin, none beats with it.
    return (bound if wider.value <= bound.value else wider), wider


def _proven(
    problem: PlacementProblem, time_limit_s: float, refinements: int, known: Sequence[Placement]
) -> tuple[Bound | None, PriceList | None]:
    """The bound, and the list of columns that it is from; None where it is from pieces."""
    if without_convex_form(problem, relaxed=True):
        return None, None
    began = timing.now()
    relaxed = replace(problem, terms=relaxed_terms(problem.terms))
    aggregate = Aggregate(bounding(relaxed))
    aggregate.prove(time_limit_s, refinements=refinements if problem.model is None else 0)
    if aggregate.interrupted:
        raise KeyboardInterrupt
    pieces = _of_pieces(aggregate)
    if problem.model is None or aggregate.certificate is None or pieces is None:
        return pieces, None
    best = min((evaluate(problem, p)[0] for p in known), default=math.inf)
    if math.isfinite(best) and abs(pieces.value - best) <= MET * abs(best):
        return pieces, None
    prices = PriceList(relaxed, aggregate.problem, known)
    prices.start(aggregate.certificate)
    prices.improve(began + time_limit_s - timing.now())
    timing.up(began + time_limit_s, "columns of the bound")
    if (
        not prices.audited
    ):  # prices of the pieces, lowered by columns, rather than prices that no column was held against
        prices.audit(began + time_limit_s)
    found = prices.result()
    if found is None:
        aggregate.refine(max(0.0, began + time_limit_s - timing.now()), refinements)
        pieces = _of_pieces(aggregate) or pieces
        return (None if pieces.value > best else pieces), None
    # Prices of the pieces are among those that were held against columns: where theirs is higher, a column refutes it.
    return _of_columns(aggregate.rows, found), prices


def _of_pieces(aggregate: Aggregate) -> Bound | None:
    if aggregate.bound is None or aggregate.certificate is None:
        return None
    table = price_table(aggregate.rows, aggregate.certificate, aggregate.reach)
    return Bound(aggregate.bound, certificate=aggregate.certificate, table=table)


def _of_columns(rows: ColumnRows, found: Priced) -> Bound:
    value = rounded_bound(rows, found.bound)
    return Bound(value, found.columns, found.beyond, found.certificate, found.cuts, found.table)


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
    """The problem without its safety margin, under which every placement of the problem itself is healthy.

    Less than the margin, where that much was asked for, stays less.
    """
    if problem.model is None:
        options = tuple(replace(o, feasible=o.outer) for o in problem.options)
        return replace(problem, options=options, banned=())
    model = problem.model.without_margin() if isinstance(problem.model, Judge) else problem.model
    return replace(problem, model=model, reserve=tuple(min(r, 0.0) for r in problem.reserve), banned=())


def held_against(problem: PlacementProblem, table: PriceTable, placement: Placement) -> PriceTable:
    """A list of prices, cut by a factor until no column that a climb from the placement's GPUs meets is dearer.

    For placements that were found after the list.
    """
    relaxed = replace(problem, terms=relaxed_terms(problem.terms))
    pool = ColumnPool(relaxed, np.random.default_rng(0))
    worth = slot_features(relaxed) @ table.beta.T + table.nu[table.class_of]
    opening = table.gamma - class_caps(relaxed, table.class_of) @ table.nu
    kinds: dict[tuple[int, bytes], Indices] = {}
    for gpu in placement.gpus:
        items = np.array(gpu.items, np.int64)
        sums = pool.psi[items].sum(axis=0)
        kinds.setdefault((gpu.option, np.round(ALIKE * sums / max(sums.max(), 1e-12)).tobytes()), items)
    for (option, _), items in list(kinds.items())[:KINDS]:
        pool.climb(option, items, worth[:, option], MOVES)
    factor = 1.0
    for o, own in enumerate(pool.of):
        value = np.array([worth[members, o].sum() for members in own.members]) + opening[o]
        dear = value > own.cost
        if dear.any():
            factor = min(factor, float((own.cost[dear] / value[dear]).min()))
    looked = replace(table, columns=table.columns + pool.looked)
    return looked if factor == 1.0 else replace(looked.scaled(max(factor, 0.0)), reach=table.reach)
