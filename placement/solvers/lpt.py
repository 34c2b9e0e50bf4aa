"""Longest-processing-time deal: by falling load, every item to the GPU that is least full.

The load of an item is its use of the facet that binds first when the whole mix grows, under the setting that needs
the fewest GPUs for that mix. Loads add up to the number of GPUs that a divisible workload would need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.problem.objectives import GpuCount
from placement.problem.problem import Array, PlacementProblem

_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Tier:
    """Items that may use the same options (in practice: one rank), or all items.

    Args:
        items: item indices.
        load: GPUs of type t that each item fills, (n, T); inf where a type cannot serve the tier.
        option: setting of each type behind `load`, (T,); -1 where there is none.
    """

    items: NDArray[np.int64]
    load: Array
    option: NDArray[np.int64]


def tier_of(problem: PlacementProblem, items: NDArray[np.int64]) -> Tier:
    """Loads of items that share GPUs, under options that all of them may use."""
    phi = problem.phi[items]
    total = phi.sum(axis=0)
    usable = problem.allowed[items].all(axis=0)
    load = np.full((len(items), len(problem.stock)), np.inf)
    option = np.full(len(problem.stock), -1)
    for o in np.flatnonzero(usable):
        model, t = problem.options[o], problem.option_type[o]
        rows = np.vstack([model.feasible.G, model.hull.G])
        room = -np.concatenate([model.feasible.g, model.hull.g])
        mine = np.full(len(items), _TINY)
        if len(room):  # a setting without facets holds a multiple of the workload
            rows, room = rows[room > 0], room[room > 0]
            use = (rows / room[:, None]) @ total
            if not len(use):
                continue
            mine = np.maximum(phi @ (rows[use.argmax()] / room[use.argmax()]), _TINY)
        if mine.sum() < load[:, t].sum():
            load[:, t], option[t] = mine, o
    return Tier(items, load, option)


def tiers_by_mask(problem: PlacementProblem) -> list[Tier]:
    """One tier per set of allowed options, fewest options (highest rank) first."""
    masks, tier_index = np.unique(problem.allowed, axis=0, return_inverse=True)
    order = np.argsort(masks.sum(axis=1), kind="stable")
    return [tier_of(problem, np.flatnonzero(tier_index.ravel() == k)) for k in order]


def fleet_order(problem: PlacementProblem, tiers: list[Tier], gpus: int) -> list[int]:
    """Types of the first `gpus` GPUs: the type that serves the workload at the lowest price first, up to its stock;
    where no term prices GPUs, the type of which fewest serve it.
    """
    prices_gpus = any(isinstance(t, GpuCount) for t in problem.terms)
    price = np.array([problem.context.price[t] if prices_gpus else 1.0 for t in problem.gpu_types])
    total = price * sum(t.load.sum(axis=0) for t in tiers)
    # types that cannot serve every tier come last, by price
    order = np.lexsort((price, np.where(np.isfinite(total), total, np.inf)))
    fleet: list[int] = []
    for t in order:
        fleet += [int(t)] * int(min(problem.stock[t], gpus - len(fleet)))
    return fleet


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a GPU reserved for a tier: its share of the GPU."""

    gpu: int
    size: float


def _cut(tiers: list[Tier], fleet: list[int], stretch: float) -> tuple[list[list[_Piece]], float]:
    """Reserves GPUs tier by tier, filling each to `stretch`; also returns the load that found no room."""
    free = [1.0] * len(fleet)
    pieces: list[list[_Piece]] = []
    lost = 0.0
    for tier in tiers:
        need = tier.load.sum(axis=0)  # GPUs of each type for the whole tier
        rest, mine = 1.0, []
        for g, t in enumerate(fleet):
            if free[g] > _TINY and np.isfinite(need[t]) and rest > _TINY:
                share = min(rest, free[g] * stretch / need[t])
                used = share * need[t] / stretch
                mine.append(_Piece(g, used))
                free[g] -= used
                rest -= share
        lost += max(rest, 0.0)
        pieces.append(mine)
    return pieces, lost


def deal_lpt(
    problem: PlacementProblem, tiers: list[Tier], fleet: list[int]
) -> tuple[list[list[int]], list[int]] | None:
    """Members and options of each GPU, or None if some tier or replica finds no GPU.

    With one tier all GPUs share everything; with several, GPUs are reserved tier by tier, so that few GPUs carry
    the slots of a high rank. Pinned items go first, the n-th pin to the n-th GPU.
    """
    low, high = 0.0, 64.0  # the smallest fill at which everything finds room
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _cut(tiers, fleet, middle)[1] <= 1e-6 else (middle, high)
    pieces, lost = _cut(tiers, fleet, high)
    if lost > 1e-6:
        return None
    members: list[list[int]] = [[] for _ in fleet]
    options = [-1] * len(fleet)
    hosted: dict[int, set[int]] = {}
    pins = problem.pin_of
    if int(pins.max(initial=-1)) >= len(fleet):
        return None
    preload = np.zeros(len(fleet))
    for tier in tiers:
        for row in np.flatnonzero(pins[tier.items] >= 0).tolist():
            item = int(tier.items[row])
            gpu = int(pins[item])
            members[gpu].append(item)
            hosted.setdefault(int(problem.item_adapter[item]), set()).add(gpu)
            preload[gpu] += tier.load[row, fleet[gpu]]
    for tier, mine in zip(tiers, pieces, strict=True):
        gpus = np.array([p.gpu for p in mine])
        types = np.array([fleet[g] for g in gpus])
        size = np.array([max(p.size, 1e-6) for p in mine])
        fill = preload[gpus]
        for row in np.argsort(-tier.load.min(axis=1), kind="stable").tolist():
            item = int(tier.items[row])
            if pins[item] >= 0:
                continue
            after = (fill + tier.load[row, types]) / size
            taken = hosted.setdefault(int(problem.item_adapter[item]), set())
            if taken:
                after[np.isin(gpus, list(taken))] = np.inf
            best = int(after.argmin())
            if not np.isfinite(after[best]):
                return None
            fill[best] += tier.load[row, types[best]]
            members[gpus[best]].append(item)
            taken.add(int(gpus[best]))
        for g, t in zip(gpus.tolist(), types.tolist(), strict=True):
            if options[g] < 0:  # tiers come by falling rank, so the first one's setting serves the later ones
                options[g] = int(tier.option[t])
    fallback = [int(np.flatnonzero(problem.option_type == t)[0]) for t in fleet]
    return members, [o if o >= 0 else f for o, f in zip(options, fallback, strict=True)]
