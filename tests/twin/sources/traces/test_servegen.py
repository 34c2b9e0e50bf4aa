"""ServeGen: its totals, shapes and lengths survive the mapping to adapters, and what was changed is said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.twin.sources.traces.notes import says
from twin.errors import InputError
from twin.sources.traces.cut_lognormal import cut_lognormal, sigma_of_quantiles
from twin.sources.traces.servegen import read_servegen
from twin.workload.rates import RateProfile

WINDOWS = "client_id,window_start_s,rate_rps,cv,pattern\n"
LENGTHS = "client_id,window_start_s,in_mean,in_p50,in_p95,out_mean,out_p50,out_p95\n"


@pytest.fixture
def servegen(tmp_path: Path) -> Path:
    """Four windows, one of which nobody used; client 2 has no lengths."""
    (tmp_path / "m-mid_clients_windows.csv").write_text(
        WINDOWS + "0,0,6,1,G\n0,600,3,4,G\n1,600,0.5,2,W\n1,1800,1,2,G\n2,0,0.9,1,G\n"
    )
    (tmp_path / "m-mid_clients_lengths.csv").write_text(
        LENGTHS + "0,0,100,100,100,50,50,50\n1,0,300,300,300,20,20,20\n9,0,7,7,7,7,7,7\n"
    )
    return tmp_path / "m-mid_clients_windows.csv"


def test_servegen_rates_are_means_over_windows_that_anybody_used(servegen: Path) -> None:
    workload = read_servegen(servegen, total_rate_req_per_s=None)
    rates = {a.adapter_id: a.rate_req_per_s for a in workload.adapters}
    assert rates == {
        "m-mid-client-0": pytest.approx(3.0),
        "m-mid-client-1": pytest.approx(0.5),
        "m-mid-client-2": pytest.approx(0.3),
    }
    cvs = {a.adapter_id: a.arrival_cv for a in workload.adapters}
    assert cvs["m-mid-client-0"] == pytest.approx((6 * 1 + 3 * 4) / 9), "weighted by requests"


def test_servegen_clients_without_lengths_get_the_median(servegen: Path) -> None:
    adapters = {a.adapter_id[-1]: a for a in read_servegen(servegen).adapters}
    assert (adapters["0"].prompt_tokens.mean, adapters["1"].prompt_tokens.mean) == (100, pytest.approx(300))
    assert adapters["2"].prompt_tokens.mean == pytest.approx(200)
    assert adapters["2"].output_tokens.mean == pytest.approx(35)
    assert says(read_servegen(servegen), "1 client (7.9 % of the requests) without recorded lengths")


def test_servegen_quantile_is_each_clients_own(servegen: Path) -> None:
    peak = {a.adapter_id[-1]: a for a in read_servegen(servegen, quantile=1.0, total_rate_req_per_s=None).adapters}
    assert [peak[i].rate_req_per_s for i in "012"] == pytest.approx([6.0, 1.0, 0.9])
    assert peak["0"].arrival_cv == pytest.approx(4.0)
    low = {a.adapter_id[-1]: a for a in read_servegen(servegen, quantile=0.1, total_rate_req_per_s=None).adapters}
    assert low["0"].rate_req_per_s == pytest.approx(3.0), "never below the mean"


def test_servegen_clients_split_into_adapters_keep_their_traffic(servegen: Path) -> None:
    whole = read_servegen(servegen, total_rate_req_per_s=19.0)
    split = read_servegen(servegen, n_adapters=8, total_rate_req_per_s=19.0)
    assert len(split.adapters) == 8
    assert Counter(a.adapter_id[: len("m-mid-client-0")][-1] for a in split.adapters) == {"0": 3, "1": 3, "2": 2}
    for client in whole.adapters:
        parts = [a for a in split.adapters if a.adapter_id.startswith(client.adapter_id)]
        assert sum(a.rate_req_per_s for a in parts) == pytest.approx(client.rate_req_per_s)
        for a in parts:
            share = a.rate_req_per_s / client.rate_req_per_s
            assert a.arrival_cv**2 - 1 == pytest.approx(share * (client.arrival_cv**2 - 1))
            assert a.prompt_tokens == client.prompt_tokens


def test_servegen_with_fewer_adapters_keeps_the_busiest(servegen: Path) -> None:
    workload = read_servegen(servegen.parent, n_adapters=2, total_rate_req_per_s=7.0)
    assert [a.adapter_id for a in workload.adapters] == ["m-mid-client-0", "m-mid-client-1"]
    assert workload.total_rate_req_per_s == pytest.approx(7.0)
    assert says(workload, "busiest 2 of 3 clients (92.1 % of the requests)")


def test_servegen_spread_comes_from_quantiles_and_from_changes_over_time(tmp_path: Path) -> None:
    file = tmp_path / "x_clients_windows.csv"
    file.write_text(WINDOWS + "a,0,1,1,G\na,21600,3,1,G\n")
    p95 = 100 * np.exp(0.5 * 1.6448536)
    rows = f"a,0,100,100,100,{100 * np.exp(0.125)},100,{p95}\na,21600,500,500,500,{100 * np.exp(0.125)},100,{p95}\n"
    (tmp_path / "x_clients_lengths.csv").write_text(LENGTHS + rows)
    adapter = read_servegen(file, max_request_tokens=None).adapters[0]
    assert adapter.prompt_tokens.mean == pytest.approx(400), "three of four requests are of the second window"
    assert adapter.prompt_tokens.cv == pytest.approx(np.sqrt(0.25 * 300**2 + 0.75 * 100**2) / 400)
    assert adapter.output_tokens.mean == pytest.approx(100 * np.exp(0.125))
    assert adapter.output_tokens.cv == pytest.approx(np.sqrt(np.expm1(0.25)))


def test_servegen_long_requests_and_wild_cvs_are_cut_and_said(servegen: Path) -> None:
    servegen.write_text(WINDOWS + "0,0,6,700,G\n1,0,1,1,G\n")
    workload = read_servegen(servegen, max_request_tokens=150)
    assert workload.adapters[0].arrival_cv == 10.0
    assert says(workload, "Arrival CVs outside 0.1..10 (50.0 % of the windows)")
    assert workload.adapters[1].prompt_tokens.mean == pytest.approx(130), "with 20 tokens of output"
    assert says(workload, "Requests of more than 150 tokens (14.3 % by estimate)")


@pytest.mark.parametrize(
    ("windows", "lengths", "message"),
    [
        (WINDOWS + "0,0,-1,1,G\n", LENGTHS + "0,0,1,1,1,1,1,1\n", "rate_rps '-1'"),
        (WINDOWS + "0,0,0,1,G\n", LENGTHS + "0,0,1,1,1,1,1,1\n", "no client has any requests"),
        (WINDOWS + "0,0,1,1,G\n0,0,2,1,G\n", LENGTHS + "0,0,1,1,1,1,1,1\n", "one window twice, on line 2 and line 3"),
        (WINDOWS + "0,0,1,1,G\n0,1e12,2,1,G\n", LENGTHS + "0,0,1,1,1,1,1,1\n", "windows after the first"),
        (WINDOWS + "0,0,1,1,G\n", LENGTHS + "5,0,1,1,1,1,1,1\n", "no client of the windows file"),
        (WINDOWS + "0,0,1,1,G\n", LENGTHS + "0,0,1,1,1,1,1,x\n", "out_p95 'x'"),
        (WINDOWS.replace("cv,", "") + "0,0,1,G\n", LENGTHS + "0,0,1,1,1,1,1,1\n", "'cv' is missing"),
    ],
)
def test_wrong_servegen_files_are_refused(servegen: Path, windows: str, lengths: str, message: str) -> None:
    servegen.write_text(windows)
    servegen.with_name("m-mid_clients_lengths.csv").write_text(lengths)
    with pytest.raises(InputError, match=message):
        read_servegen(servegen)


def test_servegen_keeps_the_recorded_changes_of_a_stretch(servegen: Path) -> None:
    """Client 0 has 6 and 3 req/s in the first two windows, client 1 comes in the second, client 2 in the first."""
    workload = read_servegen(servegen, total_rate_req_per_s=None, drift_s=1200.0)
    by_client = {a.adapter_id[-1]: a for a in workload.adapters}
    assert by_client["0"].rate_process == RateProfile((0.0, 600.0, 1200.0), (6.0, 3.0), (1.0, 4.0))
    assert by_client["1"].rate_process == RateProfile((0.0, 600.0, 1200.0), (0.0, 0.5), (1.0, 2.0))
    rates = {client: a.rate_req_per_s for client, a in by_client.items()}
    assert rates == {"0": pytest.approx(4.5), "1": pytest.approx(0.25), "2": pytest.approx(0.45)}
    assert says(workload, "in the 1200 s from 0 s")
    later = read_servegen(servegen, total_rate_req_per_s=None, drift_s=600.0, drift_start_s=600.0, plan_rate="peak")
    assert {a.adapter_id[-1]: a.rate_req_per_s for a in later.adapters} == {"0": 3.0, "1": 0.5}
    scaled = read_servegen(servegen, total_rate_req_per_s=10.0, drift_s=1200.0, plan_rate="peak")
    assert sum(a.mean_rate_req_per_s for a in scaled.adapters) == pytest.approx(10.0)
    assert scaled.total_rate_req_per_s > 12


def test_servegen_splits_drift_and_burstiness_alike(servegen: Path) -> None:
    adapters = read_servegen(
        servegen, total_rate_req_per_s=None, drift_s=1200.0, n_adapters=6, split_exponent=0
    ).adapters
    mine = [a for a in adapters if "client-0" in a.adapter_id]
    assert len(mine) == 2
    process = mine[0].rate_process
    assert isinstance(process, RateProfile)
    assert process.arrival_cvs == pytest.approx((1.0, np.sqrt(1 + 0.5 * 15)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drift_s": 700.0}, "700"),
        ({"drift_s": 6000.0}, "1 to 4 windows"),
        ({"drift_s": 600.0, "drift_start_s": 1200.0}, "no requests from 1200 to 1800 s"),
        ({"drift_s": 600.0, "drift_start_s": 1e6}, "no requests"),
        ({"drift_start_s": 600.0}, "without drift_s"),
        ({"drift_s": 600.0, "quantile": 0.9}, "quantile 0.9"),
        ({"drift_s": 600.0, "plan_rate": "high"}, "'high'"),
    ],
)
def test_wrong_stretches_are_refused(servegen: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_servegen(servegen, **options)


def test_servegen_needs_both_files(servegen: Path) -> None:
    servegen.with_name("m-mid_clients_lengths.csv").unlink()
    with pytest.raises(InputError, match=r"lengths file .* does not exist"):
        read_servegen(servegen)
    other = servegen.rename(servegen.with_name("clients.csv"))
    with pytest.raises(InputError, match="does not tell where"):
        read_servegen(other)
    with pytest.raises(InputError, match="holds no m-mid_clients_windows"):
        read_servegen(servegen.parent)


@given(st.floats(1, 1e4), st.floats(0, 1.5), st.floats(1, 1e5))
def test_cut_lognormal_agrees_with_samples(mean: float, sigma: float, limit: float) -> None:
    normal = np.random.default_rng(0).standard_normal(20_000)
    samples = mean * np.exp(sigma * np.concatenate([normal, -normal]) - sigma**2 / 2)
    cut = np.minimum(samples, limit)
    first, second, above = cut_lognormal(np.array([mean]), np.array([sigma]), limit)
    error = 5 * cut.std() / np.sqrt(len(cut)) + 1e-6 * mean
    assert first[0] == pytest.approx(cut.mean(), abs=error)
    assert second[0] >= first[0] ** 2 * (1 - 1e-9)
    assert second[0] == pytest.approx((cut**2).mean(), abs=6 * (cut**2).std() / np.sqrt(len(cut)) + 1e-6 * mean**2)
    assert above[0] == pytest.approx((samples > limit).mean(), abs=0.02) or abs(limit / mean - 1) < 1e-3


def test_sigma_is_read_from_quantiles_and_bounded() -> None:
    p95 = 100 * np.exp(0.7 * 1.6448536269514722)
    found = sigma_of_quantiles(np.array([100.0, 100.0, 0.0, 50.0]), np.array([p95, 100.0, 0.0, 1e6]))
    assert found == pytest.approx([0.7, 0.0, 0.0, 1.5])


@pytest.mark.parametrize(
    ("trace", "clients", "rate", "tenth"),
    [("m-small", 43, 1196.36, 0.713), ("m-mid", 108, 1867.89, 0.786), ("m-large", 162, 195.84, 0.738)],
)
def test_servegen_2026(traces: Path, trace: str, clients: int, rate: float, tenth: float) -> None:
    """Totals and skew agree with statistics that were derived from the trace on their own."""
    workload = read_servegen(traces, trace=trace, total_rate_req_per_s=None)
    rates = np.sort([a.rate_req_per_s for a in workload.adapters])[::-1]
    assert len(rates) == clients
    assert rates.sum() == pytest.approx(rate, rel=1e-4)
    assert rates[: clients // 10].sum() / rates.sum() == pytest.approx(tenth, abs=0.005)
    scaled = read_servegen(traces, trace=trace, n_adapters=400)
    assert len(scaled.adapters) == 400
    assert scaled.total_rate_req_per_s == pytest.approx(40.0)
    assert all(a.in_out_moment > 0 for a in scaled.adapters)


def test_servegen_2026_drifts_as_recorded(traces: Path) -> None:
    """Six windows of the busiest hour: the rates per window are those of the file, scaled."""
    workload = read_servegen(traces, trace="m-large", drift_s=3600.0)
    processes = [a.rate_process for a in workload.adapters]
    assert all(isinstance(p, RateProfile) and len(p.factors) == 6 for p in processes)
    total = sum(np.array(p.factors) for p in processes if isinstance(p, RateProfile))
    assert total.mean() > 195.84, "busier than the mean of 14 days"
    assert workload.total_rate_req_per_s == pytest.approx(40.0)
    peak = read_servegen(traces, trace="m-large", drift_s=3600.0, plan_rate="peak")
    assert 1.02 < peak.total_rate_req_per_s / 40.0 < 3
