"""The simulation as a whole: determinism, conservation, labels, and errors a user can act on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.twin.columns import LLAMA, column
from twin.engine.state import TRACE_COLUMNS
from twin.errors import InputError
from twin.figures.health import published, stable, starving_adapters
from twin.figures.prediction import OVERLOADED, STABLE
from twin.server.column import Column
from twin.server.memory import kv_cache_tokens, memory_error
from twin.server.settings import EngineSetting
from twin.simulation import simulate, simulate_many
from twin.workload.adapter import Adapter, Lengths

LIGHT = column(32, (0.05, 0.0125), 32)
OVERLOAD = column(64, (1.6, 0.4), 16)


def test_same_seed_is_identical_in_another_process() -> None:
    code = (
        "from tests.twin.columns import LLAMA, column; from twin.simulation import simulate;"
        "r = simulate(column(32, (0.05, 0.0125), 32), LLAMA, seed=7, horizon_s=600); print(repr(r.row))"
    )
    here = repr(simulate(LIGHT, LLAMA, seed=7, horizon_s=600).row)
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there


def test_threads_do_not_change_results() -> None:
    columns = [LIGHT, column(8, (0.5,), 8)]
    parallel = simulate_many(columns, LLAMA, seeds=(1, 2), horizon_s=600, threads=2)
    alone = [[simulate(c, LLAMA, seed=s, horizon_s=600) for s in (1, 2)] for c in columns]
    assert [[r.row for r in rs] for rs in parallel] == [[r.row for r in rs] for rs in alone]


def test_writing_down_what_happens_changes_nothing() -> None:
    plain = simulate(OVERLOAD, LLAMA, seed=2, horizon_s=20)
    written = simulate(OVERLOAD, LLAMA, seed=2, horizon_s=20, trace_steps=10_000, events=1_000_000)
    assert repr(plain.row) == repr(written.row)
    assert len(written.trace) == written.steps and len(written.events) > written.arrivals
    column_of = dict(zip(TRACE_COLUMNS, written.trace.T, strict=True))
    assert column_of["duration_s"].sum() == pytest.approx(written.busy_s)
    assert column_of["adapters"].max() <= OVERLOAD.setting.max_loras


def test_too_little_room_for_events_is_an_error() -> None:
    with pytest.raises(InputError, match="events=10"):
        simulate(LIGHT, LLAMA, horizon_s=300, events=10)


def test_a_small_host_cache_reads_adapters_from_disk() -> None:
    served = column(32, (0.2,), 8)
    slow = replace(LLAMA, load=replace(LLAMA.load, disk_base_ms=50.0, disk_rank_ms=0.0))
    small = Column(served.adapters, replace(served.setting, max_cpu_loras=8))
    cached, from_disk = (simulate(c, slow, horizon_s=600) for c in (served, small))
    assert cached.disk_loads == 0 and from_disk.disk_loads > 100
    assert from_disk.disk_s == pytest.approx(0.05 * from_disk.disk_loads, rel=0.2)
    assert from_disk.row["ttft_mean_s"] > cached.row["ttft_mean_s"]


def test_a_warm_up_is_left_out_on_request() -> None:
    served = column(64, (0.4, 0.05), 16)
    plain, given, automatic = (
        simulate(served, LLAMA, horizon_s=1200, warmup_s=w)
        for w in (0.0, 300.0, "auto")  # type: ignore[arg-type]
    )
    assert (plain.warmup_s, plain.warmup_rule) == (0.0, "none")
    assert (given.warmup_s, given.warmup_rule) == (300.0, "given")
    assert automatic.warmup_rule in ("mser-5", "no steady state")
    assert 0.6 < given.counts.sum() / plain.counts.sum() < 0.9
    assert plain.steps == given.steps, "the same simulation, another part of it counts"


def test_async_scheduling_is_the_engines_choice_or_the_users() -> None:
    newer = replace(LLAMA, stamp=replace(LLAMA.stamp, engine_version="0.32.0"))
    off = Column(LIGHT.adapters, replace(LIGHT.setting, async_scheduling=False))
    on = Column(LIGHT.adapters, replace(LIGHT.setting, async_scheduling=True))
    ttft = {
        name: simulate(c, calibration, horizon_s=600).row["ttft_mean_s"]
        for name, c, calibration in (
            ("0.8", LIGHT, LLAMA), ("0.8 on", on, LLAMA), ("0.32", LIGHT, newer), ("0.32 off", off, newer),
        )
    }  # fmt: skip
    assert ttft["0.8"] == pytest.approx(ttft["0.32 off"], rel=1e-3)
    assert ttft["0.32"] == pytest.approx(ttft["0.8 on"], rel=1e-3)
    assert ttft["0.32"] > ttft["0.8"], "a request waits for one more step to be scheduled"


def test_light_load_is_stable_and_overload_is_not() -> None:
    light, heavy = simulate(LIGHT, LLAMA), simulate(OVERLOAD, LLAMA)
    assert light.row["queue"] == STABLE and stable([light]).healthy and published([light]).healthy
    assert heavy.row["queue"] == OVERLOADED and not stable([heavy]).healthy and not published([heavy]).healthy
    assert "later than" in stable([heavy]).reason and "of the ideal" in published([heavy]).reason


def test_a_healthy_throughput_can_hide_starving_adapters() -> None:
    """Cold adapters wait behind hot ones that never leave their slots: per-adapter rules see it."""
    lengths = Lengths(200, 1.0), Lengths(200, 1.0)
    hot = [Adapter(f"hot{i}", 16, 0.9, *lengths) for i in range(8)]
    cold = [Adapter(f"cold{i}", 16, 0.004, *lengths) for i in range(24)]
    result = simulate(Column((*hot, *cold), EngineSetting(LLAMA.stamp.gpu_type, 8, 16)), LLAMA)
    assert published([result]).healthy
    assert result.row["adapter_late_fraction"] > 0.05
    assert not stable([result]).healthy


def test_few_requests_are_judged_by_confidence() -> None:
    counts = np.array([3, 1000, 2000])
    assert starving_adapters(counts, np.array([1, 40, 80])).size == 0
    assert starving_adapters(counts, np.array([1, 200, 80])).tolist() == [1]


def test_tokens_and_littles_law_are_consistent() -> None:
    result = simulate(column(64, (0.2, 0.1), 64), LLAMA, seed=3)
    row = result.row
    rate = result.arrivals / result.horizon_s
    assert row["requests_in_system"] == pytest.approx(rate * row["e2e_mean_s"], rel=0.02)
    assert row["running"] == pytest.approx(
        row["out_throughput_tps"] * row["itl_mean_ms"] / 1000, rel=0.05
    )  # fmt: skip
    assert row["served_fraction"] == pytest.approx(1.0, abs=0.02)


def test_fewer_requests_never_serve_worse() -> None:
    fractions = [
        np.mean([simulate(column(96, (rate,), 32), LLAMA, seed=s).row["served_fraction"] for s in range(2)])
        for rate in (0.4, 0.3, 0.2, 0.1, 0.05)
    ]
    assert all(b >= a - 0.01 for a, b in pairwise(fractions))


def test_base_model_requests_need_no_slot() -> None:
    base = Adapter("base", 0, 5.0, Lengths(200, 1.0), Lengths(100, 1.0))
    setting = EngineSetting(LLAMA.stamp.gpu_type, 8, 8)
    result = simulate(Column((base,), setting), LLAMA)
    assert result.loads == 0 and stable([result]).healthy
    assert result.step_features[6] == 0, "no step pays for LoRA"


def test_memory_error_iff_one_longest_request_does_not_fit() -> None:
    fits, full = EngineSetting("h100-64gb", 64, 16), EngineSetting("h100-64gb", 384, 32)
    assert memory_error(fits, LLAMA) is None
    assert kv_cache_tokens(fits, LLAMA) % fits.block_size == 0
    problem = memory_error(full, LLAMA)
    assert problem is not None and ("131072" in problem or "nothing is left" in problem)
    tight = replace(fits, max_model_len=kv_cache_tokens(fits, LLAMA))
    assert memory_error(tight, LLAMA) is None
    assert memory_error(replace(tight, max_model_len=kv_cache_tokens(fits, LLAMA) + 1), LLAMA) is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(LIGHT, LLAMA, horizon_s=0), "horizon_s = 0"),
        (lambda: simulate(Column((), LIGHT.setting), LLAMA), "without adapters"),
        (lambda: simulate(column(1, (1.0,), 8, rank=32), LLAMA), "rank 32"),
        (lambda: simulate(Column(LIGHT.adapters, EngineSetting("a100", 8, 16)), LLAMA), "a100"),
        (lambda: simulate(column(1, (1.0,), 384, max_lora_rank=64), LLAMA), "384x64"),
        (lambda: column(1, (-1.0,), 8), "rate = -1.0"),
        (lambda: column(1, (1.0,), 0), "max_loras = 0"),
    ],
)
def test_bad_input_names_the_value(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
