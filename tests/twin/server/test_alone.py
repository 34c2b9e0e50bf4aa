"""What `twin.server.alone` says is the least is what the twin plays for a lone request, and nobody is ever faster."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.twin.columns import LLAMA
from twin.engine.play import play
from twin.server.alone import least_itl_s, least_ttft_s
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.traffic.lengths import length_classes
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests

LENGTHS = Lengths(100, 1)
SENT = list[tuple[float, int, int, int, int]]


def played(sent: SENT, ranks: tuple[int, ...], setting: EngineSetting, calibration: Calibration = LLAMA) -> np.ndarray:
    """TTFT and mean ITL in seconds, (N, 2), of requests (arrival, adapter, prompt, cached, output)."""
    rows = np.array(sorted(sent), dtype=np.float64)
    whole = rows[:, 1:].astype(np.int32)
    requests = Requests(rows[:, 0].copy(), *(np.ascontiguousarray(whole[:, k]) for k in range(4)))
    adapters = tuple(Adapter(f"a{i}", rank, 1.0, LENGTHS, LENGTHS) for i, rank in enumerate(ranks))
    out = play(Column(adapters, setting), calibration, horizon_s=10_000.0, requests=requests).out
    itl = (out.finish_s - out.first_token_s) / np.maximum(whole[:, 3] - 1, 1)
    return np.stack([out.first_token_s - rows[:, 0], itl], axis=1)


@pytest.mark.parametrize("name", ["llama-3.1-8b-h100-64gb", "qwen2.5-7b-h100-64gb", "opt-1.3b-h100-64gb"])
@pytest.mark.parametrize("async_scheduling", [False, True])
@pytest.mark.parametrize(("prompt", "cached"), [(1, 0), (100, 0), (128, 0), (512, 0), (513, 0), (1500, 300), (2000, 0)])
def test_a_lone_request_takes_exactly_the_least(name: str, async_scheduling: bool, prompt: int, cached: int) -> None:
    calibration = load_calibration(name)
    for rank in (0, 8) if calibration.has_adapter_costs else (0,):
        setting = EngineSetting(
            calibration.stamp.gpu_type, 16, 16, max_num_seqs=256, max_num_batched_tokens=512,
            async_scheduling=async_scheduling,
        )  # fmt: skip
        (found,) = played([(1.0, 0, prompt, cached, 2)], (rank,), setting, calibration)
        ttft = least_ttft_s(prompt, setting, calibration, cached_tokens=cached, in_slot=rank > 0)
        assert found[0] == pytest.approx(float(ttft), rel=1e-9)
        assert found[1] == pytest.approx(float(least_itl_s(prompt, setting, calibration, in_slot=rank > 0)), rel=1e-9)


def test_a_token_more_may_be_cheaper_where_a_small_step_costs_extra() -> None:
    """The law's one term that does not grow: the least is below what a request of 127 tokens takes alone."""
    setting = EngineSetting(LLAMA.stamp.gpu_type, 16, 16)
    assert LLAMA.step.adapter_small > LLAMA.step.prompt
    (found,) = played([(1.0, 0, 127, 0, 1)], (8,), setting)
    assert found[0] * (1 - 0.01) < float(least_ttft_s(127, setting, LLAMA)) < found[0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.5), st.integers(0, 2), st.integers(2, 3000), st.integers(0, 1), st.integers(1, 60)
        ),
        min_size=1, max_size=40,
    ),
    st.sampled_from([256, 2048]), st.booleans(),
)  # fmt: skip
def test_nobody_is_faster_than_alone(sent: SENT, chunk: int, async_scheduling: bool) -> None:
    ranks = (0, 8, 16)
    setting = EngineSetting(
        LLAMA.stamp.gpu_type, 2, 16, max_num_seqs=64, max_num_batched_tokens=chunk, async_scheduling=async_scheduling
    )
    found = played(sent, ranks, setting)
    for (_, adapter, prompt, cached, output), (ttft, itl) in zip(sorted(sent), found, strict=True):
        in_slot = ranks[adapter] > 0
        assert ttft >= float(least_ttft_s(prompt, setting, LLAMA, cached_tokens=cached, in_slot=in_slot)) * (1 - 1e-9)
        if output > 1:
            assert itl >= float(least_itl_s(prompt, setting, LLAMA, in_slot=in_slot)) * (1 - 1e-9)


@pytest.mark.parametrize(
    "lengths",
    [Lengths(2000, 1.1), Lengths(300, 0.0), Lengths(40.5, 0.3), Lengths(500, 2.0, "lognormal"), Lengths(1, 0)],
)
def test_classes_of_lengths_enclose_what_is_drawn(lengths: Lengths) -> None:
    from twin.traffic.arrivals import draw_requests

    low, high, weight = length_classes(lengths, 10**9)
    assert weight.sum() == pytest.approx(1.0, abs=1e-12) and (weight >= 0).all()
    assert (low <= high).all() and (np.diff(low) >= 0).all() and (low >= 1).all()
    drawn = draw_requests([Adapter("a", 8, 20.0, lengths, LENGTHS)], horizon_s=2000, seed=1, max_model_len=10**9).prompt
    for tokens in np.quantile(drawn, [0.1, 0.5, 0.9, 0.99]):
        error = 3 * np.sqrt(0.25 / len(drawn))
        assert weight[low >= tokens].sum() <= (drawn >= tokens).mean() + error
        assert weight[high >= tokens].sum() >= (drawn >= tokens).mean() - error
    assert (weight * low).sum() <= lengths.mean <= (weight * high).sum() * (1 + 1e-3)


def test_longer_lengths_are_cut() -> None:
    low, high, _ = length_classes(Lengths(2000, 1.1), 1500)
    assert high.max() == low.max() == 1500
