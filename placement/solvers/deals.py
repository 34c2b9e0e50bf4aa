"""First placements: ways to deal items to a number of GPUs, each a start for repair and local search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import Array, PlacementProblem
from placement.solvers.lpt import Tier, deal_lpt, fleet_order


@dataclass(frozen=True, slots=True)
class Deal:
    """Items and option of each GPU, lists of G."""

    members: list[list[int]]
    options: list[int]


def deals(problem: PlacementProblem, variants: list[list[Tier]], gpus: int) -> Iterator[Deal]:
    """Deals onto so many GPUs: by falling load (mixed, and GPUs reserved by tier), and blocks by rank and by rate."""
    for tiers in variants:
        fleet = fleet_order(problem, tiers, gpus)
        dealt = deal_lpt(problem, tiers, fleet) if len(fleet) == gpus else None
        if dealt is not None:
            yield Deal(*dealt)
    if gpus < 2 or len(problem.stock) > 1 or (problem.pin_of >= 0).any() or problem.replica_groups:
        return
    tiers = variants[0] if len(variants[0]) == 1 else variants[-1]
    load = np.full(len(problem.items), np.inf)
    for tier in tiers:
        load[tier.items] = tier.load.min(axis=1)
    if not np.isfinite(load).all():
        return
    rank = np.array([a.rank for a in problem.items])
    rate = np.array([a.rate_req_per_s for a in problem.items])
    for order in (np.lexsort((-rate, rank)), np.argsort(-rate, kind="stable")):
        yield blocks(problem, order, load, gpus)


def blocks(problem: PlacementProblem, order: NDArray[np.int64], load: Array, gpus: int) -> Deal:
    """Consecutive items of an order on each GPU, with equal loads; any setting that all of them may use."""
    ahead = np.cumsum(load[order]) - load[order] / 2
    gpu = np.minimum((ahead / load.sum() * gpus).astype(np.int64), gpus - 1)
    members = [order[gpu == g].tolist() for g in range(gpus)]
    options = []
    for items in members:
        usable = np.flatnonzero(problem.allowed[items].all(axis=0)) if items else np.zeros(0, np.int64)
        options.append(int(usable[-1]) if len(usable) else int(problem.allowed.sum(axis=0).argmax()))
    return Deal(members, options)
