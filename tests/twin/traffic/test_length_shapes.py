"""Shapes of lengths: mean and spread as asked for, tails as the shape says, recorded ones kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from twin.errors import InputError
from twin.sources.access_log import read_access_log
from twin.sources.synthetic import discrete_rates
from twin.traffic.arrivals import draw_requests
from twin.traffic.length_shapes import (
    RECORDED_CHOICES,
    check_length_shape,
    empirical_lengths,
    recorded_quantiles,
    with_length_shape,
)
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests
from twin.workload.workload import merge_tenants


def draw(prompt: Lengths, output: Lengths, n: int = 100_000, correlation: float = 0.0) -> Requests:
    adapter = Adapter("a", 8, 10.0, prompt, output, length_correlation=correlation)
    return draw_requests([adapter], horizon_s=n / 10, rng=np.random.default_rng(1), max_model_len=10**9)


@settings(max_examples=25, deadline=None)
@given(st.floats(20, 2000), st.floats(0.1, 1.5))
def test_lognormal_lengths_have_their_mean_and_spread(mean: float, cv: float) -> None:
    tokens = draw(Lengths(mean, cv, "lognormal"), Lengths(10, 0), 60_000).prompt
    assert tokens.mean() == pytest.approx(mean, rel=0.04)
    assert tokens.std() / tokens.mean() == pytest.approx(cv, rel=0.12, abs=0.03)
    assert tokens.min() >= 1


def test_a_lognormal_tail_is_longer_than_a_gamma_tail() -> None:
    gamma, lognormal = (draw(Lengths(200, 1.0, shape), Lengths(10, 0)).prompt for shape in ("gamma", "lognormal"))
    assert np.quantile(lognormal, 0.999) > 1.3 * np.quantile(gamma, 0.999)
    # Of a lognormal, log(99 %) - log(50 %) is 2.326 sigma.
    spread = np.log(np.quantile(lognormal, 0.99) / np.median(lognormal))
    assert spread == pytest.approx(2.326 * np.sqrt(np.log(2)), rel=0.03)


@pytest.mark.parametrize("correlation", [-0.3, 0.0, 0.6])
@pytest.mark.parametrize("shape", ["lognormal", "empirical"])
def test_the_correlation_is_the_one_asked_for(shape: str, correlation: float) -> None:
    lengths = Lengths(200, 0.8, "lognormal")
    if shape == "empirical":
        lengths = empirical_lengths(np.random.default_rng(0).gamma(1.5, 150, 20_000))
    requests = draw(lengths, lengths, 200_000, correlation)
    assert np.corrcoef(requests.prompt, requests.output)[0, 1] == pytest.approx(correlation, abs=0.03)


def test_constant_lengths_are_constant() -> None:
    requests = draw(Lengths(100, 0, "constant"), Lengths(10.5, 0, "constant"))
    assert set(requests.prompt.tolist()) == {100}
    assert set(requests.output.tolist()) == {10, 11}, "a fraction becomes a mix of its neighbours"
    assert requests.output.mean() == pytest.approx(10.5, abs=0.01)


def test_recorded_lengths_come_back_with_their_two_modes_and_their_tail() -> None:
    rng = np.random.default_rng(0)
    recorded = np.concatenate([rng.poisson(30, 7000), rng.poisson(900, 2900), rng.integers(3000, 4001, 100)])
    lengths = empirical_lengths(recorded)
    tokens = draw(lengths, Lengths(10, 0), 200_000).prompt
    assert lengths.mean == pytest.approx(recorded.mean())
    assert tokens.mean() == pytest.approx(recorded.mean(), rel=0.02)
    assert tokens.std() == pytest.approx(recorded.std(), rel=0.05)
    for probability in (0.1, 0.5, 0.9, 0.98, 0.999):
        assert np.quantile(tokens, probability) == pytest.approx(np.quantile(recorded, probability), rel=0.06)
    assert ((tokens > 100) & (tokens < 700)).mean() < 0.02, "nothing between the modes"
    assert 0.97 * recorded.max() <= tokens.max() <= 1.03 * recorded.max()
    # A Gamma of the same mean and spread would not do.
    gamma = draw(Lengths(lengths.mean, lengths.cv), Lengths(10, 0)).prompt
    assert ((gamma > 100) & (gamma < 700)).mean() > 0.25


def test_recorded_lengths_can_be_stretched_to_another_mean() -> None:
    recorded = np.random.default_rng(0).gamma(2.0, 100, 5000)
    tokens = draw(empirical_lengths(recorded, mean=50.0), Lengths(10, 0)).prompt
    assert tokens.mean() == pytest.approx(50.0, rel=0.02)
    assert tokens.std() / tokens.mean() == pytest.approx(recorded.std() / recorded.mean(), rel=0.05)


def test_the_published_lengths_have_published_means_spreads_and_quartiles() -> None:
    adapters = discrete_rates(2, [1.0], [8], length_shape="published").adapters
    requests = draw_requests(adapters, horizon_s=100_000.0, rng=np.random.default_rng(0), max_model_len=10**6)
    for tokens, mean, cv, quarter in ((requests.prompt, 223, 1.10, 23), (requests.output, 198, 1.07, 27)):
        assert tokens.mean() == pytest.approx(mean, rel=0.01)
        assert tokens.std() / tokens.mean() == pytest.approx(cv, abs=0.04)
        assert np.quantile(tokens, 0.25) == pytest.approx(quarter, abs=3)
    assert np.corrcoef(requests.prompt, requests.output)[0, 1] == pytest.approx(
        adapters[0].length_correlation, abs=0.02
    )
    assert -0.36 < adapters[0].length_correlation < -0.26


def test_an_access_log_keeps_its_lengths_on_request(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{i},a,{rng.choice([10, 500])},{rng.integers(1, 9)}" for i in range(500)]
    (tmp_path / "log.csv").write_text(
        "\n".join(["timestamp,adapter_id,prompt_tokens,output_tokens", *rows, "600,rare,5000,9"]) + "\n"
    )
    (tmp_path / "ranks.csv").write_text("adapter_id,rank\na,8\nrare,8\n")
    read = [
        read_access_log(tmp_path / "log.csv", tmp_path / "ranks.csv", length_shape=s) for s in ("gamma", "empirical")
    ]
    plain, kept = (w.adapters for w in read)
    assert plain[0].prompt_tokens.shape == "gamma"
    assert (kept[0].prompt_tokens.mean, kept[0].prompt_tokens.cv) == (
        plain[0].prompt_tokens.mean, plain[0].prompt_tokens.cv,
    )  # fmt: skip
    tokens = draw(kept[0].prompt_tokens, kept[0].output_tokens).prompt
    assert ((tokens < 20) | (tokens > 450)).mean() > 0.95
    quantiles = kept[1].prompt_tokens.quantiles
    assert (quantiles[0], quantiles[-1]) == (10, 5000), "an adapter with few requests has the shape of all"
    assert kept[1].prompt_tokens.mean == 5000
    assert any("quantiles of the recorded" in note for note in read[1].notes)


@pytest.mark.parametrize("shape", ["lognormal", "constant", "published"])
def test_a_shape_for_the_whole_workload_keeps_means_and_shapes_of_their_own(shape: str) -> None:
    own = replace(discrete_rates(1, [1.0], [8]).adapters[0], prompt_tokens=empirical_lengths([1, 2, 3]))
    plain = discrete_rates(3, [1.0], [8]).adapters
    shaped = with_length_shape([own, *plain], shape)
    assert shaped[0] == own
    assert [a.prompt_tokens.mean for a in shaped[1:]] == [a.prompt_tokens.mean for a in plain]
    assert all(a.prompt_tokens != b.prompt_tokens for a, b in zip(shaped[1:], plain, strict=True))
    assert with_length_shape(plain, "gamma") == plain


def test_tenants_of_one_adapter_have_one_shape() -> None:
    def tenant(lengths: Lengths) -> Adapter:
        return Adapter("a", 8, 1.0, lengths, lengths)

    mixed = merge_tenants([tenant(Lengths(10, 0, "constant")), tenant(Lengths(20, 0, "constant"))])[0]
    assert (mixed.prompt_tokens.mean, mixed.prompt_tokens.shape) == (15, "gamma")
    assert merge_tenants([tenant(Lengths(10, 1, "lognormal"))] * 2)[0].prompt_tokens.shape == "lognormal"
    with pytest.raises(InputError, match="different shape"):
        merge_tenants([tenant(Lengths(10, 1, "lognormal")), tenant(Lengths(10, 1))])
    with pytest.raises(InputError, match="different recorded lengths"):
        merge_tenants([tenant(empirical_lengths([1, 2])), tenant(empirical_lengths([1, 3]))])


GOOD = recorded_quantiles([10, 20])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Lengths(10, 1, "normal"), "'normal'"),
        (lambda: Lengths(10, 1, "constant"), "CV is 1"),
        (lambda: Lengths(10, 1, "empirical"), "0 quantiles"),
        (lambda: Lengths(10, 1, "gamma", GOOD), "quantiles belong"),
        (lambda: Lengths(10, 1, "lognormal", GOOD), "201 quantiles"),
        (lambda: Lengths(10, 1, "empirical", GOOD[:5]), "5 quantiles"),
        (lambda: Lengths(10, 1, "empirical", GOOD[::-1]), "from 20.0 to 10.0"),
        (lambda: Lengths(10, 1, "empirical", (0.5, *GOOD[1:])), "from 0.5"),
        (lambda: Lengths(10, 1, "empirical", (*GOOD[:-1], float("inf"))), "inf"),
        (lambda: Lengths(10, 1, "empirical", (*GOOD[:-1], float("nan"))), "nan"),
        (lambda: empirical_lengths([]), "no recorded lengths"),
        (lambda: empirical_lengths([1.0, float("nan")]), "not a number"),
        (lambda: check_length_shape("empirical"), "needs recorded requests"),
        (lambda: check_length_shape(["gamma"], RECORDED_CHOICES), "['gamma']"),
        (lambda: discrete_rates(2, [1.0], [8], length_shape="zipf"), "'zipf'"),
    ],
)
def test_impossible_shapes_are_refused(make: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert said in error.value.problem
    assert error.value.remedy
