"""The figures of `benchmarks.near_threshold`: signed errors, the noise of seeds, and the labels of a perfect twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from benchmarks.near_threshold import by_margin, by_slots, folds_of, main, noise, signed, worth_of_terms
from profiling.fit.crossval import Evidence
from profiling.fit.forcing import ForcedRun
from profiling.fit.micro import features
from profiling.published.fidelity import COMPARED, Comparison
from profiling.published.runs import METRICS
from tests.profiling.published.test_replay import LLAMA, make_run
from twin.server.calibration import load_calibration
from twin.server.laws import STEP_TERMS


def seeds_of(measured: float, served: tuple[float, ...], *, slots: int = 8, factor: float = 1.1) -> list[Comparison]:
    """A run at a measured throughput / ideal, whose replays have these; every figure is `factor` times the measured."""
    run = make_run(max_loras=slots, metrics=dict.fromkeys(METRICS, 2.0) | {"throughput_over_ideal": measured})
    figures = dict.fromkeys(COMPARED, 2.0)
    predicted = {key: factor * value for key, value in figures.items()}
    return [Comparison(run, i, predicted, figures, s < 0.9, measured < 0.9, s) for i, s in enumerate(served)]


def test_errors_keep_their_sign() -> None:
    rows = signed([seeds_of(0.91, (0.91, 0.89)), seeds_of(0.88, (0.87, 0.88), factor=0.9)])
    assert rows["runs"] == 2 and rows["throughput"] == pytest.approx(0.0, abs=1e-9)
    assert rows["ttft"] == pytest.approx(100 * ((1.1 * 0.9) ** 0.5 - 1))
    assert rows["label_right"] == 75.0


def test_a_perfect_twin_misses_labels_near_the_threshold() -> None:
    """A run and a replay both scatter about the truth: at the threshold every second label is right, far away all."""
    at, near, far = (noise([seeds_of(x, (x - 0.01, x + 0.01))]) for x in (0.90, 0.91, 0.99))
    spread = 0.01 * 2**0.5
    assert at["perfect_twin"] == pytest.approx(50.0)
    assert near["perfect_twin"] == pytest.approx(100 * ndtr(0.01 / (2**0.5 * spread)))
    assert far["perfect_twin"] > 99.9 and far["labels_alike"] == 100.0 and at["labels_alike"] == 0.0
    assert at["spread_points"] == pytest.approx(100 * spread)


def test_groups_by_slots_and_margin_leave_out_what_is_empty() -> None:
    runs = [seeds_of(0.905, (0.9, 0.91)), seeds_of(0.86, (0.85, 0.86), slots=64)]
    assert list(by_slots(runs)) == [
        "1..8 slots", "33..64 slots", "llama-3.1-8b-instruct", "twin_validation_real", "all"
    ]  # fmt: skip
    assert [(name, row["runs"]) for name, row in by_margin(runs).items()] == [
        ("0..1 points", 1), ("3..5 points", 1), ("0..5 points", 2)
    ]  # fmt: skip


def test_a_term_that_the_runs_follow_is_worth_something() -> None:
    """Runs follow a law with the square of the slots; without that term workloads left out are missed."""
    rng = np.random.default_rng(0)
    calibration = load_calibration(LLAMA.calibration)
    law = replace(calibration.step, slot_square=0.2, lora_rank=0.0).as_array()[: len(STEP_TERMS)]
    forced = []
    for i in range(120):
        slots, batch = int(rng.choice([8, 64, 256])), float(rng.integers(10, 600))
        x = features(batch, 0.3 * batch, 300 * batch, float(rng.integers(1, slots + 1)), slots=slots, rank=16)
        run = make_run(run_id=f"r{i}", group=f"w{i % 6}", max_loras=slots)
        forced.append(ForcedRun(run, 1.0, x, float(x @ law), 0.0))
    evidence = {LLAMA.spec.name: Evidence(calibration, tuple(forced), ())}
    worth = worth_of_terms(evidence)
    assert worth["slot_square"]["low"] > 0.1 and worth["slot_square"]["more"] > 5 * abs(worth["skipped_seq"]["more"])
    folds = folds_of(evidence, [f.run for f in forced], 2)
    assert sorted(group for groups, _ in folds for group in groups) == [f"w{i}" for i in range(6)]


def test_without_data_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"data={tmp_path}"]) == 0
    assert "skipped: no table of one-hour runs" in capsys.readouterr().out
