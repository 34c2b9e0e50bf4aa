"""Azure and Mooncake: totals, shapes and lengths survive the mapping to adapters, and what was changed is said."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.twin.sources.traces.notes import mean_over_requests, says
from twin.errors import InputError
from twin.sources.dealing import apportion
from twin.sources.traces.azure import read_azure
from twin.sources.traces.mooncake import read_mooncake

# --- Azure ------------------------------------------------------------------------------------------------------------


def azure_file(folder: Path, rows: list[tuple[float, int, int]]) -> Path:
    file = folder / "AzureLLMInferenceTrace_conv.csv"
    lines = [f"2023-11-16 18:{int(t // 60):02d}:{t % 60:010.7f},{p},{o}" for t, p, o in rows]
    file.write_text("\r\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    return file


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    return azure_file(
        tmp_path, [(0.5 * i, int(p), int(o)) for i, (p, o) in enumerate(rng.integers(1, 1000, (4000, 2)))]
    )


def test_azure_requests_are_dealt_by_a_power_law_at_the_asked_rate(azure: Path) -> None:
    workload = read_azure(azure, n_adapters=50, exponent=1.0, ranks=[8, 16], total_rate_req_per_s=10.0)
    rates = np.array([a.rate_req_per_s for a in workload.adapters])
    assert rates * np.arange(1, 51) == pytest.approx(np.full(50, rates[0]))
    assert rates.sum() == pytest.approx(10.0)
    assert Counter(a.rank for a in workload.adapters) == {8: 25, 16: 25}
    assert mean_over_requests(workload, "prompt_tokens") == pytest.approx(500, rel=0.02)
    assert mean_over_requests(workload, "output_tokens") == pytest.approx(500, rel=0.02)
    assert says(workload, "from the recorded 2 req/s to 10 req/s")


def test_azure_keeps_its_own_rate_on_request_and_reads_the_folder(azure: Path) -> None:
    workload = read_azure(azure.parent, n_adapters=5, total_rate_req_per_s=None)
    assert workload.total_rate_req_per_s == pytest.approx(2.0)
    assert says(workload, "as recorded")
    assert workload == read_azure(azure.parent, n_adapters=5, total_rate_req_per_s=None)
    assert workload != read_azure(azure.parent, n_adapters=5, total_rate_req_per_s=None, seed=1)


def test_long_requests_are_cut_and_counted(tmp_path: Path) -> None:
    file = azure_file(tmp_path, [(i, 100, 50) for i in range(90)] + [(100 + i, 5000, 50) for i in range(10)])
    cut = read_azure(file, n_adapters=1, max_request_tokens=1000)
    assert cut.adapters[0].prompt_tokens.mean == pytest.approx((90 * 100 + 10 * 950) / 100)
    assert cut.adapters[0].output_tokens.mean == pytest.approx(50)
    assert says(cut, "10 requests (10.0 %) of more than 1000 tokens")
    whole = read_azure(file, n_adapters=1, max_request_tokens=None)
    assert whole.adapters[0].prompt_tokens.mean == pytest.approx(590)
    assert not says(whole, "cut to")


def test_adapters_with_few_requests_have_the_lengths_of_the_whole_trace(azure: Path) -> None:
    workload = read_azure(azure, n_adapters=3000)
    assert len(workload.adapters) == 3000
    last = workload.adapters[-1]
    assert last.prompt_tokens.mean == pytest.approx(500, rel=0.02)
    assert last.arrival_cv == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("TIMESTAMP,ContextTokens\n1,2\n", "'output_tokens' is missing"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,5,x\n", "'x' is not a number"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnow,5,5\n", "'now' is neither"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,5,5\n", "same time"),
    ],
)
def test_a_wrong_azure_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_azure(file)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_adapters": 0}, "workload.n_adapters"),
        ({"exponent": -1.0}, "workload.exponent"),
        ({"ranks": [0]}, "workload.ranks"),
        ({"total_rate_req_per_s": 0.0}, "workload.total_rate_req_per_s"),
        ({"max_request_tokens": 1}, "workload.max_request_tokens"),
        ({"seed": 0.5}, "workload.seed"),
        ({"trace": "chat"}, "workload.trace"),
    ],
)
def test_a_wrong_option_is_named(azure: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_azure(azure.parent, **wrong)


# --- Mooncake ---------------------------------------------------------------------------------------------------------


def mooncake_file(folder: Path, requests: list[tuple[float, int, int, list[int]]]) -> Path:
    file = folder / "conversation_trace.jsonl.gz"
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    text = "\n".join(json.dumps(dict(zip(keys, request, strict=True))) for request in requests)
    file.write_bytes(gzip.compress(text.encode()))
    return file


def test_mooncake_cache_hits_are_leading_blocks_of_earlier_requests(tmp_path: Path) -> None:
    """Block 0 is everybody's; the second request repeats blocks 0, 1 and the third only block 0."""
    file = mooncake_file(
        tmp_path,
        [(0, 1000, 10, [0, 1]), (1000, 1500, 10, [0, 1, 2]), (2000, 1200, 10, [0, 7, 2])],
    )
    adapter = read_mooncake(file, n_adapters=1).adapters[0]
    assert adapter.cached_prompt_fraction == pytest.approx((1024 + 512) / 3700)
    assert adapter.prompt_tokens.mean == pytest.approx(3700 / 3)


