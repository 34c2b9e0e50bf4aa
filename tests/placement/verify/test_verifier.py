"""Verification: how many windows a GPU gets, and what they decide."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from placement.verify.ends import BothEnds
from placement.verify.verdict import OUT_OF_TIME
from placement.verify.verifier import FIRST_SEED, TRIAL_SEED, TwinVerifier
from tests.placement.synthetic import adapter
from tests.placement.verify.hours import COLUMN, hour
from twin.errors import InputError
from twin.figures.health import Stable
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting

OTHER = Column((adapter("b", 2.0),), COLUMN.setting)
CALIBRATION = load_calibration("llama-3.1-8b-h100-64gb")
CALIBRATIONS = {CALIBRATION.gpu.name: CALIBRATION}


def verifier(**options: Any) -> TwinVerifier:
    return TwinVerifier(threads=1, **options)


def test_a_healthy_column_is_accepted_after_the_hours_of_the_claim() -> None:
    seen: list[int] = []

    def run(column: Column, seed: int, window_s: float) -> Any:
        seen.append(seed)
        return hour()

    checked = verifier().judged([COLUMN], Stable(), run, first_seed=7)
    assert checked.passed
    assert sorted(seen) == list(range(7, 67))
    assert checked.gpus[0].seeds == tuple(range(7, 67))
    assert (checked.gpus[0].hours, checked.gpus[0].bad_hours) == (60, 0)


@pytest.mark.parametrize(("bad", "hours"), [({"late": 0.9}, 3), ({"served": 0.5}, 3), ({"per_adapter": (200, 60)}, 3)])
def test_a_hopeless_column_costs_three_hours(bad: dict[str, Any], hours: int) -> None:
    checked = verifier().judged([COLUMN], Stable(), lambda c, s, w: hour(**bad), first_seed=0)
    assert checked.gpus[0].decision == "refuted"
    assert checked.gpus[0].hours == hours


def test_bad_hours_among_the_first_are_made_up_for_by_more() -> None:
    """Two windows of sixty with 3 % late is no proof of anything: twice as many are."""
    checked = verifier().judged([COLUMN], Stable(), lambda c, s, w: hour(0.03 if s in (5, 9) else 0.001), first_seed=0)
    assert checked.passed
    assert (checked.gpus[0].hours, checked.gpus[0].bad_hours) == (120, 2)


def test_what_stays_open_is_undecided_and_not_refuted() -> None:
    def on_the_limit(column: Column, seed: int, window_s: float) -> Any:
        return hour(0.0118 if seed % 2 else 0.0082)

    checked = verifier(hours=50, max_hours=100).judged([COLUMN], Stable(), on_the_limit, first_seed=0)
    assert checked.gpus[0].decision == "undecided"
    assert not checked.passed
    assert checked.having("refuted") == []
    assert "late requests" in checked.gpus[0].reason


def test_a_column_far_below_the_limit_is_decided_however_it_varies() -> None:
    """0.36 % late on average, spread over hours: twelve hours could not tell, sixty can."""
    checked = verifier().judged(
        [COLUMN], Stable(), lambda c, s, w: hour((0.0, 0.002, 0.009, 0.0034)[s % 4]), first_seed=0
    )
    assert checked.gpus[0].decision == "accepted"


def test_only_open_columns_are_simulated_again() -> None:
    def run(column: Column, seed: int, window_s: float) -> Any:
        return hour(0.0 if column is COLUMN else 0.9)

    checked = verifier().judged([COLUMN, OTHER], Stable(), run, first_seed=0)
    assert [g.hours for g in checked.gpus] == [60, 3]
    assert checked.having("refuted") == [1]


def test_one_refuted_gpu_can_end_it_for_all() -> None:
    def run(column: Column, seed: int, window_s: float) -> Any:
        return hour(0.0 if column is COLUMN else 0.9)

    checked = verifier().judged([COLUMN, OTHER], Stable(), run, first_seed=0, stop_at_refuted=True)
    assert [g.decision for g in checked.gpus] == ["undecided", "refuted"]
    assert checked.gpus[0].hours == 3
    assert "not judged further" in checked.gpus[0].reason


def test_gpus_alike_share_hours_and_each_gets_some_of_its_own() -> None:
    many = [Column((adapter(f"a{k}", 1.0),), COLUMN.setting) for k in range(40)]
    checked = verifier().judged(many, Stable(), lambda c, s, w: hour(), first_seed=0)
    assert checked.passed
    assert {g.hours for g in checked.gpus} == {120}
    assert {len(g.seeds) for g in checked.gpus} == {3}
    assert {g.alike for g in checked.gpus} == {40}
    seeds = [s for g in checked.gpus for s in g.seeds]
    assert len(set(seeds)) == 120


def test_gpus_alike_may_differ_by_an_adapter() -> None:
    many = [Column(tuple(adapter(f"a{k}-{i}", 1.0) for i in range(100 + k % 2)), COLUMN.setting) for k in range(4)]

    def run(column: Column, seed: int, window_s: float) -> Any:
        found = hour()
        found.counts = np.full(len(column.adapters), 30)
        found.late_counts = np.zeros(len(column.adapters), np.int64)
        return found

    checked = verifier().judged(many, Stable(), run, first_seed=0)
    assert checked.passed
    assert {g.alike for g in checked.gpus} == {4}


def test_a_gpu_that_fails_in_all_its_own_hours_is_not_saved_by_the_others() -> None:
    many = [Column((adapter(f"a{k}", 1.0),), COLUMN.setting) for k in range(40)]
    checked = verifier().judged(many, Stable(), lambda c, s, w: hour(0.05 if c is many[7] else 0.0), first_seed=0)
    assert not checked.passed
    assert "of its own 3 hours" in checked.gpus[7].reason


def test_no_request_is_no_verdict() -> None:
    silent = Column((adapter("a", 1e-9),), COLUMN.setting)
    checked = verifier().judged([silent], Stable(), lambda c, s, w: hour(requests=0), first_seed=0)
    verdict = checked.gpus[0]
    assert verdict.decision == "untested"
    assert "no request arrived" in verdict.reason
    assert verdict.window_s == 365 * 86_400
    assert not checked.passed


def test_few_requests_are_no_verdict_either() -> None:
    checked = verifier().judged([COLUMN], Stable(), lambda c, s, w: hour(requests=1), first_seed=0)
    assert checked.gpus[0].decision == "undecided"
    assert "only 240 requests arrived" in checked.gpus[0].reason
    assert checked.gpus[0].few_requests == 0
    rare = verifier(max_hours=60).judged([COLUMN], Stable(), lambda c, s, w: hour(requests=s % 2), first_seed=0)
    assert rare.gpus[0].few_requests == 1


def test_windows_are_as_long_as_it_takes_for_requests_to_arrive() -> None:
    lengths: set[float] = set()

    def run(column: Column, seed: int, window_s: float) -> Any:
        lengths.add(window_s)
        return hour(requests=8)

    daily = Column((adapter("a", 1 / 86_400),), COLUMN.setting)
    assert verifier().judged([daily], Stable(), run, first_seed=0).passed
    (length,) = lengths
    # 299 requests tell whether 1 % of them are late; half as many again are asked for, over 60 windows.
    assert length == pytest.approx(1.5 * 299 * 86_400 / 60)


def test_an_adapter_that_hardly_sends_is_tested_in_the_twin() -> None:
    column = Column((adapter("a", 1e-5), adapter("b", 5e-6)), EngineSetting(CALIBRATION.stamp.gpu_type, 8, 16))
    checked = TwinVerifier(hours=50, max_hours=50).columns([column], CALIBRATIONS, Stable(), round_=0)
    assert checked.gpus[0].accepted
    assert checked.gpus[0].simulated["e2e_mean_s"] > 0


def test_every_round_and_seed_has_windows_of_its_own() -> None:
    used: list[set[int]] = []
    lock = threading.Lock()

    class Counting(TwinVerifier):
        def judged(self, *arguments: Any, first_seed: int, **options: Any) -> Any:
            with lock:
                used.append({first_seed, first_seed + 300_000})
            return super().judged([], *arguments[1:], first_seed=first_seed, **options)

    for seed in (0, 1):
        for round_ in (0, 1, 8):
            Counting(seed=seed).columns([COLUMN], CALIBRATIONS, Stable(), round_=round_)
    assert min(min(u) for u in used) == FIRST_SEED
    starts = sorted(min(u) for u in used)
    assert all(b - a > 300_000 for a, b in pairwise(starts)), "even 100,000 GPUs share no seed"


@pytest.mark.parametrize(
    "bad",
    [
        {"hours": 49},
        {"max_hours": 59},
        {"error": 0.0},
        {"error": 0.5},
        {"bad_hours": 1.0},
        {"horizon_s": 0.0},
        {"threads": 0},
        {"max_rounds": -1},
        {"replay_windows": -1},
    ],
)
def test_verifier_refuses(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        TwinVerifier(**bad)


def test_without_time_for_a_single_hour_nothing_is_decided() -> None:
    checked = verifier().judged([COLUMN], Stable(), lambda *_: hour(), first_seed=7, deadline=0.0)
    (verdict,) = checked.gpus
    assert (verdict.decision, verdict.reason, verdict.simulated, verdict.seeds) == ("undecided", OUT_OF_TIME, {}, ())


def test_how_long_it_takes_is_told_by_an_hour_of_the_busiest_column(monkeypatch: pytest.MonkeyPatch) -> None:
    now, played = [0.0], list[tuple[Column, int]]()

    def hour_of(column: Column, calibration: Any, constraint: Any, seed: int, window_s: float) -> None:
        played.append((column, seed))
        now[0] += 5.0 if len(played) == 1 else 0.5  # the first one loads what was compiled

    monkeypatch.setattr("placement.verify.verifier.one_window", hour_of)
    monkeypatch.setattr("placement.verify.verifier.timing.now", lambda: now[0])
    columns = [COLUMN, OTHER, Column((adapter("c", 90.0),), COLUMN.setting)]
    one = verifier()
    assert one.expected_s(columns, {"gpu": CALIBRATION}, Stable()) == pytest.approx(3 * 60 * 0.5)
    assert {column for column, _ in played} == {columns[2]}
    assert all(seed >= TRIAL_SEED for _, seed in played), "no seed of a verification"
    played.clear()
    both = BothEnds(one, CALIBRATIONS)
    assert both.expected_s(columns, {"gpu": CALIBRATION}, Stable()) == pytest.approx(2 * 3 * 60 * 0.5)
    assert BothEnds(object(), CALIBRATIONS).expected_s(columns, {"gpu": CALIBRATION}, Stable()) == 0  # type: ignore[arg-type]
