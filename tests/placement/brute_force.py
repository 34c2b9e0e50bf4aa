"""The exact optimum of a tiny problem: every partition of the items, every choice of options."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from placement.problem import GpuAssignment, Placement, PlacementProblem, evaluate, violations


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
    best: float | None = None
    most = len(problem.items) if problem.max_gpus is None else problem.max_gpus
    for partition in partitions(list(range(len(problem.items)))):
        if len(partition) > most:
            continue
        fitting = []
        for block in partition:
            phi = problem.phi[block].sum(axis=0)[None]
            fitting.append(
                [
                    o
                    for o, model in enumerate(problem.options)
                    if problem.allowed[block, o].all() and model.violation(phi)[0] <= 0
                ]
            )
        for choice in product(*fitting):
            placement = Placement(
                tuple(GpuAssignment(o, tuple(b)) for o, b in zip(choice, partition, strict=True))
            )
            value = evaluate(problem, placement)[0]
            if (best is None or value < best) and not violations(problem, placement):
                best = value
    return best
