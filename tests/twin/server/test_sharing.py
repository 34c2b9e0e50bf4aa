"""Servers that share a GPU: memory, step time, and the twin's simulation of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from twin.errors import InputError
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.memory import kv_cache_tokens, memory_error
from twin.server.settings import EngineSetting
from twin.server.sharing import SharingLaw, colocated_step_law, cycle_ms
from twin.simulation import simulate
from twin.workload.adapter import Adapter, Lengths

LAW = SharingLaw(1.0, 0.03, mps_share=0.85, time_sharing_stretch=1.1)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return load_calibration("opt-1.3b-h100-64gb")


def setting(servers: int, batch: int = 256) -> EngineSetting:
    return EngineSetting(
        "h100-64gb", 1, 8, max_num_seqs=batch, servers_per_gpu=servers, gpu_memory_utilization=0.9 / servers
    )


def test_two_servers_by_hand() -> None:
    """Delay 4, demand 10: the second finds the first at the GPU with probability 10/14."""
    assert cycle_ms(4, 10, 1) == 14
    assert cycle_ms(4, 10, 2) == pytest.approx(4 + 10 * (1 + 10 / 14))


@given(st.floats(0, 50), st.floats(0.01, 50), st.integers(1, 6))
def test_cycle_lies_between_its_asymptotic_bounds(delay: float, demand: float, servers: int) -> None:
    cycle = cycle_ms(delay, demand, servers)
    assert cycle >= max(delay + demand, servers * demand) * (1 - 1e-9)
    assert cycle <= delay + servers * demand + 1e-9


@given(st.floats(2, 80), st.floats(0, 1), st.integers(2, 5))
def test_more_servers_slow_each_one_but_never_the_gpu_under_mps(step: float, share: float, servers: int) -> None:
    gap = share * step
    alone, shared = step, LAW.step_ms(step, gap, servers)
    assert shared >= alone - 1e-9
    assert servers / shared >= (servers - 1) / LAW.step_ms(step, gap, servers - 1) * (1 - 1e-9)
    assert LAW.step_ms(step, gap, servers, "time_sharing") >= shared * (1 - 1e-9)
    assert 0 <= LAW.busy_share(step, gap, servers) <= 1


def test_linear_law_of_a_colocated_server_is_exact_at_the_mean_step(calibration: Calibration) -> None:
    step, running, kv = calibration.step, 200.0, 80.0
    alone = step.base + step.seq * running + step.kv * kv
    law = colocated_step_law(step, LAW, 2, running=running, step_ms=alone)
    linear = law.base + law.seq * running + law.kv * kv
    assert linear == pytest.approx(LAW.step_ms(alone, LAW.gap_ms(running), 2), rel=1e-6)
    # Away from it, the ratio of gap and kernels changes little.
    for factor in (0.25, 0.5, 1.5):
        alone = step.base + step.seq * factor * running + step.kv * factor * kv
        linear = law.base + law.seq * factor * running + law.kv * factor * kv
        assert linear == pytest.approx(LAW.step_ms(alone, LAW.gap_ms(factor * running), 2), rel=0.01)


def test_idle_neighbours_cost_nothing(calibration: Calibration) -> None:
    law = colocated_step_law(calibration.step, LAW, 3, running=50, step_ms=10, busy=0.0)
    assert np.allclose(law.as_array(), calibration.step.as_array(), rtol=1e-6)


def test_memory_is_that_of_each_server(calibration: Calibration) -> None:
    """Measured: 8748 blocks of 16 tokens for each of two servers at a batch of 96, 3744 and more for each of four."""
    assert kv_cache_tokens(setting(2, 96), calibration) == pytest.approx(8748 * 16, rel=0.01)
    assert kv_cache_tokens(setting(4, 96), calibration) == pytest.approx(3744 * 16, rel=0.02)
    assert kv_cache_tokens(setting(1, 768), calibration) == pytest.approx(290160, rel=0.002)
    assert memory_error(setting(16), calibration) is not None


def test_servers_may_not_take_more_than_one_gpu() -> None:
    with pytest.raises(InputError, match="more than one GPU"):
        EngineSetting("h100-64gb", 8, 8, servers_per_gpu=2)


def column(servers: int, rate: float, batch: int = 256) -> Column:
    return Column((Adapter("base", 0, rate, Lengths(110, 1.1), Lengths(292, 0.96)),), setting(servers, batch))


def test_replicas_raise_saturated_throughput_in_the_twin(calibration: Calibration) -> None:
    """Both are overloaded; two servers of 256 serve clearly more than one of 768, as measured (+30 to +34 %)."""
    one = simulate(column(1, 60.0, 768), calibration, horizon_s=300.0)
    two = simulate(column(2, 60.0, 256), calibration, horizon_s=300.0)
    gain = two.row["throughput_tps"] / one.row["throughput_tps"] - 1
    assert 0.2 < gain < 0.5
    assert one.arrivals == two.arrivals
    assert two.row["itl_mean_ms"] < 0.7 * one.row["itl_mean_ms"]


def test_idle_replicas_behave_like_one_server(calibration: Calibration) -> None:
    one = simulate(column(1, 0.5), calibration, horizon_s=600.0)
    two = simulate(column(2, 0.5), calibration, horizon_s=600.0)
    assert two.row["throughput_tps"] == pytest.approx(one.row["throughput_tps"], rel=0.01)
    assert two.row["itl_mean_ms"] == pytest.approx(one.row["itl_mean_ms"], rel=0.1)


def test_replicas_are_deterministic_and_keep_every_request(calibration: Calibration) -> None:
    first, second = (simulate(column(3, 20.0, 64), calibration, horizon_s=120.0, seed=4) for _ in range(2))
    assert first.row == second.row
    assert first.counts.sum() <= first.arrivals
    assert first.completed.completed == second.completed.completed > 0


def test_what_was_not_measured_is_refused_by_name(calibration: Calibration) -> None:
    bare = replace(calibration, batching=None)
    with pytest.raises(InputError, match="no measurement of servers that share a GPU"):
        simulate(column(2, 1.0), bare, horizon_s=10.0)
    with pytest.raises(InputError, match="measured without adapters"):
        simulate(
            Column((Adapter("a", 8, 1.0, Lengths(10, 0), Lengths(10, 0)),), setting(1)), calibration, horizon_s=10.0
        )
    with pytest.raises(InputError, match="steps cannot be recorded"):
        simulate(column(2, 1.0), calibration, horizon_s=10.0, trace_steps=10)
    with pytest.raises(InputError, match="mps_share"):
        SharingLaw(1.0, 0.0, mps_share=1.5, time_sharing_stretch=1.0)
