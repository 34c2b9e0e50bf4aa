"""Rates over time and phases from files: what is written is what is simulated, and what is wrong is pointed at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twin.errors import InputError
from twin.sources.adapter_file import read_adapters
from twin.traffic.arrivals import draw_requests
from twin.traffic.drift import Unpredictable
from twin.workload.rates import OnOff, RateProfile
from twin.workload.workload import Workload

ADAPTERS = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens\na,8,9,100,10\nb,8,2,100,10\nc,16,3,100,10\n"
RATES = "adapter_id,start_s,rate_req_per_s\na,1000,1\nb,1600,4\na,1600,3\nb,2200,0\na,2200,0.5\n"


def read(folder: Path, rates: str = RATES, adapters: str = ADAPTERS, **options: object) -> Workload:
    (folder / "adapters.csv").write_text(adapters)
    (folder / "rates.csv").write_text(rates)
    return read_adapters(folder / "adapters.csv", rates_path=folder / "rates.csv", **options)  # type: ignore[arg-type]


def test_rates_hold_from_their_start_to_the_next(tmp_path: Path) -> None:
    a, b, c = read(tmp_path).adapters
    assert a.rate_process == RateProfile((0.0, 600.0, 1200.0, 1800.0), (1.0, 3.0, 0.5))
    assert b.rate_process == RateProfile((0.0, 600.0, 1200.0, 1800.0), (0.0, 4.0, 0.0)), "nothing before its first row"
    assert (a.rate_req_per_s, b.rate_req_per_s) == (pytest.approx(1.5), pytest.approx(4 / 3))
    assert (c.rate_req_per_s, c.rate_process) == (3.0, None)


def test_the_recorded_rates_are_drawn(tmp_path: Path) -> None:
    adapters = read(tmp_path).adapters
    requests = draw_requests(adapters, horizon_s=1800.0, rng=np.random.default_rng(0), max_model_len=2048)
    times = requests.arrival_s[requests.adapter == 0]
    number = np.bincount((times // 600).astype(int), minlength=3)
    assert number == pytest.approx([600, 1800, 300], abs=5 * np.sqrt(1800))
    other = requests.arrival_s[requests.adapter == 1]
    assert other.min() >= 600
    assert other.max() < 1200


def test_the_end_burstiness_and_planned_rate_can_be_given(tmp_path: Path) -> None:
    rates = RATES.replace("_per_s\n", "_per_s,arrival_cv\n").replace(",3\n", ",3,4\n").replace("1000,1\n", "1000,1,\n")
    rates = rates.replace("1600,4\n", "1600,4,\n").replace("2200,0\n", "2200,0,\n").replace(",0.5\n", ",0.5,2\n")
    workload = read(tmp_path, rates, rates_end_s=4600, plan_rate="peak", default_arrival_cv=1.5)
    a = workload.adapters[0]
    assert isinstance(a.rate_process, RateProfile)
    assert a.rate_process.edges_s == (0.0, 600.0, 1200.0, 3600.0)
    assert a.rate_process.arrival_cvs == (1.5, 4.0, 2.0)
    assert a.rate_req_per_s == pytest.approx(3.0)
    assert a.mean_rate_req_per_s == pytest.approx((600 * 1 + 600 * 3 + 2400 * 0.5) / 3600)
    assert any("peak" in note for note in workload.notes)


def test_other_adapters_may_drift(tmp_path: Path) -> None:
    a, _, c = read(tmp_path, drift=Unpredictable()).adapters
    assert isinstance(a.rate_process, RateProfile)
    assert len(a.rate_process.factors) == 3
    assert isinstance(c.rate_process, RateProfile)
    assert len(c.rate_process.factors) == 12


@pytest.mark.parametrize(
    ("rates", "options", "said"),
    [
        (RATES + "x,1000,1\n", {}, "'x' is not in the adapter file"),
        (RATES + "a,1600,2\n", {}, "two rates"),
        (RATES + "c,1000,0\n", {}, "all rates of adapter 'c' are 0"),
        (RATES + "c,1000,-2\n", {}, "-2"),
        (RATES + "c,1000,inf\n", {}, "inf"),
        (RATES + "c,soon,1\n", {}, "soon"),
        ("adapter_id,start_s,rate_req_per_s\na,0,1\n", {}, "how long they hold is unknown"),
        (RATES, {"rates_end_s": 2200}, "2200 is not after the last start"),
        (RATES, {"plan_rate": "most"}, "'most'"),
        ("adapter_id,rate_req_per_s\na,1\n", {}, "'start_s' is missing"),
    ],
)
def test_wrong_rates_are_refused(tmp_path: Path, rates: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, rates, **options)
    assert said in error.value.problem
    assert error.value.remedy


def test_an_end_without_rates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(ADAPTERS)
    with pytest.raises(InputError, match="without a file of rates"):
        read_adapters(tmp_path / "a.csv", rates_end_s=10.0)


PHASES = ADAPTERS.splitlines()[0] + ",on_s,off_s,off_factor,switch_group\n"


def test_phases_are_read_where_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(PHASES + "a,8,1,10,10,60,240,,team\nb,8,1,10,10,,,,\n")
    a, b = read_adapters(tmp_path / "a.csv").adapters
    assert a.rate_process == OnOff(60, 240, group="team")
    assert b.rate_process is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PHASES + "a,8,1,10,10,60,,,\n", "one of on_s and off_s"),
        (PHASES + "a,8,1,10,10,0,60,,\n", "'0'"),
        (PHASES + "a,8,1,10,10,1e-9,60,,\n", "1e-09"),
        (PHASES + "a,8,1,10,10,60,60,1,\n", "'1'"),
        (PHASES.replace(",off_s", "") + "a,8,1,10,10,60,,\n", "'on_s' is there and 'off_s' is not"),
        (PHASES.replace(",on_s,off_s", "") + "a,8,1,10,10,0,\n", "'off_factor' needs"),
        (ADAPTERS.replace("tokens\n", "tokens,length_shape\n").replace(",10\n", ",10,normal\n"), "'normal'"),
    ],
)
def test_wrong_phases_and_shapes_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read_adapters(tmp_path / "a.csv")
    assert said in error.value.problem
    assert error.value.remedy
    assert "a.csv" in error.value.where


def test_phases_and_rates_over_time_exclude_each_other(tmp_path: Path) -> None:
    adapters = PHASES + "a,8,1,10,10,60,240,,\nb,8,1,10,10,,,,\n"
    with pytest.raises(InputError, match="phases"):
        read(tmp_path, adapters=adapters)


def test_a_shape_in_the_file_wins_over_the_option(tmp_path: Path) -> None:
    text = ADAPTERS.replace("tokens\n", "tokens,length_shape\n")
    for row, shape in (("a,8,9,100,10", "constant"), ("b,8,2,100,10", "gamma"), ("c,16,3,100,10", "")):
        text = text.replace(row, f"{row},{shape}")
    (tmp_path / "a.csv").write_text(text)
    shapes = [a.prompt_tokens.shape for a in read_adapters(tmp_path / "a.csv", length_shape="lognormal").adapters]
    assert shapes == ["constant", "gamma", "lognormal"]
