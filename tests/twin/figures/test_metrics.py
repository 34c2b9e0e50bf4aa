"""Every figure is what docs/metrics.md says it is: by hand, at the edges, and without the warm-up."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.twin.columns import LLAMA, column
from twin.engine.outcome import KernelOutput
from twin.engine.play import run_requests
from twin.engine.state import TRACE_COLUMNS
from twin.errors import InputError
from twin.figures.health import queue_label
from twin.figures.metrics import DRIFT_BLOCKS, WindowMetrics, measure, queue_drift
from twin.figures.prediction import BACKLOGGED, OVERLOADED, STABLE, Prediction
from twin.figures.result import SimulationResult
from twin.figures.warmup import mser, resolve, steps_to_trace
from twin.server.column import Column
from twin.server.laws import STEP_TERMS
from twin.simulation import simulate
from twin.traffic.arrivals import draw_requests
from twin.workload.requests import Requests

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def test_every_field_is_defined_in_the_documentation() -> None:
    text = DOCS.read_text(encoding="utf-8")
    rows = set(re.findall(r"`(\w+)`", "".join(line for line in text.splitlines() if line.startswith("|"))))
    for kind in (Prediction, SimulationResult):
        assert {f.name for f in fields(kind)} - rows == set(), f"fields of {kind.__name__} without a definition"


def test_row_has_the_fields_of_a_prediction() -> None:
    row = simulate(column(4, (0.05,), 4), LLAMA, horizon_s=120.0).row
    assert set(row) == {f.name for f in fields(Prediction)}
    assert Prediction(**{name: np.array([v]) for name, v in row.items()}).row(0) == pytest.approx(row, nan_ok=True)


# --- by hand ------------------------------------------------------------------------------------------------------


def window(requests: list[tuple[float, int, int, int, float, float]], *, horizon_s: float, slo_s: list[float]) -> Any:
    """Measures requests (arrival, adapter, prompt, output, first token, finish) of an engine that idles."""
    rows = np.array(requests, dtype=np.float64).reshape(-1, 6)
    whole = rows[:, 1:4].astype(np.int32)
    trace = np.zeros((0, len(TRACE_COLUMNS)))
    sent = Requests(rows[:, 0].copy(), whole[:, 0], whole[:, 1], np.zeros(len(rows), np.int32), whole[:, 2])
    out = KernelOutput(
        first_token_s=rows[:, 4].copy(), finish_s=rows[:, 5].copy(), state=np.zeros(len(rows), np.int8),
        running_bins=np.full(60, 0.5), waiting_bins=np.zeros(60), kv_integral=horizon_s * 3.0,
        itl_histogram=np.zeros(4096), features=np.zeros(len(STEP_TERMS)), blocked_s=np.zeros(4), steps=0, busy_s=0.0,
        loads=20, load_s=0.1, disk_loads=0, disk_s=0.0, preemptions=10, skips=0, max_waiting=0, free_blocks_end=0,
        trace=trace, events=np.zeros((0, 4), np.int64),
    )  # fmt: skip
    return measure(sent, out, horizon_s=horizon_s, slo_s=np.array(slo_s), total_blocks=12)


NEVER = float("nan")
MIXED = [
    # arrival, adapter, prompt, output, first token, last token; H = 100
    (0.0, 0, 10, 5, 1.0, 3.0),  # TTFT 1, four gaps of 0.5 s
    (10.0, 0, 20, 1, 12.0, 12.0),  # one token: no gap
    (20.0, 1, 30, 3, 28.0, 30.0),  # TTFT 8: late at 5 s; two gaps of 1 s
    (90.0, 1, 40, 9, 94.0, 120.0),  # started, not done at H
    (70.0, 2, 50, 9, NEVER, NEVER),  # waits 30 s: late, stuck
    (98.0, 2, 60, 9, NEVER, NEVER),  # waits 2 s: undecided
    (99.0, 2, 70, 9, 101.0, 105.0),  # begins after H: waits 1 s, undecided
]


def test_figures_by_hand() -> None:
    found = window(MIXED, horizon_s=100.0, slo_s=[5.0, 5.0, 5.0])
    row = found.row
    assert row["in_throughput_tps"] == pytest.approx(0.60)
    assert row["out_throughput_tps"] == pytest.approx(0.09)
    assert row["throughput_tps"] == pytest.approx(0.69)
    assert row["served_fraction"] == pytest.approx(69 / (280 + 45))
    ttft = [1.0, 2.0, 8.0, 4.0, 30.0, 2.0, 1.0]  # the last three are what they waited so far
    assert row["ttft_mean_s"] == pytest.approx(np.mean(ttft))
    assert row["ttft_p50_s"] == pytest.approx(np.quantile(ttft, 0.5))
    assert row["ttft_p99_s"] == pytest.approx(np.quantile(ttft, 0.99))
    assert row["itl_mean_ms"] == pytest.approx(1000 * (2.0 + 0.0 + 2.0) / 6)
    assert row["tpot_mean_ms"] == pytest.approx(1000 * (0.5 + 1.0) / 2)
    assert row["e2e_mean_s"] == pytest.approx(np.mean([3, 2, 10, 10, 30, 2, 1]))
    # Late: the third and the fifth, of five decided.
    assert row["late_fraction"] == pytest.approx(2 / 5)
    assert found.counts.tolist() == [2, 2, 1] and found.late_counts.tolist() == [0, 1, 1]
    assert row["adapter_late_fraction"] == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert row["min_adapter_served_fraction"] == pytest.approx(1 - 1 / 3)
    assert row["worst_adapter_ttft_p99_s"] == 30.0
    assert row["kv_usage"] == pytest.approx(3 / 12)
    assert (row["preemptions_per_s"], row["loads_per_s"]) == (0.1, 0.2)
    assert row["running"] == pytest.approx(0.3) and row["requests_in_system"] == pytest.approx(0.3)
    assert row["starved"] == 1.0 and row["queue"] == OVERLOADED
    assert found.completed.completed == 3
    assert found.completed.ttft_mean_s == pytest.approx((1 + 2 + 8) / 3)


def test_promises_are_those_of_the_adapters() -> None:
    strict = window(MIXED, horizon_s=100.0, slo_s=[0.5, 10.0, 0.1])
    assert strict.late_counts.tolist() == [2, 0, 3] and strict.counts.tolist() == [2, 2, 3]


def test_a_window_without_requests() -> None:
    row = window([], horizon_s=100.0, slo_s=[5.0]).row
    assert row["served_fraction"] == 1.0 and row["late_fraction"] == 0.0 and row["queue"] == STABLE
    assert np.isnan(row["ttft_mean_s"]) and np.isnan(row["worst_adapter_ttft_p99_s"]) and np.isnan(row["itl_mean_ms"])


# --- drift --------------------------------------------------------------------------------------------------------


def test_drift_is_the_slope_and_its_limit_is_below() -> None:
    rng = np.random.default_rng(0)
    slope, low = queue_drift(np.arange(60.0) * 60.0 * 0.02 + rng.normal(0, 0.5, 60), 3600.0)
    assert slope == pytest.approx(0.02, rel=0.05) and 0 < low < slope
    # The first quarter is filling up, not growth.
    filling = np.concatenate((np.linspace(0, 100, 15), np.full(45, 100.0)))
    assert queue_drift(filling, 3600.0) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_a_queue_without_drift_is_rarely_called_growing() -> None:
    """White noise: the lower limit is positive in 0.5 % of windows, as the confidence says."""
    rng = np.random.default_rng(1)
    positive = np.mean([queue_drift(rng.normal(50, 10, 60), 3600.0)[1] > 0 for _ in range(4000)])
    assert positive < 0.005 + 3 * np.sqrt(0.005 / 4000)
    assert positive > 0.001


def test_blocks_need_more_bins_than_blocks() -> None:
    assert 45 % DRIFT_BLOCKS == 0


def test_labels() -> None:
    assert queue_label(0.899, -1.0, 1000, 3600.0) == OVERLOADED
    assert queue_label(0.95, 0.1, 10_000, 3600.0) == BACKLOGGED
    # Certain growth, but by less than 1 % of the arrivals, or by less than ten requests.
    assert queue_label(0.95, 0.02, 10_000, 3600.0) == STABLE
    assert queue_label(0.95, 0.002, 100, 3600.0) == STABLE
    assert queue_label(0.95, -0.1, 10, 3600.0) == STABLE


# --- warm-up ------------------------------------------------------------------------------------------------------


def measured(served: Column, *warmups: Any, horizon_s: float = 600.0, trace: bool = True) -> list[WindowMetrics]:
    requests = draw_requests(
        served.adapters, horizon_s=horizon_s, seed=2, max_model_len=131072
    )  # fmt: skip
    out, blocks = run_requests(
        requests, served.adapters, served.setting, LLAMA, horizon_s=horizon_s,
        walk=np.arange(len(served.adapters), dtype=np.int32),
        trace_steps=steps_to_trace(horizon_s, LLAMA.step.base) if trace else 0,
    )  # fmt: skip
    slo = np.full(len(served.adapters), 5.0)
    return [
        measure(requests, out, horizon_s=horizon_s, slo_s=slo, total_blocks=blocks, warmup_s=w) for w in warmups
    ]  # fmt: skip


def test_without_warm_up_the_trace_changes_nothing() -> None:
    served = column(24, (0.4, 0.1), 12)
    assert measured(served, 0.0)[0].row == measured(served, 0.0, trace=False)[0].row


def test_engine_figures_from_the_trace_agree_with_the_kernels() -> None:
    """A warm-up of nearly nothing gives the figures of the whole window, though computed from the trace."""
    whole, almost = measured(column(24, (1.0, 0.4), 12), 0.0, 1e-9)
    assert almost.warmup.rule == "given"
    for name, value in whole.row.items():
        assert almost.row[name] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), name


def test_warm_up_leaves_the_steady_state() -> None:
    whole, later = measured(column(96, (0.2,), 32), 0.0, 200.0)
    assert later.counts.sum() < whole.counts.sum()
    assert later.row["running"] > whole.row["running"], "the empty start pulled the mean down"
    assert later.row["served_fraction"] > whole.row["served_fraction"]
    assert later.row["kv_usage"] > whole.row["kv_usage"]


def test_auto_removes_little_from_a_light_window_and_nothing_from_a_growing_one() -> None:
    (light,) = measured(column(16, (0.2,), 16), "auto")
    assert light.warmup.rule == "mser-5" and light.warmup.seconds <= 300.0
    (heavy,) = measured(column(64, (2.0,), 8), "auto")
    assert (heavy.warmup.seconds, heavy.warmup.rule) == (0.0, "no steady state")


def test_mser_finds_the_end_of_a_transient() -> None:
    rng = np.random.default_rng(3)
    rising = np.linspace(0, 50, 12, endpoint=False)
    removed = [mser(np.concatenate((rising, rng.normal(50, 1, 48)))) for _ in range(40)]
    found = [d for d in removed if d is not None]
    assert min(found) >= 11 and np.median(found) <= 18 and len(found) >= 36
    assert mser(np.arange(60.0)) is None
    assert mser(np.full(60, 3.0)) == 0
    # By the definition.
    y = rng.normal(0, 1, 60)
    scores = [((y[d:] - y[d:].mean()) ** 2).sum() / (60 - d) ** 2 for d in range(31)]
    assert mser(y) == (int(np.argmin(scores)) if np.argmin(scores) < 30 else None)


@pytest.mark.parametrize("bad", [-1.0, 500.0, float("nan"), "mser"])
def test_impossible_warm_ups_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match=re.escape(repr(bad))) as refusal:
        resolve(bad, np.zeros((0, len(TRACE_COLUMNS))), horizon_s=600.0, busy_s=0.0)
    assert refusal.value.remedy


def test_warm_up_without_the_whole_trace_is_refused() -> None:
    with pytest.raises(InputError, match="step trace"):
        measured(column(16, (0.2,), 16), 100.0, trace=False)
    with pytest.raises(InputError, match=r"base 0\.0"):
        steps_to_trace(600.0, 0.0)
