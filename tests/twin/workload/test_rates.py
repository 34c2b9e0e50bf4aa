"""Descriptions of changing rates mean what they say, and impossible ones are refused by value and remedy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from twin.errors import InputError
from twin.workload.adapter import Adapter, Lengths
from twin.workload.rates import OnOff, RateProfile, even_profile, level, mean_factor, planned_at
from twin.workload.workload import Workload, merge_tenants

factors = st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(lambda f: sum(f) > 1e-3)
plans = st.one_of(st.sampled_from(["mean", "peak"]), st.floats(0.01, 1.0))


def adapter(process: Any = None, rate: float = 0.5) -> Adapter:
    return Adapter("a", 8, rate, Lengths(100, 1.0), Lengths(100, 1.0), rate_process=process)


def test_levels_of_a_profile_weigh_windows_by_their_length() -> None:
    profile = RateProfile((0.0, 10.0, 40.0), (1.0, 3.0))
    assert level(profile, "mean") == pytest.approx(2.5)
    assert level(profile, "peak") == 3.0
    assert (level(profile, 0.2), level(profile, 0.26)) == (2.5, 3.0), "a quantile is at least the mean"


def test_levels_of_phases_weigh_them_by_their_length() -> None:
    process = OnOff(60, 180, 0.2)
    assert level(process, "mean") == pytest.approx(0.25 + 0.75 * 0.2)
    assert (level(process, "peak"), level(process, 0.9), level(process, 0.5)) == (1.0, 1.0, pytest.approx(0.4))


@given(factors, plans, plans)
def test_planning_at_another_rate_leaves_the_traffic_alone(values: list[float], first: Any, second: Any) -> None:
    before = adapter(even_profile(values, 60.0))
    after = before.planned_at(first).planned_at(second)
    assert after.mean_rate_req_per_s == pytest.approx(before.rate_req_per_s)
    assert after.rate_req_per_s >= before.rate_req_per_s * (1 - 1e-9)
    assert after.planned_at("mean").rate_req_per_s == pytest.approx(before.rate_req_per_s)
    assert after.rate_req_per_s <= before.planned_at("peak").rate_req_per_s * (1 + 1e-9)


def test_the_scale_of_factors_does_not_matter() -> None:
    small, large = even_profile([1, 2, 3], 60.0), even_profile([10, 20, 30], 60.0)
    assert mean_factor(small) == mean_factor(large) == 1.0
    assert planned_at(small, "peak")[1] == pytest.approx(1.5)


def test_a_stationary_adapter_is_the_same_value_as_ever() -> None:
    assert adapter() == Adapter("a", 8, 0.5, Lengths(100, 1.0), Lengths(100, 1.0))
    assert adapter().planned_at("peak") is not None
    assert adapter().planned_at("peak") == adapter()
    assert adapter(OnOff(1, 1)) != adapter()
    assert adapter(OnOff(1, 1)).scaled(0.5).rate_process == OnOff(1, 1)
    assert Workload((adapter(),)) == Workload((adapter(),), recording=None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RateProfile((0, 60), (1, 2)), "2 window edges for 2 factors"),
        (lambda: RateProfile((), ()), "0 window edges"),
        (lambda: RateProfile((10, 60), (1,)), "from 10 to 60"),
        (lambda: RateProfile((0, math.inf), (1,)), "inf"),
        (lambda: RateProfile((0, 60, 60), (1, 1)), "60..60"),
        (lambda: RateProfile((0, 60, math.nan, 90), (1, 1, 1)), "nan"),
        (lambda: RateProfile((0, 60), (-1.0,)), "-1.0"),
        (lambda: RateProfile((0, 60), (math.nan,)), "nan"),
        (lambda: RateProfile((0, 60, 90), (0, 0)), "all factors"),
        (lambda: RateProfile((0, 60, 90), (1, 2), (1.0,)), "1 arrival CVs for 2 windows"),
        (lambda: RateProfile((0, 60), (1,), (25.0,)), "25.0"),
        (lambda: RateProfile((0, 60), (1,), stands_for="median"), "'median'"),
        (lambda: RateProfile((0, 60), (1,), stands_for=0.0), "0.0"),
        (lambda: OnOff(0, 60), "on_s = 0 "),
        (lambda: OnOff(60, -1), "off_s = -1 "),
        (lambda: OnOff(math.inf, 1), "inf"),
        (lambda: OnOff(60, 60, 1.0), "off_factor = 1.0"),
        (lambda: OnOff(60, 60, math.nan), "nan"),
        (lambda: OnOff(60, 60, phases="weekly"), "'weekly'"),
        (lambda: adapter(OnOff(1, 1)).planned_at(1.5), "1.5"),
    ],
)
def test_impossible_processes_are_refused(make: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert said in error.value.problem
    assert error.value.remedy


def test_tenants_of_one_adapter_change_alike_or_are_refused() -> None:
    same = merge_tenants([adapter(OnOff(60, 60)), adapter(OnOff(60, 60), rate=1.5)])
    assert (same[0].rate_req_per_s, same[0].rate_process) == (2.0, OnOff(60, 60))
    with pytest.raises(InputError, match="rates that change differently"):
        merge_tenants([adapter(OnOff(60, 60)), adapter()])
