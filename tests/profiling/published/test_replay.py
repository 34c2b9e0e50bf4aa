"""Replays use what is known of a run and its rig, and nothing that only the run could tell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from profiling.fit.forcing import force
from profiling.published.fidelity import compare, f1, memory_scores, scores, smape
from profiling.published.histogram import LengthHistogram, constant_length, draw_pair, gamma_shape, lognormal_shape
from profiling.published.models import MEASURED_MODELS
from profiling.published.replay import Rig, column_of, replay, script_of
from profiling.published.runs import METRICS, MeasuredRun, fold_of
from twin.errors import InputError
from twin.server.calibration import load_calibration
from twin.server.laws import STEP_TERMS

LLAMA = MEASURED_MODELS[0]
SHAPE = LengthHistogram(np.array([4.0, 23.0, 100.0, 400.0, 1000.0]), np.array([0.25, 0.25, 0.4, 0.1]))
RIG = Rig(SHAPE, SHAPE, served_share={LLAMA.spec.name: 0.99})


def make_run(**changes: object) -> MeasuredRun:
    """A light run of 12 adapters on 8 slots; figures are placeholders unless changed."""
    run = MeasuredRun(
        run_id="a/b", table="twin_validation_real", group="g", model=LLAMA.spec.name, max_loras=8,
        num_adapters=12, max_lora_rank=16,
        rates=(0.1, 0.05, 0.025), ranks=(8, 16), prompt_mean=220.0, output_mean=200.0, arrivals=math.nan,
        started=True, starved=False, metrics=dict.fromkeys(METRICS, 1.0),
    )  # fmt: skip
    return replace(run, **changes)  # type: ignore[arg-type]


def test_stretching_reaches_the_mean_and_keeps_the_shape() -> None:
    for mean in (60.0, SHAPE.mean, 5000.0):
        stretched = SHAPE.with_mean(mean)
        assert stretched.mean == pytest.approx(mean)
        assert (stretched.shares == SHAPE.shares).all()
        assert stretched.edges[-1] / stretched.edges[0] == pytest.approx(250.0)
    for mean in (0.0, -3.0, math.nan):
        with pytest.raises(InputError, match="mean length"):
            SHAPE.with_mean(mean)


def test_other_shapes_have_the_moments_asked_for() -> None:
    for shape in (gamma_shape(200.0, 210.0), lognormal_shape(200.0, 210.0)):
        u = np.random.default_rng(0).random(400_000)
        tokens = shape.quantile(u)
        assert tokens.mean() == pytest.approx(200.0, rel=0.02) and tokens.std() == pytest.approx(210.0, rel=0.04)
        assert shape.with_mean(230.0).mean == pytest.approx(230.0)
    assert (constant_length(7.0).with_mean(30.0).quantile(np.array([0.0, 0.5, 1.0])) == 30.0).all()


def test_drawn_lengths_have_the_means_and_a_negative_correlation() -> None:
    prompt, output = draw_pair(SHAPE, SHAPE.with_mean(150.0), 200_000, np.random.default_rng(0))
    assert prompt.mean() == pytest.approx(SHAPE.mean, rel=0.01)
    assert output.mean() == pytest.approx(150.0, rel=0.01)
    assert prompt.min() >= 4 and prompt.max() <= 1000 and output.max() <= 1000
    assert -0.45 < np.corrcoef(prompt, output)[0, 1] < -0.2


def test_rates_go_round_and_ranks_keep_their_counts() -> None:
    column = column_of(make_run(), "h100-64gb", seed=0)
    assert [a.rate_req_per_s for a in column.adapters[:4]] == [0.1, 0.05, 0.025, 0.1]
    assert sorted(a.rank for a in column.adapters) == [8] * 6 + [16] * 6
    assert column.rate_req_per_s == pytest.approx(make_run().rate_req_per_s)


def test_a_prediction_does_not_know_the_arrivals() -> None:
    calibration = load_calibration(LLAMA.calibration)
    quiet, busy = make_run(arrivals=1000.0), make_run(arrivals=5000.0)
    blind = [script_of(r, calibration, RIG).requests for r in (quiet, busy)]
    np.testing.assert_array_equal(blind[0].arrival_s, blind[1].arrival_s)
    told = [len(script_of(r, calibration, RIG, known_arrivals=True).requests) for r in (quiet, busy)]
    assert told[0] < 1200 and told[1] > 4500


def test_teacher_forcing_finds_the_factor_that_slowed_the_engine() -> None:
    """A run made by the twin itself, 20 % slower than its law: the forced scale is 1.2."""
    calibration = load_calibration(LLAMA.calibration)
    run = make_run(num_adapters=8, rates=(0.4,))
    slow = replay(script_of(run, calibration, RIG, seed=3), calibration, RIG, time_scale=1.2)
    metrics = {**run.metrics, "running_mean": slow.running, "out_throughput_tps": 1000 * slow.running / slow.step_ms}
    forced = force(replace(run, metrics=metrics), calibration, RIG, seed=3)
    assert forced.scale == pytest.approx(1.2, rel=0.02)
    law_ms = float(forced.features @ calibration.step.as_array()[: len(STEP_TERMS)])
    assert forced.step_ms / law_ms == pytest.approx(forced.scale, rel=0.02)


def test_ports_limit_what_reaches_the_server() -> None:
    calibration = load_calibration(LLAMA.calibration)
    run = make_run(num_adapters=64, rates=(0.8,))
    free = replay(script_of(run, calibration, RIG), calibration, replace(RIG, client_ports={}))
    limited = replay(script_of(run, calibration, RIG), calibration, replace(RIG, client_ports={run.table: 3000}))
    assert free.refused == 0 < limited.refused
    assert limited.waiting < 3000 < free.waiting


def test_scores_of_a_twin_that_is_right_are_perfect() -> None:
    calibration = load_calibration(LLAMA.calibration)
    run = make_run(num_adapters=8)
    row = compare(run, calibration, RIG, seed=0)
    perfect = scores([replace(row, measured=row.predicted, starved_measured=row.starved)] * 2)
    assert perfect["throughput_smape"] == perfect["ttft_smape"] == 0.0
    assert perfect["starved_accuracy"] == 1.0 and "starved_f1" not in perfect


def test_smape_has_no_factor_two_and_f1_counts_misses() -> None:
    assert smape([110.0, math.nan], [100.0, 5.0]) == pytest.approx(100 * 10 / 210)
    assert f1([True, True, False], [True, False, True]) == pytest.approx(0.5)
    assert f1([False], [False]) == 1.0


def test_memory_errors_are_judged_where_the_run_tells() -> None:
    calibrations = {LLAMA.spec.name: load_calibration(LLAMA.calibration)}
    runs = [
        make_run(),
        make_run(max_loras=384, num_adapters=384, max_lora_rank=32, started=False),
        make_run(started=None),
    ]
    assert memory_scores(runs, calibrations) == {
        "memory_error_accuracy": 1.0,
        "memory_errors": 1,
        "memory_error_runs": 2,
    }
    wrong = [make_run(started=False)]
    assert memory_scores(wrong, calibrations)["memory_error_accuracy"] == 0.0


def test_folds_are_disjoint_and_complete() -> None:
    runs = [make_run(run_id=str(i), group=f"workload {i // 2}") for i in range(20)]
    inside, outside = fold_of(runs, "1/3")
    assert [r.group for r in inside[::2]] == ["workload 1", "workload 4", "workload 7"]
    assert len(inside) + len(outside) == 20
    assert not {r.group for r in inside} & {r.group for r in outside}, "a workload is never split"
    with pytest.raises(InputError, match="fold"):
        fold_of(runs, "3/3")
