"""The open-loop client sends what was drawn, when it was drawn, and tells what came back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.twin.client.fake_server import fake_server
from twin.client.cohort import cohort
from twin.client.load import Route, offer_load
from twin.errors import InputError
from twin.workload.requests import Requests


def requests_at(times: list[float], output: int) -> Requests:
    n = len(times)
    ones = np.ones(n, np.int32)
    return Requests(np.array(times), (np.arange(n) % 2).astype(np.int32), 7 * ones, 0 * ones, output * ones)


def test_lengths_adapters_and_times_are_those_of_the_requests() -> None:
    requests = requests_at([0.0, 0.05, 0.1, 0.15], output=4)
    with fake_server() as (url, got):
        answers = offer_load(requests, [Route(url, f"a{a}") for a in requests.adapter], horizon_s=2.0)
    assert [b["model"] for b in got] == ["a0", "a1", "a0", "a1"]
    assert all(len(b["prompt"]) == 7 and b["max_tokens"] == 4 and b["ignore_eos"] for b in got)  # type: ignore[arg-type]
    assert np.all(answers.sent_s >= requests.arrival_s) and np.all(answers.sent_s < answers.first_token_s)
    assert np.all(answers.finish_s - answers.first_token_s >= 3 * 0.005 * 0.9)


def test_what_is_unanswered_at_the_end_of_the_window_is_cancelled() -> None:
    requests = requests_at([0.0, 0.0], output=2000)
    with fake_server() as (url, _):
        answers = offer_load(requests, [Route(url, "a")] * 2, horizon_s=0.3)
    assert np.all(np.isfinite(answers.first_token_s)) and np.all(np.isinf(answers.finish_s))


def test_a_server_that_refuses_is_named() -> None:
    requests = requests_at([0.0], output=2)
    with fake_server(status=404) as (url, _), pytest.raises(InputError, match="HTTP 404 model not found"):
        offer_load(requests, [Route(url, "a")], horizon_s=1.0)


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    with fake_server(breaks_off=True) as (url, _), pytest.raises(InputError, match="broke off"):
        offer_load(requests_at([0.0], output=2), [Route(url, "a")], horizon_s=1.0)


def test_no_server_is_an_input_error() -> None:
    with pytest.raises(InputError, match="1 of 1 requests failed"):
        offer_load(requests_at([0.0], output=2), [Route("http://127.0.0.1:1", "a")], horizon_s=1.0)


def test_figures_count_the_cohort_and_censor_who_waits() -> None:
    requests = requests_at([0.0, 1.0, 2.0], output=11)
    row = cohort(requests, np.array([0.5, 1.5, np.inf]), np.array([1.5, 3.5, np.inf]), horizon_s=10.0, adapters=2)
    assert row["throughput_tps"] == pytest.approx(2 * 18 / 10) and row["served_fraction"] == pytest.approx(2 / 3)
    assert row["ttft_mean_s"] == pytest.approx((0.5 + 0.5 + 8.0) / 3)
    assert row["tpot_mean_ms"] == pytest.approx((100 + 200) / 2) and row["starved"] == 1.0
