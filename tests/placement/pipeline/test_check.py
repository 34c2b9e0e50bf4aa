"""The twin has the last word: what it does not accept is mended, what it accepted stays, and time ends it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from placement import place
from placement.pipeline.clock import Clock
from placement.problem import timing
from placement.verify.verdict import ColumnVerdict, Verification
from twin.server.column import Column


@dataclass
class Strict:
    """A verifier that knows better: GPUs with more than so many requests per second are bad."""

    most_req_per_s: float
    max_rounds: int = 8
    calls: list[list[float]] = field(default_factory=list)

    def columns(self, columns: Sequence[Column], *_: Any, **__: Any) -> Verification:
        self.calls.append([c.rate_req_per_s for c in columns])
        return Verification(
            tuple(
                ColumnVerdict("refuted" if c.rate_req_per_s > self.most_req_per_s else "accepted", "", (), {})
                for c in columns
            )
        )


def overrides(*more: str) -> list[str]:
    return [
        "workload=power_law", "workload.n_adapters=60", "workload.total_rate_req_per_s=12",
        "engine.max_loras=[16,32,64]",
        "engine.max_lora_rank=[16]", "workload.ranks=[8,16]", "time_limit_s=30", *more,
    ]  # fmt: skip


def test_load_is_moved_off_what_the_twin_refutes_before_a_gpu_is_added() -> None:
    judge = Strict(7.0)
    result = place(
        objective="latency", solver="greedy", verify=judge, overrides=overrides("hardware.count=2", "solver.effort=1")
    )
    assert result.status == "verified"
    assert len(result.gpus) == 2
    assert max(c.rate_req_per_s for c in result.columns) <= 7.0


def test_a_gpu_is_added_where_the_others_have_no_room() -> None:
    judge = Strict(5.0)
    result = place(solver="greedy", verify=judge, overrides=overrides("solver.effort=1"))
    assert result.status == "verified"
    assert len(result.gpus) >= 3
    assert max(c.rate_req_per_s for c in result.columns) <= 5.0


def test_a_given_fleet_does_not_grow() -> None:
    judge = Strict(5.0, max_rounds=2)
    result = place(solver="greedy", verify=judge, overrides=overrides("hardware.count=2", "solver.effort=1"))
    assert result.status == "unverified"
    assert len(result.gpus) <= 2
    assert any("twin" in w for w in result.warnings)


def test_what_was_accepted_is_not_judged_again_as_long_as_it_stays() -> None:
    judge = Strict(5.0)
    result = place(solver="greedy", verify=judge, overrides=overrides("solver.effort=1"))
    assert len(judge.calls) > 1
    seen: list[float] = []
    for call in judge.calls:
        for rate in call:
            accepted = [r for r in seen if r <= 5.0]
            assert rate not in accepted
        seen += call
    assert result.verification is not None and result.verification.passed


def test_a_clock_says_what_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("placement.problem.timing.now", lambda: now[0])
    clock = Clock(10.0, began=0.0)
    assert clock.left_s() == 10.0 and clock.left_s(0.3) == 3.0 and clock.part_s(0.5) == 5.0
    with clock.phase("the solver"):
        now[0] = 4.0
        assert timing.up(3.0, "kicks")
    with clock.phase("the bound"):
        assert not timing.up(5.0, "columns")
    assert list(clock.cut) == ["the solver"]
    now[0] = 12.0
    assert clock.out_of_time() and clock.left_s() == pytest.approx(0.1)
    assert math.isclose(clock.spent_s(), 12.0)
