"""A replay is the recording: times, lengths and adapters exactly, and nothing that was not asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.twin.columns import LLAMA
from twin.errors import InputError
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.sources.access_log import read_access_log, read_recording
from twin.sources.traces.azure import read_azure
from twin.sources.traces.mooncake import read_mooncake
from twin.workload.adapter import Adapter, Lengths
from twin.workload.recording import Recording, RequestLog
from twin.workload.requests import Requests

ROWS = [  # not in order of time
    (1000.5, "b", 30, 4, 10),
    (1000.0, "a", 100, 5, 100),
    (1010.25, "a", 200, 1, 50),
    (1003.0, "c", 7, 7, 0),
    (1059.0, "b", 50, 6, 0),
    (1060.0, "a", 60, 8, 0),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    lines = [",".join(map(str, row)) for row in ROWS]
    path.write_text("\n".join(["timestamp,adapter_id,prompt_tokens,output_tokens,cached_tokens", *lines]) + "\n")
    return path


def served(*names: str) -> list[Adapter]:
    return [Adapter(name, 8, 1.0, Lengths(10, 0), Lengths(10, 0)) for name in names]


def replayed(recording: Recording, names: str = "ab", **options: Any) -> Requests:
    return recording.requests(served(*names), **{"horizon_s": 100.0, "max_model_len": 4096} | options)


def test_times_lengths_and_adapters_are_the_recorded_ones(file: Path) -> None:
    requests = replayed(read_recording(file, cached_tokens="cached_tokens"), "ba")
    assert requests.arrival_s.tolist() == [0.0, 0.5, 10.25, 59.0, 60.0]
    assert requests.adapter.tolist() == [1, 0, 1, 0, 1], "c is served elsewhere"
    assert requests.prompt.tolist() == [100, 30, 200, 50, 60]
    assert requests.output.tolist() == [5, 4, 1, 6, 8]
    assert requests.cached.tolist() == [99, 10, 50, 0, 0], "one prompt token is always computed"


def test_a_window_starts_where_it_should_and_leaves_its_end_out(file: Path) -> None:
    requests = replayed(read_recording(file), start_s=10.25, horizon_s=49.75)
    assert requests.arrival_s.tolist() == [0.0, 48.75]
    assert requests.prompt.tolist() == [200, 50]


def test_windows_joined_are_the_whole(file: Path) -> None:
    recording = read_recording(file)
    parts = [replayed(recording, start_s=s, horizon_s=30.0) for s in (0.0, 30.0, 60.0) if s != 60.0]
    assert sum(len(p) for p in parts) == 4
    assert len(replayed(recording, horizon_s=60.0)) == 4


def test_a_faster_replay_has_the_same_requests_in_less_time(file: Path) -> None:
    requests = replayed(read_recording(file), speed=2.0, horizon_s=30.0)
    assert requests.arrival_s.tolist() == [0.0, 0.25, 5.125, 29.5]


def test_the_twin_serves_what_was_recorded(file: Path) -> None:
    adapters = tuple(served("a", "b"))
    requests = read_recording(file).requests(adapters, horizon_s=120.0, max_model_len=2048)
    column = Column(adapters, EngineSetting(LLAMA.stamp.gpu_type, 4, 16))
    result = simulate(column, LLAMA, horizon_s=120.0, requests=requests)
    assert result.arrivals == 5
    assert result.row["in_throughput_tps"] == pytest.approx(440 / 120)
    assert result.row["out_throughput_tps"] == pytest.approx(24 / 120)


def test_columns_of_any_csv_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("when,model,in,out,who\n2026-01-01T00:00:01Z,x,5,6,me\n2026-01-01T00:00:00Z,y,7,8,you\n")
    recording = read_recording(path, time="when", adapter_id="model", prompt_tokens="in", output_tokens="out")
    requests = replayed(recording, "xy")
    assert (requests.arrival_s.tolist(), requests.prompt.tolist(), requests.adapter.tolist()) == (
        [0.0, 1.0], [7, 5], [1, 0],
    )  # fmt: skip


def test_an_access_log_keeps_its_requests_beside_the_estimate(file: Path, tmp_path: Path) -> None:
    registry = tmp_path / "ranks.csv"
    registry.write_text("adapter_id,rank\na,8\nb,8\nc,0\nidle,8\n")
    workload = read_access_log(file, registry)
    assert workload.recording is not None
    requests = workload.recording.requests(workload.adapters, horizon_s=100.0, max_model_len=2048)
    assert len(requests) == len(ROWS)
    assert requests.adapter.tolist() == [0, 1, 2, 0, 1, 0]


def test_azure_requests_are_replayed_at_the_rate_of_the_workload(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 500, (400, 2))
    lines = [f"2023-11-16 18:00:{i * 0.1:010.7f},{p},{o}" for i, (p, o) in enumerate(lengths.tolist())]
    path = tmp_path / "AzureLLMInferenceTrace_conv.csv"
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    workload = read_azure(path, n_adapters=10, total_rate_req_per_s=40.0)
    assert workload.recording is not None
    requests = workload.recording.requests(workload.adapters, horizon_s=5.0, max_model_len=2048)
    assert len(requests) == pytest.approx(40 * 5, abs=1)
    assert requests.prompt.tolist() == lengths[: len(requests), 0].tolist()
    share = np.bincount(requests.adapter, minlength=10) / len(requests)
    expected = np.array([a.rate_req_per_s for a in workload.adapters]) / 40.0
    assert share == pytest.approx(expected, abs=0.1)


def test_mooncake_replays_its_cache_hits(tmp_path: Path) -> None:
    path = tmp_path / "conversation_trace.jsonl"
    line = '{{"timestamp": {}, "input_length": {}, "output_length": 5, "hash_ids": [{}]}}'
    path.write_text("\n".join([line.format(0, 512, "1"), line.format(1000, 1024, "1, 2"), line.format(2000, 512, "9")]))
    workload = read_mooncake(path, n_adapters=1, total_rate_req_per_s=None)
    assert workload.recording is not None
    requests = workload.recording.requests(workload.adapters, horizon_s=10.0, max_model_len=2048)
    assert (requests.prompt.tolist(), requests.cached.tolist()) == ([512, 1024, 512], [0, 512, 0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start_s": 100.0}, "no request between 100 and 200 s of a recording of 60 s"),
        ({"start_s": 1.0, "horizon_s": 2.0}, "no request between 1 and 3 s"),
        ({"names": "ad"}, "'d' is not in the recording"),
        ({"names": "aa"}, "'a' is named twice"),
        ({"max_model_len": 100}, "2 requests of 5 are longer than the model's 100 tokens, e.g. 200 + 1 tokens for 'a'"),
        ({"horizon_s": 0.0}, "horizon_s = 0.0"),
        ({"horizon_s": float("inf")}, "horizon_s = inf"),
        ({"speed": -1.0}, "speed = -1.0"),
        ({"start_s": -1.0}, "start_s = -1.0"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(file: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        replayed(read_recording(file), **options)
    assert said in error.value.problem
    assert error.value.remedy
    assert str(file) in error.value.where


def test_long_requests_are_cut_on_request(file: Path) -> None:
    requests = replayed(read_recording(file), max_model_len=100, cut=True)
    assert (requests.prompt + requests.output).max() == 100
    assert requests.output.min() >= 1


def test_a_recording_in_order_of_time_is_the_same_recording() -> None:
    rng = np.random.default_rng(0)
    times, who = np.sort(rng.random(50) * 100), rng.integers(0, 2, 50)
    lengths = rng.integers(1, 50, (2, 50)).astype(float)
    shuffled = rng.permutation(50)

    def recording(order: np.ndarray) -> Recording:
        log = RequestLog(times[order], who[order], lengths[0][order], lengths[1][order], np.zeros(50))
        return Recording(("a", "b"), log, "memory")

    one, other = replayed(recording(np.arange(50))), replayed(recording(shuffled))
    assert np.array_equal(one.arrival_s, other.arrival_s)
    assert np.array_equal(one.prompt, other.prompt)
    assert np.array_equal(one.adapter, other.adapter)
