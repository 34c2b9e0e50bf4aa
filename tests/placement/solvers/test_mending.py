"""Mending after the twin's verdicts."""

from __future__ import annotations

from placement.problem.problem import GpuAssignment
from placement.solvers.mending import STEP, warned
from tests.placement.synthetic import adapter, option, problem


def test_slots_that_nobody_needs_are_no_way_around_a_reserve() -> None:
    """A refuted GPU came back with the same adapters and more slots, of which nothing had been refuted."""
    options = [option(8, 8), option(8, 32), option(96, 32), option(4, 8)]
    posed = problem([adapter(f"a{i}", 0.1) for i in range(6)], options=options)
    reserve = warned(posed, [GpuAssignment(0, tuple(range(6)))], 1).reserve
    assert min(reserve[:3]) >= STEP
    assert len(set(reserve[:3])) == 1
    assert reserve[3] == 0.0
