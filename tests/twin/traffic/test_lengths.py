"""Lengths and arrivals are what was asked for: mean, spread, correlation, rate, burstiness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from twin.errors import InputError
from twin.traffic.arrivals import draw_requests
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests


def draw(adapter: Adapter, n: int, seed: int = 0) -> Requests:
    return draw_requests(
        [adapter], horizon_s=n / adapter.rate_req_per_s, rng=np.random.default_rng(seed), max_model_len=10**9
    )


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1.5, 3000), st.floats(0.0, 2.0), st.floats(1.5, 1000), st.floats(0.0, 1.5), st.integers(0, 2**31),
)  # fmt: skip
def test_mean_and_spread_are_those_asked_for(p: float, p_cv: float, o: float, o_cv: float, seed: int) -> None:
    n = 40_000
    requests = draw(Adapter("a", 8, 10.0, Lengths(p, p_cv), Lengths(o, o_cv)), n, seed)
    for tokens, mean, cv in ((requests.prompt, p, p_cv), (requests.output, o, o_cv)):
        assert tokens.min() >= 1
        # Five standard errors; random rounding adds at most half a token to the spread.
        assert tokens.mean() == pytest.approx(mean, abs=5 * (cv * mean + 0.5) / np.sqrt(n))
        kurtosis = 3 + 6 * cv**2
        tolerance = 5 * cv * mean * np.sqrt(kurtosis / n) / 2 + 0.51
        assert tokens.std() == pytest.approx(cv * mean, abs=tolerance)


@pytest.mark.parametrize("correlation", [-0.4, -0.2, 0.0, 0.5, 0.9])
def test_correlation_is_the_one_asked_for(correlation: float) -> None:
    requests = draw(
        Adapter("a", 8, 10.0, Lengths(223, 1.1), Lengths(197, 1.06), length_correlation=correlation), 200_000
    )
    assert np.corrcoef(requests.prompt, requests.output)[0, 1] == pytest.approx(correlation, abs=0.015)


@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0])
def test_arrivals_have_the_rate_and_burstiness_asked_for(cv: float) -> None:
    rate, n = 5.0, 100_000
    times = draw(Adapter("a", 8, rate, Lengths(10, 0), Lengths(10, 0), arrival_cv=cv), n).arrival_s
    gaps = np.diff(times)
    assert len(times) == pytest.approx(n, abs=5 * cv * np.sqrt(n))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_bursty_arrivals_start_in_equilibrium() -> None:
    """A cold, bursty adapter sends as many requests in the first minute as in any other."""
    adapter = Adapter("a", 8, 0.05, Lengths(10, 0), Lengths(10, 0), arrival_cv=4.0)
    counts = []
    for seed in range(4000):
        requests = draw_requests([adapter], horizon_s=60.0, rng=np.random.default_rng(seed), max_model_len=4096)
        counts.append(len(requests))
    assert np.mean(counts) == pytest.approx(3.0, abs=5 * np.std(counts) / np.sqrt(len(counts)))


def test_requests_longer_than_the_model_are_cut() -> None:
    requests = draw_requests(
        [Adapter("a", 8, 50.0, Lengths(900, 1.0), Lengths(900, 1.0))], horizon_s=100, rng=np.random.default_rng(0),
        max_model_len=1024,
    )  # fmt: skip
    assert (requests.prompt + requests.output).max() == 1024
    assert requests.output.min() >= 1


@pytest.mark.parametrize(("mean", "cv"), [(0.0, 1.0), (-5.0, 1.0), (float("nan"), 1.0), (10.0, -0.1), (10.0, 50.0)])
def test_impossible_lengths_are_refused(mean: float, cv: float) -> None:
    with pytest.raises(InputError, match=r"tokens|CV"):
        Lengths(mean, cv)
