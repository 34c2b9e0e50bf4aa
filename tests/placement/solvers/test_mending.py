"""Mending after the twin's verdicts."""

from __future__ import annotations

import math

from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, violations
from placement.solvers.mending import STEP, mend, warned
from tests.placement.synthetic import adapter, option, problem

OPTIONS = [option(8, 8), option(8, 32), option(96, 32)]


def load(posed: PlacementProblem, gpu: GpuAssignment) -> float:
    return sum(posed.items[i].rate_req_per_s for i in gpu.items)


def mended(posed: PlacementProblem, placement: Placement, *, round_: int = 1, most: int = 2) -> Placement:
    unwanted = [0]
    banned = warned(posed, [placement.gpus[k] for k in unwanted])
    found = mend(banned, placement, unwanted, round_=round_, most=most, seed=0, deadline=math.inf)
    assert found is not None
    assert violations(banned, found) == []
    return found


def test_a_refuted_gpu_gives_a_part_of_its_load_to_the_others() -> None:
    """Whatever setting it gets: more slots are no way around it."""
    posed = problem([adapter(f"a{i}", 1.0) for i in range(12)], options=OPTIONS, max_gpus=2)
    before = Placement((GpuAssignment(0, tuple(range(8))), GpuAssignment(0, tuple(range(8, 12)))))
    after = mended(posed, before)
    assert len(after.gpus) == 2
    kept = next(g for g in after.gpus if len(set(g.items) & set(range(8))) >= 4)
    assert load(posed, kept) <= (1 - STEP) * 8.0
    later = mended(posed, before, round_=8)
    assert max(load(posed, g) for g in later.gpus) <= (1 - 8 * STEP) * 8.0 + 1e-9


def test_a_gpu_is_added_where_nobody_has_room() -> None:
    posed = problem([adapter(f"a{i}", 6.0) for i in range(6)], options=OPTIONS)
    full = Placement((GpuAssignment(0, (0, 1, 2)), GpuAssignment(0, (3, 4, 5))))
    assert violations(posed, full) == []
    after = mended(posed, full, most=9)
    assert len(after.gpus) == 3


def test_as_many_gpus_are_added_as_it_takes_up_to_those_that_exist() -> None:
    posed = problem([adapter(f"a{i}", 6.0) for i in range(12)], options=OPTIONS)
    full = Placement(tuple(GpuAssignment(0, tuple(range(g, g + 3))) for g in range(0, 12, 3)))
    banned = warned(posed, full.gpus)
    found = mend(banned, full, range(4), round_=8, most=8, seed=0, deadline=math.inf)
    assert found is not None and 6 <= len(found.gpus) <= 8
    assert mend(banned, full, range(4), round_=8, most=4, seed=0, deadline=math.inf) is None
