"""What the twin asks for where it refuses most of a placement."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from placement.pipeline import room
from placement.pipeline.room import LOADS, MORE, healthy_loads, own_loads, with_room
from placement.problem.problem import GpuAssignment, PlacementProblem
from tests.placement.synthetic import adapter, option, problem


@pytest.fixture
def posed() -> PlacementProblem:
    return problem([adapter(f"a{i}", 2.0) for i in range(8)], options=[option(8, 8), option(16, 8), option(64, 8)])


def healthy_below(monkeypatch: pytest.MonkeyPatch, limits: dict[int, float]) -> list[tuple[int, float]]:
    """A twin that is content with up to so many requests/s, by slots; returns what it was asked."""
    told: list[tuple[int, float]] = []

    def keeps(run: Any, column: Any, load: float) -> bool:
        told.append((column.setting.max_loras, load))
        return bool(load * sum(a.rate_req_per_s for a in column.adapters) <= limits[column.setting.max_loras])

    monkeypatch.setattr(room, "_keeps", keeps)
    return told


def test_the_twin_is_asked_about_more_slots_too(posed: PlacementProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    told = healthy_below(monkeypatch, {8: 5.0, 16: 9.0, 64: 100.0})
    loads = healthy_loads(None, posed, [GpuAssignment(0, (0, 1, 2, 3, 4))], math.inf)  # type: ignore[arg-type]
    assert loads[:2].tolist() == [0.5, 0.9] and np.isnan(loads[2])
    assert {slots for slots, _ in told} == {8, 16}
    assert len(told) <= 3 * math.ceil(math.log2(len(LOADS)) + 1)


def test_room_is_what_the_load_needs_and_grows_with_every_question(posed: PlacementProblem) -> None:
    first = with_room(posed, np.array([0.5, math.nan, 0.8]))
    assert first.reserve == pytest.approx([math.log(2) + MORE, math.log(2) + MORE, -math.log(0.8) + MORE])
    again = with_room(first, np.array([math.nan, math.nan, 0.5]))
    assert again.reserve[2] == pytest.approx(first.reserve[2] + math.log(2) + MORE)
    assert all(new >= old for new, old in zip(again.reserve, first.reserve, strict=True))


def test_nothing_is_learned_after_the_deadline(posed: PlacementProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    told = healthy_below(monkeypatch, {8: 5.0, 16: 5.0, 64: 5.0})
    gpus = [GpuAssignment(0, (0, 1, 2))]
    assert np.isnan(healthy_loads(None, posed, gpus, -math.inf)).all()  # type: ignore[arg-type]
    assert own_loads(None, posed, gpus, -math.inf, 2) == {}  # type: ignore[arg-type]
    assert not told


def test_lighter_columns_are_played(posed: PlacementProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    class Rule:
        def broken(self, results: Any) -> str:
            return ""

        def broken_window(self, result: float) -> str:
            return "too much" if result > 5.0 else ""

    def window(column: Any, *_: Any) -> float:
        seen.append(sum(a.rate_req_per_s for a in column.adapters))
        return seen[-1]

    monkeypatch.setattr(room, "one_window", window)
    run: Any = judged_by(Rule())
    assert own_loads(run, posed, [GpuAssignment(0, (0, 1, 2, 3))], math.inf, 2) == {0: pytest.approx(0.6 - 2 * MORE)}
    assert max(seen) < 8.0 * max(LOADS) and min(seen) <= 5.0


def judged_by(rule: Any) -> Any:
    return SimpleNamespace(verifier=None, calibration_of=lambda setting: None, constraint=rule)


def test_room_changes_nothing_else(posed: PlacementProblem) -> None:
    roomy = with_room(posed, np.full(3, 0.9))
    assert replace(roomy, reserve=()) == posed
