"""What a look at the edges of verification found."""

from __future__ import annotations

import numpy as np

from placement.verify.peaks import busiest_windows
from twin.figures.health import Stable
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.workload.adapter import Adapter, Lengths
from twin.workload.recording import Recording, RequestLog

SETTING = EngineSetting("h100-64gb", max_loras=16, max_lora_rank=8)
LENGTHS = Lengths(200, 1.0)
ADAPTER = Adapter("a", 8, 1e-4, LENGTHS, LENGTHS)


def recording(times: list[float]) -> Recording:
    tokens = np.full(len(times), 200.0)
    return Recording(("a",), RequestLog(np.array(times), np.zeros(len(times), int), tokens, tokens, 0 * tokens), "log")


def test_a_window_without_a_request_for_a_replica_is_none() -> None:
    found = busiest_windows(
        [Column((ADAPTER,), SETTING)], {SETTING.gpu_type: load_calibration("llama-3.1-8b-h100-64gb")}, Stable(),
        recording=recording([0.0, 86_400.0]), shares=[[1 / 3]], windows=3, window_s=3600.0, seed=0, threads=1,
    )  # fmt: skip
    assert found == ()


def test_quantiles_are_those_of_whole_parts() -> None:
    end = [*np.arange(0, 1090, 1.0).tolist(), *np.arange(1090, 1190, 0.5).tolist()]
    assert recording(end).quantile_covering([ADAPTER], start_s=1090, window_s=99) is None
    steady = np.arange(0, 300, 1.0).tolist()
    assert recording(steady).quantile_covering([ADAPTER], start_s=0, window_s=299) == 0.5


def test_what_is_in_service_at_the_end_is_not_starved() -> None:
    long = Adapter("a", 8, 0.002, LENGTHS, Lengths(4000, 1.0))
    column, calibration = Column((long,), SETTING), load_calibration("llama-3.1-8b-h100-64gb")
    hours = [simulate(column, calibration, seed=seed) for seed in range(60)]
    assert sum(r.row["served_fraction"] < 0.9 for r in hours) >= 3
    assert not any(map(Stable().broken_window, hours))
