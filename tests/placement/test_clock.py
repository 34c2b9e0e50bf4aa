"""One clock: what it cuts short is said, and what it does not cut is the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from placement import place
from placement.pipeline.clock import Clock
from placement.pipeline.proofs import drop_disproved_bounds
from placement.problem import timing
from placement.report.result import Result
from placement.solvers import highs
from placement.solvers.bounds import prove_bound
from tests.placement.synthetic import power_law, problem


def slow(step_s: float) -> Callable[[], float]:
    """A clock that goes on by so many seconds whenever somebody looks at it."""
    looks = iter(range(10**9))
    return lambda: step_s * next(looks)


def plan(small: list[str], solver: str) -> tuple[Any, list[str]]:
    overrides = [*small[2:], "time_limit_s=60"]
    found = place(small[1].removeprefix("workload.path="), "latency", solver=solver, verify="none", overrides=overrides)
    data = found.to_dict()
    return (data["gpus"], data["objective"], data["bound"]), data["stopped_by_clock"]


@pytest.mark.parametrize("solver", ["portfolio", "greedy", "milp"])
def test_a_slower_machine_finds_the_same_or_says_that_the_clock_ended_it(
    solver: str, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "now", slow(0.0))
    unhurried, cut = plan(small, solver)
    assert not cut
    hurried = 0
    for step_s in (1e-6, 0.2, 5.0, 100.0):
        monkeypatch.setattr(timing, "now", slow(step_s))
        found, cut = plan(small, solver)
        assert cut or found == unhurried
        hurried += bool(cut)
    assert hurried


def test_a_phase_remembers_what_the_clock_ended_in_it() -> None:
    clock = Clock(60.0)
    with clock.phase("quick"):
        assert not timing.up(timing.now() + 60.0, "search")
    with clock.phase("slow"):
        assert timing.up(timing.now() - 1.0, "search")
    assert tuple(clock.cut) == ("slow",)


def test_ctrl_c_in_a_bound_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS notes it, and raises nothing: a bound that goes on as if nothing had happened hides it."""
    run = highs._run
    monkeypatch.setattr(highs, "_run", lambda solver: run(solver) or True)
    with pytest.raises(KeyboardInterrupt):
        prove_bound(problem(power_law(12)), 10.0)


def test_a_bound_above_a_placement_is_none() -> None:
    def result(bound: float) -> Result:
        original = SimpleNamespace(model=object())
        found = SimpleNamespace(
            original=original, objective=3.18, bound=bound, bound_outer=bound, warnings=[], price_tables={}
        )
        return cast("Result", found)

    wrong, right = result(3.30), result(3.10)
    drop_disproved_bounds(wrong)
    drop_disproved_bounds(right)
    assert (wrong.bound, wrong.bound_outer, len(wrong.warnings)) == (None, None, 1)
    assert (right.bound, right.bound_outer, right.warnings) == (3.10, 3.10, [])
