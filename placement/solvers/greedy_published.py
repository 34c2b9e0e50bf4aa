"""The greedy of the Placement publication: pack GPU after GPU, ask the model at testing points.

Placement publication (arXiv 2602.24044): adapters are sorted and packed onto one GPU at a time; at given adapter
counts ("testing points") the model is asked, for every A_max (`max_loras`), whether throughput still rises and nothing
starves; the last such point is kept with its best A_max, and what came after it goes to the next GPU.

Assumed where a planning model, and not the publication's throughput predictor, is asked:

* Inside the facets nothing starves, so throughput is the offered load and rises with every adapter: "still rises and
  nothing starves" becomes "some setting is feasible". Among feasible settings the one with the most room is taken.
* Adapters are sorted by falling rank, then by falling rate, so that few GPUs pay for high ranks.
* Testing points 1, 2 and 4 come before the published 8, 16, 32, 64, ..., so that a GPU may hold a few hot adapters.
* GPU types come in order of price, within their stock. Of an adapter's replicas, one goes on each GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.problem import timing
from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, evaluate, violations
from placement.problem.solver import Capabilities, SolveReport
from placement.solvers.capabilities import SHEET, refuse
from placement.solvers.search_state import FEASIBLE

TESTING_POINTS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 256, 320, 384)


@dataclass(frozen=True, slots=True)
class GreedyPublished:
    """One pass, no improvement, no bound. Minimises GPUs only; other terms are reported, not optimised.

    Args:
        testing_points: adapter counts at which the model is asked, rising.
    """

    testing_points: Sequence[int] = TESTING_POINTS
    name: str = "greedy_published"

    @property
    def capabilities(self) -> Capabilities:
        return SHEET["greedy_published"]

    def solve(
        self, problem: PlacementProblem, *, time_limit_s: float, warm_start: Placement | None = None
    ) -> SolveReport:
        """Packs; a warm start is of no use to one pass and is ignored.

        Raises:
            InputError: the objective has no `gpu_count` term, columns are banned (it would build them again), or
                adapters are pinned to single GPUs.
        """
        refuse(problem, self)
        start = timing.now()
        waiting = sorted(
            range(len(problem.items)),
            key=lambda i: (-problem.items[i].rank, -problem.items[i].rate_req_per_s, i),
        )
        # The publication knows one type of GPU: of several, each is tried first, the others by their price.
        price = np.array([problem.context.price[t] for t in problem.gpu_types])
        by_price = np.argsort(price, kind="stable").tolist()
        found = [
            self._packed(problem, waiting, [first, *(t for t in by_price if t != first)], start + time_limit_s)
            for first in by_price
        ]
        gpus, waiting = min(
            found, key=lambda f: (len(f[1]) > 0, sum(price[problem.option_type[g.option]] for g in f[0]))
        )
        placement = None if waiting else Placement(tuple(gpus))
        if placement is not None and violations(problem, placement):
            placement = None
        runtime_s = timing.now() - start
        return SolveReport(
            status="no_solution" if placement is None else "feasible",
            termination="time_limit" if runtime_s >= time_limit_s else "gap",
            placement=placement,
            objective=float("nan") if placement is None else evaluate(problem, placement)[0],
            bound=None,
            gap=None,
            runtime_s=runtime_s,
            solver=self.name,
            details={"unplaced": float(len(waiting))},
        )

    def _packed(
        self, problem: PlacementProblem, waiting: list[int], types: list[int], deadline: float
    ) -> tuple[list[GpuAssignment], list[int]]:
        """GPUs filled one after the other, each of the first type that is left and takes something, and the rest."""
        left = problem.stock.copy()
        most = int(left.sum()) if problem.max_gpus is None else problem.max_gpus
        gpus: list[GpuAssignment] = []
        while waiting and len(gpus) < most and not timing.up(deadline, "packing"):
            for t in types:
                filled = self._fill(problem, waiting, t) if left[t] > 0 else None
                if filled:
                    break
            if not filled:
                break
            left[t] -= 1
            gpus.append(filled)
            taken = set(filled.items)
            waiting = [i for i in waiting if i not in taken]
        return gpus, waiting

    def _fill(self, problem: PlacementProblem, waiting: list[int], gpu_type: int) -> GpuAssignment | None:
        """One GPU: adapters in order up to the last testing point that passes; None if not even the first does."""
        queue: list[int] = []
        hosted: set[int] = set()
        longest = max(self.testing_points)
        for i in waiting:
            owner = int(problem.item_adapter[i])
            if owner not in hosted:
                hosted.add(owner)
                queue.append(i)
            if len(queue) == longest:
                break
        sums = np.cumsum(problem.phi[queue], axis=0)
        slots = np.cumsum([problem.items[i].rank > 0 for i in queue])
        usable = np.logical_and.accumulate(problem.allowed[queue], axis=0)
        points = np.array([p for p in self.testing_points if p < len(queue)] + [len(queue)]) - 1
        kept: tuple[int, int] | None = None
        own = np.flatnonzero(problem.option_type == gpu_type).tolist()
        excess = np.full((len(points), len(own)), np.inf)
        for column, o in enumerate(own):
            model = problem.options[o]
            fits = usable[points, o] & (slots[points] <= model.max_adapters)
            excess[:, column] = np.where(fits, model.violation(sums[points]), np.inf)
        for row, point in enumerate(points.tolist()):
            best = int(excess[row].argmin())
            if excess[row, best] > FEASIBLE:
                break
            kept = (point, own[best])
        return None if kept is None else GpuAssignment(kept[1], tuple(sorted(queue[: kept[0] + 1])))
