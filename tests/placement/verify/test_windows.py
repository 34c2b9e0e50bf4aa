"""Windows of a rate that changes: where they start, and which is the busiest."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from placement.verify.windows import busiest_start_s, profile_s, random_start_s, starting_at
from tests.placement.synthetic import adapter
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.traffic.arrivals import draw_requests
from twin.workload.rates import OnOff, RateProfile, level

SETTING = EngineSetting("gpu", 8, 16)


def column(*processes: RateProfile | OnOff | None, rate: float = 2.0) -> Column:
    return Column(tuple(replace(adapter(f"a{i}", rate), rate_process=p) for i, p in enumerate(processes)), SETTING)


def rate_at(process: RateProfile, rate: float, time_s: float) -> float:
    """Requests per second at a time, written down a second time."""
    end = process.edges_s[-1]
    t = time_s % end if process.repeats else min(time_s, end - 1e-9)
    for (left, right), factor in zip(pairwise(process.edges_s), process.factors, strict=True):
        if left <= t < right:
            return rate * factor / level(process, process.stands_for)
    raise AssertionError(t)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=6),
    st.floats(0, 0.999),
    st.booleans(),
    st.sampled_from(["mean", "peak", 0.5]),
)
def test_a_later_start_is_the_same_rate_later(
    factors: list[float], share: float, repeats: bool, stands_for: str | float
) -> None:
    factors[-1] += 0.1  # silence to the end is no profile
    edges = tuple(np.cumsum([0.0, *(100.0 * (i + 1) for i in range(len(factors)))]).tolist())
    process = RateProfile(edges, tuple(factors), repeats=repeats, stands_for=stands_for)
    start = share * edges[-1]
    later = starting_at(column(process), start).adapters[0]
    assert isinstance(later.rate_process, RateProfile)
    inside = np.linspace(0.5, edges[-1] * 1.7, 53)
    # Not where a change lies within the shortest phase, to which starts are rounded.
    for t in inside:
        near = min(abs((start + t) % edges[-1] - e) for e in edges)
        if near > 0.01:
            expected = rate_at(process, 2.0, start + t)
            assert rate_at(later.rate_process, later.rate_req_per_s, t) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_requests_drawn_later_have_the_later_rate() -> None:
    process = RateProfile((0.0, 3600.0, 7200.0), (1.0, 9.0))
    for start, rate in ((0.0, 0.4), (3600.0, 3.6)):
        later = starting_at(column(process), start)
        sent = len(draw_requests(later.adapters, horizon_s=3600.0, seed=1, max_model_len=2048))
        assert sent == pytest.approx(3600 * rate, rel=0.1)


def test_the_busiest_window_is_found_and_told_as_a_ratio() -> None:
    day = RateProfile(tuple(3600.0 * h for h in range(25)), tuple(4.0 if h == 20 else 1.0 for h in range(24)))
    start, ratio = busiest_start_s(column(day, day), 3600.0)
    assert start == 20 * 3600
    assert ratio == pytest.approx(4 / (27 / 24))
    start, ratio = busiest_start_s(column(day, None), 3600.0)
    assert start == 20 * 3600
    assert ratio == pytest.approx((4 / (27 / 24) + 1) / 2)


def test_a_busiest_window_reaches_over_the_end_of_a_profile_that_repeats() -> None:
    night = RateProfile((0.0, 1800.0, 84_600.0, 86_400.0), (5.0, 1.0, 5.0))
    start, ratio = busiest_start_s(column(night), 3600.0)
    assert start == 84_600
    assert ratio == pytest.approx(5 / ((3600 * 5 + 82_800) / 86_400))


def test_only_profiles_have_a_time_of_day() -> None:
    switching = column(OnOff(60.0, 600.0), None)
    assert profile_s(switching) == 0
    assert starting_at(switching, 1000.0) == switching


def test_starts_are_spread_over_the_profile() -> None:
    starts = np.array([random_start_s(86_400.0, seed) for seed in range(1_000_000, 1_000_400)])
    assert 0 <= starts.min() < 900 and 85_500 < starts.max() < 86_400
    assert np.histogram(starts, bins=8, range=(0, 86_400))[0].min() > 25
