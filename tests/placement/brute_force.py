"""The exact optimum of a tiny problem: every partition of the items, every choice of options."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np

from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, violations


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All set partitions."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for partition in partitions(rest):
        yield [[first], *partition]
        for k in range(len(partition)):
            yield [*partition[:k], [first, *partition[k]], *partition[k + 1 :]]


def optimum(problem: PlacementProblem) -> float | None:
    """Least objective over all placements that break no rule; None if there is none."""
    weights = np.array([t.weight / t.scale for t in problem.terms])
    is_max = np.array([t.aggregate == "max" for t in problem.terms])

    @cache
    def fitting(block: tuple[int, ...]) -> list[tuple[int, np.ndarray]]:
        """Options that a block fits, with the weighted cost of each term."""
        found = []
        for o in range(len(problem.options)):
            columns = problem.columns_of([block], [o])
            if problem.allowed[list(block), o].all() and columns.violation[0] <= 0:
                found.append((o, weights * [t.cost(columns, problem.context)[0] for t in problem.terms]))
        return found

    best: float | None = None
    most = len(problem.items) if problem.max_gpus is None else problem.max_gpus
    for partition in partitions(list(range(len(problem.items)))):
        if len(partition) > most:
            continue
        blocks = [tuple(b) for b in partition]
        for choice in product(*map(fitting, blocks)):
            costs = np.array([c for _, c in choice])
            value = float(np.where(is_max, costs.max(axis=0), costs.sum(axis=0)).sum())
            if best is None or value < best:
                placement = Placement(tuple(GpuAssignment(o, b) for (o, _), b in zip(choice, blocks, strict=True)))
                if not violations(problem, placement):
                    best = value
    return best
