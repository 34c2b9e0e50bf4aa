"""The verdict from the windows so far: accepted, refuted, or open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import t as student_t

from placement.verify.claim import Claim
from placement.verify.judge import Opinion, beyond, judge, mean_metrics, within
from tests.placement.verify.hours import hour
from twin.confidence.sequential import mean_limit
from twin.figures.health import Published, Requirement, Stable

CLAIM = Claim("test", 0.1, 0.05, 60, 240)


def opinion(hours: list[Any], constraint: Any = None, allowed: int = 0) -> Opinion:
    return judge([hours], constraint or Stable(), CLAIM, allowed=allowed, looks=5)


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=12), st.floats(1e-4, 0.2))
def test_limit_is_students(values: list[float], alpha: float) -> None:
    array = np.array(values)
    spread = array.std(ddof=1)
    expected = array.mean() + student_t.ppf(1 - alpha, len(array) - 1) * spread / np.sqrt(len(array))
    assert mean_limit(array, alpha, upper=True) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert mean_limit(array, alpha, upper=False) == pytest.approx(2 * array.mean() - expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "keeps", "breaks"),
    [
        ([0.0010, 0.0011, 0.0010], True, False),
        ([0.02, 0.021, 0.02], False, True),
        ([0.001, 0.013, 0.002], False, False),  # a good mean that three hours do not prove
        ([0.0101, 0.03, 0.05], False, False),  # above in every hour, which is no proof at this error
        ([0.001, float("nan"), 0.001], False, True),  # a missing figure is not good news
    ],
)
def test_a_mean_keeps_its_limit_breaks_it_or_neither(values: list[float], keeps: bool, breaks: bool) -> None:
    requirement = Requirement("late", np.array(values), 0.01, at_most=True)
    assert (within(requirement, 0.01), beyond(requirement, 0.01)) == (keeps, breaks)


def test_a_lower_limit_mirrors_the_upper_one() -> None:
    for values in ([0.95, 0.951, 0.95], [0.5, 0.6, 0.7], [0.92, 0.97, 0.89]):
        low = Requirement("served", np.array(values), 0.9, at_most=False)
        high = Requirement("served", -np.array(values), -0.9, at_most=True)
        assert (within(low, 0.01), beyond(low, 0.01)) == (within(high, 0.01), beyond(high, 0.01))


def test_good_hours_are_open_until_there_are_enough_of_them() -> None:
    assert opinion([hour()] * 60).decision == "accepted"
    assert opinion([hour()] * 12, allowed=-1).decision == "open"


def test_bad_hours_decide_by_their_share() -> None:
    good, bad = hour(0.001), hour(0.03)
    assert opinion([bad] + [good] * 59).decision == "open"
    assert opinion([bad] + [good] * 119, allowed=1).decision == "accepted"
    assert opinion([bad] * 30 + [good] * 30).decision == "refuted"
    assert opinion([bad] * 3).decision == "refuted"
    assert opinion([bad] * 2 + [good]).decision == "open"


def test_a_bad_hour_that_moves_the_mean_is_not_allowed_for() -> None:
    """Two hours of 120 with half of the requests late: few bad hours, and 0.8 % late that could as well be 2 %."""
    assert opinion([hour(0.5)] * 2 + [hour()] * 118, allowed=3).decision == "open"


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"late": 0.2}, "late"),
        ({"served": 0.5}, "throughput"),
        ({"drift": 1.0}, "queue grows"),
        ({"per_adapter": (200, 60)}, "starve"),
    ],
)
def test_every_part_of_the_stable_rule_can_refute(bad: dict[str, Any], text: str) -> None:
    found = opinion([hour(**bad)] * 3)
    assert found.decision == "refuted"
    assert text in found.reason


def test_chance_at_the_limit_makes_no_hour_bad() -> None:
    stable = Stable()
    assert stable.broken_window(hour(0.015)) == ""  # 15 of 1,000: chance does that in 8 %
    assert "late" in stable.broken_window(hour(0.02))  # 20 of 1,000: in 0.3 %
    assert stable.broken_window(hour(0.2, requests=5)) == ""  # one of five
    assert "late" in stable.broken_window(hour(0.4, requests=5))


def test_few_requests_of_an_adapter_are_judged_by_confidence() -> None:
    assert opinion([hour(per_adapter=(2, 1)), *[hour()] * 59]).decision == "accepted"


def test_published_rule_tolerates_late_requests() -> None:
    late = [hour(late=0.9, served=0.95, drift=1.0)] * 60
    assert opinion(late, Published()).decision == "accepted"
    assert opinion([hour(served=0.8)] * 3, Published()).decision == "refuted"


def test_mean_metrics_skip_missing_values() -> None:
    means = mean_metrics([hour(late=0.0), hour(late=0.2)])
    assert means["late_fraction"] == pytest.approx(0.1)
    assert np.isnan(means["ttft_p99_s"])


def test_the_share_that_the_constraint_allows_decides_which_adapters_starve() -> None:
    late = hour(per_adapter=(400, 40))
    assert "starve" in Stable().broken([late])
    assert Stable(late_share=0.2, adapter_late_share=0.3).broken([late]) == ""
