"""A few columns in the twin: not how good the physics is (`benchmarks.surrogates`), but that it is this server's."""

from __future__ import annotations

import pytest

from surrogates.steady_state import largest_load, steady_state
from tests.surrogates.steady_state.columns import LLAMA, mix, scaled, with_flags
from twin.figures.health import judge
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate

WITHIN, CROWDED = with_flags(max_loras=96), with_flags(max_loras=16)


@pytest.mark.parametrize("setting", [WITHIN, CROWDED, with_flags(max_loras=64, async_scheduling=True)], ids=str)
def test_means_of_an_hour(setting: EngineSetting) -> None:
    adapters = mix(60, 11, cv=1.0)
    theta = largest_load([Column(tuple(adapters), setting)], LLAMA)[0]
    column = Column(scaled(adapters, 0.7 * theta), setting)
    state, row = steady_state([column], LLAMA), simulate(column, LLAMA, seed=1).row
    assert state.itl_mean_s[0] == pytest.approx(row["itl_mean_ms"] / 1000, rel=0.05)
    assert state.requests_in_system[0] == pytest.approx(row["requests_in_system"], rel=0.08)
    assert state.running[0] == pytest.approx(row["running"], rel=0.08)
    assert state.kv_share[0] == pytest.approx(row["kv_usage"], rel=0.12)
    assert state.ttft_mean_s[0] == pytest.approx(row["ttft_mean_s"], rel=0.25)
    assert state.loads_per_s[0] == pytest.approx(row["loads_per_s"], rel=0.2, abs=0.01)
    assert state.healthy[0] == 1


@pytest.mark.parametrize("setting", [WITHIN, CROWDED], ids=["within", "crowded"])
def test_healthy_below_the_largest_load_and_not_above(setting: EngineSetting) -> None:
    adapters = mix(60, 12, cv=1.0)
    theta = largest_load([Column(tuple(adapters), setting)], LLAMA)[0]
    for factor, healthy in ((0.85, True), (1.2, False)):
        column = Column(scaled(adapters, factor * theta), setting)
        assert judge([simulate(column, LLAMA, seed=2)], "stable").healthy is healthy


def test_disk_loads_and_async_steps() -> None:
    adapters = mix(60, 13, rate=0.02, cv=1.0)
    column = Column(tuple(adapters), with_flags(max_loras=16, max_cpu_loras=24))
    state, result = steady_state([column], LLAMA), simulate(column, LLAMA, seed=1)
    assert state.disk_loads_per_s[0] == pytest.approx(result.disk_loads / 3600, rel=0.2)
    assert state.loads_per_s[0] == pytest.approx(result.loads / 3600, rel=0.2)
