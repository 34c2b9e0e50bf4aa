"""Synthetic workloads reproduce what was asked for: rates, ranks, lengths, shares."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from twin.errors import InputError
from twin.sources.synthetic import discrete_rates, power_law
from twin.workload.workload import Workload


def mean_over_requests(workload: Workload, side: str) -> float:
    rates = [a.rate_req_per_s for a in workload.adapters]
    return float(np.average([getattr(a, side).mean for a in workload.adapters], weights=rates))


def test_published_rates_come_in_turn_and_ranks_are_dealt_evenly() -> None:
    workload = discrete_rates(9, [0.1, 0.05, 0.025], [8, 16, 32])
    assert [a.rate_req_per_s for a in workload.adapters] == [0.1, 0.05, 0.025] * 3
    assert Counter(a.rank for a in workload.adapters) == {8: 3, 16: 3, 32: 3}


def test_published_rates_and_ranks_are_independent() -> None:
    workload = discrete_rates(900, [0.1, 0.05, 0.025], [8, 16, 32])
    pairs = Counter((a.rate_req_per_s, a.rank) for a in workload.adapters)
    assert len(pairs) == 9
    assert all(70 <= count <= 130 for count in pairs.values())


def test_published_lengths_are_the_default() -> None:
    adapter = discrete_rates(1, [0.1], [8]).adapters[0]
    assert (adapter.prompt_tokens.mean, adapter.prompt_tokens.cv) == (223.0, 1.1)
    assert 197 <= adapter.output_tokens.mean <= 200
    assert (adapter.output_tokens.cv, adapter.length_correlation, adapter.arrival_cv) == (1.06, -0.4, 1.0)


@given(
    n=st.integers(1, 300),
    total=st.floats(0.01, 500),
    exponent=st.floats(0, 3),
    base=st.sampled_from([0.0, 0.1, 0.7]),
    spread=st.floats(0, 2),
    prompt_mean=st.floats(1, 4000),
    seed=st.integers(0, 2**32),
)
def test_total_rate_and_mean_lengths_are_exactly_those_asked_for(
    n: int, total: float, exponent: float, base: float, spread: float, prompt_mean: float, seed: int
) -> None:
    workload = power_law(
        n,
        total,
        exponent,
        [8, 16],
        base_model_share=base,
        length_scale_cv=spread,
        prompt_mean=prompt_mean,
        output_mean=150.0,
        seed=seed,
    )
    assert workload.total_rate_req_per_s == pytest.approx(total)
    assert mean_over_requests(workload, "prompt_tokens") == pytest.approx(prompt_mean)
    assert mean_over_requests(workload, "output_tokens") == pytest.approx(150.0)
    assert math.fsum(a.rate_req_per_s for a in workload.adapters if a.rank == 0) == pytest.approx(base * total)
    assert sum(a.rank > 0 for a in workload.adapters) == n


def test_rates_follow_the_power_law() -> None:
    rates = [a.rate_req_per_s for a in power_law(100, 10.0, 1.5, [8]).adapters]
    slopes = np.diff(np.log(rates)) / np.diff(np.log(np.arange(1, 101)))
    assert slopes == pytest.approx(np.full(99, -1.5))


def test_rank_mix_is_met_exactly() -> None:
    workload = power_law(200, 10.0, 1.0, [8, 16, 32], rank_weights=[0.5, 0.3, 0.2])
    assert Counter(a.rank for a in workload.adapters) == {8: 100, 16: 60, 32: 40}


def test_bursty_share_and_range_are_met() -> None:
    workload = power_law(500, 10.0, 1.0, [8], arrival_cv=[2.0, 5.0], bursty_share=0.2)
    cvs = np.array([a.arrival_cv for a in workload.adapters])
    assert np.count_nonzero(cvs == 1.0) == 400
    assert cvs[cvs != 1.0].min() >= 2.0
    assert cvs.max() <= 5.0
    assert np.median(cvs[cvs != 1.0]) == pytest.approx(math.sqrt(10), rel=0.2)


def test_length_scale_spread_is_met() -> None:
    workload = power_law(3000, 10.0, 0.0, [8], length_scale_cv=0.5)
    means = np.array([a.prompt_tokens.mean for a in workload.adapters])
    assert means.std() / means.mean() == pytest.approx(0.5, rel=0.1)


def test_the_seed_decides_everything_drawn() -> None:
    def draw(seed: int) -> Workload:
        return power_law(50, 5.0, 1.0, [8, 16], arrival_cv=[1.0, 4.0], length_scale_cv=0.5, seed=seed)

    assert draw(3) == draw(3)
    assert draw(3).adapters != draw(4).adapters
    assert discrete_rates(50, [0.1], [8, 16], seed=3) != discrete_rates(50, [0.1], [8, 16], seed=4)


def test_base_model_traffic_is_one_entry_of_rank_zero() -> None:
    workload = power_law(10, 20.0, 1.0, [8], base_model_share=0.25)
    assert [(a.adapter_id, a.rate_req_per_s) for a in workload.adapters if a.rank == 0] == [("base-model", 5.0)]
    assert any("25.0 % of all requests" in note for note in workload.notes)


@pytest.mark.parametrize(
    ("wrong", "option", "value"),
    [
        ({"n_adapters": 0}, "n_adapters", "0"),
        ({"n_adapters": 2.5}, "n_adapters", "2.5"),
        ({"n_adapters": "many"}, "n_adapters", "'many'"),
        ({"total_rate_req_per_s": -1.0}, "total_rate_req_per_s", "-1"),
        ({"total_rate_req_per_s": math.nan}, "total_rate_req_per_s", "nan"),
        ({"exponent": -0.1}, "exponent", "-0.1"),
        ({"ranks": []}, "ranks", "[]"),
        ({"ranks": 8}, "ranks", "8"),
        ({"ranks": "8,16"}, "ranks", "8,16"),
        ({"ranks": [8, 0]}, "ranks", "0"),
        ({"rank_weights": [1.0]}, "rank_weights", "[1.0]"),
        ({"rank_weights": [0.0, 0.0]}, "rank_weights", "[0.0, 0.0]"),
        ({"arrival_cv": [3.0, 1.0]}, "arrival_cv", "[3.0, 1.0]"),
        ({"arrival_cv": 0.0}, "arrival_cv", "0.0"),
        ({"arrival_cv": ["a", "b"]}, "arrival_cv", "'a'"),
        ({"bursty_share": 1.5}, "bursty_share", "1.5"),
        ({"base_model_share": 1.0}, "base_model_share", "1.0"),
        ({"length_correlation": -1.0}, "length_correlation", "-1"),
        ({"length_scale_cv": True}, "length_scale_cv", "True"),
        ({"prompt_mean": "long"}, "prompt_mean", "'long'"),
        ({"output_cv": "wide"}, "output_cv", "'wide'"),
        ({"cached_prompt_fraction": "half"}, "cached_prompt_fraction", "'half'"),
        ({"seed": -1}, "seed", "-1"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(wrong: dict[str, Any], option: str, value: str) -> None:
    options: dict[str, Any] = {"n_adapters": 10, "total_rate_req_per_s": 1.0, "exponent": 1.0, "ranks": [8, 16]}
    with pytest.raises(InputError) as caught:
        power_law(**(options | wrong))
    assert f"workload.{option}" in caught.value.where
    assert value in caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize(
    "wrong", [{"rates": [0.1, 0.0]}, {"rates": []}, {"rates": ["x"]}, {"ranks": [1.5]}, {"arrival_cv": "x"}]
)
def test_a_wrong_option_of_the_published_shape_is_refused(wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"n_adapters": 10, "rates": [0.1], "ranks": [8]}
    with pytest.raises(InputError, match=r"workload\."):
        discrete_rates(**(options | wrong))