def test_mooncake_cache_is_not_shared_between_adapters(tmp_path: Path) -> None:
    file = mooncake_file(tmp_path, [(i * 1000, 512, 10, [0]) for i in range(400)])
    workload = read_mooncake(file, n_adapters=20, exponent=0.0, deal="request")
    dealt = sum(a.cached_prompt_fraction < 0.99 for a in workload.adapters)
    assert dealt == 20, "every adapter computes the common prompt once"


def test_mooncake_sessions_stay_together(tmp_path: Path) -> None:
    """200 sessions of 5 requests: cache hits survive dealing by session and not dealing by request."""
    rng = np.random.default_rng(0)
    requests = [(int(t), 1024, 10, [0, 1 + i % 200]) for i, t in enumerate(np.sort(rng.integers(0, 10**6, 1000)))]
    file = mooncake_file(tmp_path, requests)

    def cached(deal: str) -> float:
        workload = read_mooncake(file, n_adapters=40, exponent=0.0, deal=deal)
        return float(np.mean([a.cached_prompt_fraction for a in workload.adapters]))

    assert cached("session") == pytest.approx(0.89, abs=0.02)
    assert cached("request") < 0.6
    assert says(read_mooncake(file), "200 sessions")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"timestamp": 0, "input_length": 5}', "'output_length' is missing"),
        ('{"timestamp": 0, "input_length": -5, "output_length": 1}', "input_length -5"),
        ('{"timestamp": 0, "input_length": "5", "output_length": 1}', "input_length '5'"),
        ('{"timestamp": NaN, "input_length": 5, "output_length": 1}', "timestamp nan"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [0.5]}', "hash_ids"),
    ],
)
def test_a_wrong_mooncake_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"timestamp": 0, "input_length": 5, "output_length": 1}\n\n' + line + "\n")
    with pytest.raises(InputError, match=message) as caught:
        read_mooncake(file)
    assert "line 3" in caught.value.where


def test_wrong_mooncake_files_and_options_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_mooncake(empty)
    with pytest.raises(InputError, match="'user' is not a way to deal"):
        read_mooncake(empty, deal="user")
    with pytest.raises(InputError, match="holds no conversation_trace"):
        read_mooncake(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_mooncake(tmp_path / "none.jsonl")


@given(st.integers(0, 500), st.lists(st.floats(0.01, 10), min_size=1, max_size=10))
def test_apportioned_counts_add_up_and_are_within_one_of_their_share(count: int, weights: list[float]) -> None:
    parts = apportion(count, weights)
    assert parts.sum() == count
    assert np.all(np.abs(parts - count * np.array(weights) / sum(weights)) < 1 + 1e-9)


# --- the published traces ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trace", "rate", "prompt", "output"), [("conv", 5.53, 1155, 211), ("code", 2.57, 2048, 28)])
def test_azure_2023(traces: Path, trace: str, rate: float, prompt: float, output: float) -> None:
    workload = read_azure(traces, trace=trace, total_rate_req_per_s=None, max_request_tokens=None)
    assert workload.total_rate_req_per_s == pytest.approx(rate, rel=0.01)
    assert mean_over_requests(workload, "prompt_tokens") == pytest.approx(prompt, rel=0.02)
    assert mean_over_requests(workload, "output_tokens") == pytest.approx(output, rel=0.04)


@pytest.mark.parametrize(
    ("trace", "rate", "prompt", "sessions"), [("conversation", 3.40, 12035, 7373), ("synthetic", 3.91, 15325, 2211)]
)
def test_mooncake_2025(traces: Path, trace: str, rate: float, prompt: float, sessions: int) -> None:
    workload = read_mooncake(traces, trace=trace, total_rate_req_per_s=None, max_request_tokens=None)
    assert workload.total_rate_req_per_s == pytest.approx(rate, rel=0.01)
    assert mean_over_requests(workload, "prompt_tokens") == pytest.approx(prompt, rel=0.05)
    assert says(workload, f"{sessions} sessions")
    assert 0.2 < np.mean([a.cached_prompt_fraction for a in workload.adapters]) < 0.7
    capped = read_mooncake(traces, trace=trace)
    assert capped.total_rate_req_per_s == pytest.approx(40.0)
    assert max(a.prompt_tokens.mean for a in capped.adapters) < 8192
    assert says(capped, "of more than 8192 tokens")
