"""What is learned from GPUs that the twin refuted."""

from __future__ import annotations

from placement.problem.problem import GpuAssignment, Placement, violations
from placement.problem.refuted import tighten
from tests.placement.synthetic import adapter, problem


def test_tightening_excludes_the_refuted_column_and_little_else() -> None:
    whole = problem([adapter(f"a{i}", 1.0) for i in range(12)])
    load = GpuAssignment(0, tuple(range(8)))
    while whole.options[0].violation(whole.phi[list(load.items)].sum(axis=0)[None])[0] > 0:
        load = GpuAssignment(0, load.items[:-1])
    tightened = tighten(whole, [load], 1)
    phi = whole.phi[list(load.items)].sum(axis=0)[None]
    assert (0, frozenset(load.items)) in tightened.banned
    # A column of the same load is excluded too if the refuted one was near the boundary; half of it is not.
    assert tightened.options[0].violation(0.5 * phi)[0] <= 0
    rest = tuple(i for i in range(12) if i not in load.items)
    found = violations(tightened, Placement((load, GpuAssignment(1, rest))))
    assert any("refuted" in text for text in found)
    for before, after in zip(whole.options[1:], tightened.options[1:], strict=True):
        assert after is before


def test_later_rounds_tighten_every_setting() -> None:
    whole = problem([adapter(f"a{i}", 1.0) for i in range(12)])
    gpu = GpuAssignment(0, (0, 1, 2))
    second, third = tighten(whole, [gpu], 2), tighten(whole, [gpu], 3)
    phi = whole.phi[:6].sum(axis=0)[None]
    for option in range(1, len(whole.options)):
        slack = [-float(p.options[option].feasible.violation(phi)[0]) for p in (whole, second, third)]
        assert slack[0] > slack[1] > slack[2]
