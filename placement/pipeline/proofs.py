"""What is proven of a problem: that no placement exists, and what none reaches."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np

from placement.pipeline.clock import Clock
from placement.problem.objectives import GpuCount
from placement.problem.prices import fleet_limits, gpu_price, proven_worth, whole_gpus
from placement.problem.problem import PlacementProblem
from placement.problem.rows import COUNT, HULL
from placement.problem.solver import relative_gap
from placement.report.result import Result
from placement.solvers.bounds import bounding, certified_minimum, held_against, outer, proven_bounds

#: Share of the whole time for the bound, which uses what it gets, and for each further proof.
PROVING, BOUNDING = 0.1, 0.06
#: Share of the whole time for the bound without margin, which begins with what the other one found.
WITHOUT_MARGIN = 0.04
#: A gap beyond this share is worth more of the time that is left at the end, this share of the whole.
FAR, PROVING_AGAIN = 0.1, 0.25
#: Split adapters that are named.
MOST_NAMED = 4
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


def bound_result(result: Result, clock: Clock, share: float = PROVING) -> None:
    """Bounds of the problem, with its safety margin (`bound`) and without (`bound_outer`), and their price lists.

    Where the planning model is not linear they rest on its columns, as many as time allows.

    Args:
        share: of the whole time, for the first of them.
    """
    if clock.out_of_time():
        clock.cut[THE_BOUND] = None
        return
    known = () if result.placement is None else (result.placement,)
    with clock.phase(THE_BOUND):
        bound, without = proven_bounds(
            result.original, clock.part_s(share), clock.part_s(WITHOUT_MARGIN), known=known
        )  # fmt: skip
    result.price_tables = {
        name: found.table
        for name, found in (("bound", bound), ("bound_outer", without))
        if found is not None and found.table is not None
    }
    result.bounded_gpus, result.bounded_placement = result.original.max_gpus, result.placement
    values = [result.proven, *(None if found is None else found.value for found in (bound, without))]
    result.bound = max((v for v in values if v is not None), default=None)
    result.bound_outer = None if without is None else without.value
    result.bound_columns = (bound.columns if bound is not None else 0) or None
    terms = result.original.terms
    if len(terms) == 1 and isinstance(terms[0], GpuCount) and set(result.original.context.price.values()) == {1.0}:
        fewest = None if result.bound is None else result.bound * terms[0].scale / terms[0].weight
        result.certified_minimum = None if fewest is None else max(1, math.ceil(fewest - 1e-6))
        return
    # At the level of the pieces: the bound itself has had the time that there is.
    with clock.phase(THE_BOUND):
        pieces = outer(bounding(result.original))
        result.certified_minimum = certified_minimum(pieces, clock.part_s(BOUNDING))


def bound_again(result: Result, clock: Clock) -> None:
    """The bound once more, where the placement is another one since, or the clock ended it far from the placement."""
    gap = relative_gap(result.objective_now(), result.bound)
    grown = result.original.max_gpus != result.bounded_gpus
    moved = result.placement != result.bounded_placement and result.original.model is not None
    unfinished = THE_BOUND in clock.cut and (gap is None or gap > FAR)
    if not (grown or moved or unfinished) or clock.left_s() < clock.part_s(PROVING):
        return
    before = result.bound, result.bound_outer, result.price_tables, result.bound_columns, result.certified_minimum
    bound_result(result, clock, PROVING_AGAIN if unfinished else PROVING)
    if not (grown or moved) and before[0] is not None and (result.bound is None or result.bound < before[0]):
        result.bound, result.bound_outer, result.price_tables, result.bound_columns, result.certified_minimum = before


def settle_bounds(result: Result) -> None:
    """Bounds as the price lists prove them of the problem as it is now, and what the gap is made of.

    Since they were computed, the planning model's level may have been corrected, and the fleet may have grown.
    """
    problem, grown = result.original, result.original.max_gpus != result.bounded_gpus
    if grown:  # what a solver proved itself holds for the fleet that it had
        result.proven = result.bound = result.bound_outer = None
    if result.placement is not None and result.placement != result.bounded_placement and problem.model is not None:
        for name, table in result.price_tables.items():
            under = outer(problem) if name == "bound_outer" else problem
            result.price_tables[name] = held_against(under, table, result.placement)
    for name, table in result.price_tables.items():
        value = whole_gpus(proven_worth(problem, table), gpu_price(problem))
        said = result.proven if name == "bound" else None
        setattr(result, name, value if said is None else max(value, said))
    for name in ("bound", "bound_outer"):  # costs are not negative: such a list, of a smaller fleet, says nothing
        value = getattr(result, name)
        if problem.model is not None and value is not None and value <= 0.0:
            setattr(result, name, None)
            result.price_tables.pop(name, None)
    if result.bound is not None and result.bound_outer is not None:
        result.bound = max(result.bound, result.bound_outer)
    drop_disproved_bounds(result)
    result.gap = relative_gap(result.objective, result.bound)
    result.gap_parts = gap_parts(result)
    result.bound_rests_on = rests_on(result)


def gap_parts(result: Result) -> dict[str, float] | None:
    """What the gap to `bound_outer` is made of (docs/bounds.md); None without both price lists."""
    table, outer_ = result.price_tables.get("bound"), result.bound_outer
    if table is None or outer_ is None:
        return None
    price, size = gpu_price(result.original), max(abs(result.objective), 1e-12)
    objective = max(result.objective, outer_)
    listed = min(max(whole_gpus(proven_worth(result.original, table), price), outer_), objective)
    reach = whole_gpus(table.reach, price) if math.isfinite(table.reach) else listed
    reach = min(max(reach, listed), objective)
    return {
        "model": (reach - listed) / size,
        "rounding": (objective - reach) / size,
        "margin": (listed - outer_) / size,
    }


def rests_on(result: Result) -> list[str]:
    """Restrictions of the placements that the bounds speak of, where they bind."""
    problem, found = result.original, list[str]()
    if not result.price_tables and result.bound is None:
        return found
    tables = result.price_tables.values()
    if problem.max_gpus is not None and any(t.sigma_total > 0 for t in tables):
        found.append(f"fleets of at most {problem.max_gpus} GPUs")
    split = {name: m for name, m in Counter(a.adapter_id for a in problem.items).items() if m > 1}
    if split:
        named = ", ".join(f"{name} into {m}" for name, m in list(split.items())[:MOST_NAMED])
        more = f" and {len(split) - MOST_NAMED} more" if len(split) > MOST_NAMED else ""
        found.append(f"even splits into so many replicas: {named}{more}")
    kinds = {k for t in tables for k in t.rests_on}
    caps = {o.setting.max_cpu_loras for o in problem.options} - {None}
    full = any(
        sum(problem.items[i].rank > 0 for i in g.items) >= (problem.options[g.option].setting.max_cpu_loras or math.inf)
        for g in result.gpus
    )
    most = max((o.max_adapters for o in problem.options), default=0)
    if (COUNT in kinds or (caps and full)) and most < len(problem.items):
        found.append(f"at most {most} adapters on a GPU")
    if HULL in kinds:
        found.append("columns inside the range that the planning model was trained on")
    return found + result.left_out


def drop_disproved_bounds(result: Result) -> None:
    """A bound above a placement's objective is none: pieces may not fit columns unlike those they were made of."""
    if result.original.model is None:
        return
    slack = OPTIMAL_GAP * max(1.0, abs(result.objective))
    if result.bound is not None and result.bound > result.objective + slack:
        result.bound = None
        result.price_tables.pop("bound", None)
        result.warnings.append(
            "no bound is claimed: that of the planning model's linear pieces lies above this placement's objective"
        )
    if result.bound_outer is not None and result.bound_outer > result.objective + slack:
        result.bound_outer = None
        result.price_tables.pop("bound_outer", None)
