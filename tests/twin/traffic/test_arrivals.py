"""Arrivals at changing rates: exact where they must be, and with the statistics that their description promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.twin.columns import LLAMA, column
from twin.errors import InputError
from twin.simulation import simulate
from twin.traffic.arrivals import draw_requests, stream_requests
from twin.traffic.renewal import order_of
from twin.workload.adapter import Adapter, Lengths
from twin.workload.rates import OnOff, RateProcess, RateProfile, even_profile
from twin.workload.requests import Requests

SHORT = Lengths(10, 0)


def adapter(process: RateProcess | None = None, rate: float = 5.0, cv: float = 1.0, name: str = "a") -> Adapter:
    return Adapter(name, 8, rate, SHORT, SHORT, arrival_cv=cv, rate_process=process)


def draw(adapters: Sequence[Adapter], horizon_s: float, seed: int = 0) -> Requests:
    return draw_requests(adapters, horizon_s=horizon_s, seed=seed, max_model_len=10**6)


def counts(times: np.ndarray, window_s: float, horizon_s: float) -> np.ndarray:
    return np.bincount((times // window_s).astype(int), minlength=round(horizon_s / window_s))


# Exactness.


def test_a_process_that_changes_nothing_draws_the_stationary_requests() -> None:
    still = [adapter(even_profile([2.0, 2.0, 2.0], 100.0), cv=2.0)]
    times = draw([adapter(cv=2.0)], 1000.0, seed=4).arrival_s
    assert draw(still, 1000.0, seed=4).arrival_s == pytest.approx(times, rel=1e-12)


process_of = st.one_of(
    st.none(),
    st.builds(
        OnOff, st.floats(0.5, 200), st.floats(0.5, 200), st.sampled_from([0.0, 0.3]),
        st.sampled_from(["exponential", "fixed"]), st.sampled_from(["", "g"]),
    ),
    st.builds(
        lambda f, w, cvs, repeats: even_profile(f, w, arrival_cvs=(0.5, 1.0, 3.0) if cvs else (), repeats=repeats),
        st.sampled_from([(1.0, 0.0, 4.0), (1.0, 2.0, 0.5)]), st.floats(5, 300), st.booleans(), st.booleans(),
    ),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(process_of, st.sampled_from([0.02, 0.5, 3.0]), st.sampled_from([0.5, 1.0, 4.0])), min_size=2,
             max_size=6),
    st.randoms(use_true_random=False), st.integers(0, 2**31),
)  # fmt: skip
def test_who_else_is_there_does_not_matter(
    kinds: list[tuple[RateProcess | None, float, float]], chance: Random, seed: int
) -> None:
    """An adapter's requests are the same bytes alone, in any company and in any order."""
    adapters = [
        Adapter(f"a{i}", 8, rate, Lengths(50, 1.0), Lengths(20, 0.5), cv, 0.25, -0.3, rate_process=process)
        for i, (process, rate, cv) in enumerate(kinds)
    ]
    whole = draw_requests(adapters, horizon_s=600.0, seed=seed, max_model_len=200)
    some = chance.sample(adapters, chance.randint(1, len(adapters)))
    part = draw_requests(some, horizon_s=600.0, seed=seed, max_model_len=200)
    for own, adapter_ in enumerate(some):
        there, here = whole.adapter == adapters.index(adapter_), part.adapter == own
        for name in ("arrival_s", "prompt", "cached", "output"):
            assert getattr(whole, name)[there].tobytes() == getattr(part, name)[here].tobytes(), name


def test_a_higher_rate_is_the_same_traffic_in_less_time() -> None:
    """Common random numbers: the gaps keep their proportions."""
    slow, fast = (draw([adapter(cv=2.0).scaled(f)], 1000.0 / f, seed=3) for f in (1.0, 2.0))
    assert fast.arrival_s == pytest.approx(slow.arrival_s / 2)
    assert np.array_equal(slow.prompt, fast.prompt)


def test_an_adapter_that_is_named_twice_sends_other_requests_each_time() -> None:
    twice = draw([adapter(), adapter()], 500.0)
    first, second = (twice.arrival_s[twice.adapter == a] for a in (0, 1))
    assert np.intersect1d(first, second).size == 0


def test_requests_are_in_order_of_time() -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 300, 5000):
        for times in (rng.random(n) * 10, rng.random(n) * 0.01 + 3, np.floor(rng.random(n) * 5)):
            assert np.array_equal(order_of(times, 10.0), np.argsort(times, kind="stable"))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(process_of, st.sampled_from([0.02, 0.5, 3.0]), st.sampled_from([0.5, 1.0, 4.0])), max_size=5),
    st.floats(7, 900),
    st.integers(0, 2**31),
)
def test_a_stream_of_windows_is_the_whole_draw(
    kinds: list[tuple[RateProcess | None, float, float]], window_s: float, seed: int
) -> None:
    adapters = [
        Adapter(f"a{i}", 8, rate, Lengths(50, 1.0), Lengths(20, 0.5), cv, length_correlation=-0.3, rate_process=process)
        for i, (process, rate, cv) in enumerate([(None, 0.1, 1.0), *kinds])
    ]
    how: dict[str, Any] = {"horizon_s": 600.0, "max_model_len": 200}
    whole = draw_requests(adapters, seed=seed, **how)
    parts = list(stream_requests(adapters, window_s=window_s, seed=seed, **how))
    assert len(parts) == int(np.ceil(600.0 / window_s))
    for w, part in enumerate(parts):
        assert ((part.arrival_s >= w * window_s) & (part.arrival_s < (w + 1) * window_s)).all()
    for field in fields(Requests):
        joined = np.concatenate([getattr(part, field.name) for part in parts])
        assert joined.dtype == getattr(whole, field.name).dtype
        assert np.array_equal(joined, getattr(whole, field.name)), field.name


def test_the_same_seed_gives_the_same_simulation_with_changing_rates() -> None:
    changing = column(8, (0.2,), 4, rate_process=OnOff(60, 120, group="g"))  # type: ignore[arg-type]
    first, again = (simulate(changing, LLAMA, horizon_s=300, seed=5) for _ in range(2))
    assert first.row == again.row
    assert first.arrivals > 0


# Statistics.


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    "process",
    [
        even_profile([1.0, 0.0, 5.0, 2.0], 900.0),
        even_profile([1.0, 4.0], 1800.0, arrival_cvs=(4.0, 1.0)),
        OnOff(30, 120),
        OnOff(30, 120, 0.25, "fixed"),
    ],
    ids=["profile", "profile-cvs", "on-off", "fixed"],
)
def test_the_mean_rate_stays(process: RateProcess, cv: float) -> None:
    number = [len(draw([adapter(process, 1.0, cv)], 3600.0, seed)) for seed in range(200)]
    assert np.mean(number) == pytest.approx(3600.0, abs=5 * np.std(number) / np.sqrt(200))


def test_each_window_has_its_rate() -> None:
    profile = RateProfile((0.0, 100.0, 400.0, 1000.0), (4.0, 0.0, 1.0))
    times = draw([adapter(profile, 40.0)], 2000.0).arrival_s
    assert not ((times % 1000 >= 100) & (times % 1000 < 400)).any()
    first, last = (times % 1000 < 100).sum(), (times % 1000 >= 400).sum()
    # The mean factor is 1, so 100 s and 600 s of each 1000 s hold 4:6 of the requests.
    assert first == pytest.approx(0.4 * 80_000, rel=0.03)
    assert last == pytest.approx(0.6 * 80_000, rel=0.03)


def test_a_profile_that_does_not_repeat_keeps_its_last_rate() -> None:
    profile = even_profile([0.0, 2.0], 100.0, repeats=False)
    times = draw([adapter(profile, 50.0)], 1000.0).arrival_s
    assert times.min() > 100
    assert counts(times, 100.0, 1000.0)[1:].min() > 9000


def test_a_rate_that_stands_for_the_peak_is_reached_and_not_exceeded() -> None:
    profile = even_profile([1.0, 2.0], 500.0)
    number = counts(draw([adapter(profile, 40.0).planned_at("peak")], 1000.0).arrival_s, 500.0, 1000.0)
    assert number == pytest.approx([40 / 1.5 * 500, 80 / 1.5 * 500], rel=0.04)


@pytest.mark.parametrize("cv", [0.3, 3.0])
def test_burstiness_and_drift_combine(cv: float) -> None:
    """In operational time the gaps have the adapter's CV, whatever the rate does."""
    profile = even_profile([1.0, 7.0], 50.0)
    times = draw([adapter(profile, 20.0, cv)], 5000.0).arrival_s
    cycle, rest = np.divmod(times, 100.0)
    operational = 100 * cycle + np.where(rest < 50, rest / 4, 12.5 + (rest - 50) * 7 / 4)
    gaps = np.diff(operational)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)
    dispersion = counts(operational, 10.0, 5000.0)
    assert dispersion.var() / dispersion.mean() == pytest.approx(cv**2, rel=0.25)


def test_windows_have_their_own_burstiness() -> None:
    profile = even_profile([1.0, 1.0], 2000.0, arrival_cvs=(0.4, 4.0))
    times = draw([adapter(profile, 20.0)], 4000.0).arrival_s
    for window, cv in ((times[times < 2000], 0.4), (times[times >= 2000], 4.0)):
        gaps = np.diff(window)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)


def test_a_change_of_burstiness_does_not_shift_the_rate() -> None:
    """After bursty gaps a regular window would begin with a long silence if they simply went on."""
    profile = even_profile([1.0, 1.0], 100.0, arrival_cvs=(6.0, 0.5))
    calm = [(draw([adapter(profile, 1.0)], 200.0, seed).arrival_s >= 100).sum() for seed in range(400)]
    assert np.mean(calm) == pytest.approx(100.0, abs=1.5)


@pytest.mark.parametrize("phases", ["exponential", "fixed"])
def test_phases_take_their_share_of_the_time(phases: str) -> None:
    """At 200 req/s in 1 s windows every window is clearly on or off."""
    process = OnOff(30, 90, 0.1, phases)
    times = draw([adapter(process, 200.0)], 20_000.0).arrival_s
    number = counts(times, 1.0, 20_000.0)
    high, low = 200 / (0.25 + 0.75 * 0.1), 20 / (0.25 + 0.75 * 0.1)
    on = number > (high + low) / 2
    assert on.mean() == pytest.approx(0.25, abs=0.06 if phases == "exponential" else 0.01)
    assert np.median(number[on]) == pytest.approx(high, rel=0.03)
    assert np.median(number[~on]) == pytest.approx(low, rel=0.06)
    runs = np.diff(np.flatnonzero(np.diff(on.astype(int)) == 1))
    assert runs.mean() == pytest.approx(120, rel=0.15)
    assert runs.std() / runs.mean() == pytest.approx(np.hypot(30, 90) / 120 if phases == "exponential" else 0, abs=0.15)


def test_phases_start_in_equilibrium() -> None:
    on_at = np.zeros(40)
    for seed in range(600):
        times = draw([adapter(OnOff(40, 60), 50.0)], 400.0, seed).arrival_s
        on_at += counts(times, 10.0, 400.0) > 0
    # A window of 10 s shows requests if the adapter is on at its start or switches on within it.
    expected = 0.4 + 0.6 * (1 - np.exp(-10 / 60))
    assert on_at / 600 == pytest.approx(np.full(40, expected), abs=0.1)
    assert on_at.mean() / 600 == pytest.approx(expected, abs=0.02)


def test_a_group_switches_together_and_others_do_not() -> None:
    together = OnOff(60, 240, 0.1, group="peak-1")
    adapters = [
        adapter(together, 5.0, name="a"), adapter(together, 5.0, name="b"),
        adapter(OnOff(60, 240, 0.1, group="peak-2"), 5.0, name="c"), adapter(OnOff(60, 240, 0.1), 5.0, name="d"),
        adapter(OnOff(60, 240, 0.1), 5.0, name="e"),
    ]  # fmt: skip
    requests = draw(adapters, 50_000.0)
    number = np.array([counts(requests.arrival_s[requests.adapter == a], 20.0, 50_000.0) for a in range(5)])
    correlation = np.corrcoef(number)
    assert correlation[0, 1] > 0.75
    others = correlation[np.triu_indices(5, 1)][1:]
    assert np.abs(others).max() < 0.2


def test_a_group_switches_together_on_different_servers() -> None:
    """Phases follow from the seed alone, so columns that are drawn apart peak at the same time."""
    process = OnOff(60, 240, group="peak")
    one = draw([adapter(process, 20.0, name="a")], 20_000.0, seed=9).arrival_s
    other = draw([adapter(None, 1.0, name="x"), adapter(process, 20.0, name="b")], 20_000.0, seed=9)
    theirs = other.arrival_s[other.adapter == 1]
    active, their_active = (counts(t, 5.0, 20_000.0) > 0 for t in (one, theirs))
    assert (active == their_active).mean() > 0.98
    elsewhere = draw([adapter(process, 20.0)], 20_000.0, seed=10).arrival_s
    assert ((counts(elsewhere, 5.0, 20_000.0) > 0) == active).mean() < 0.9


# Bad input.


@pytest.mark.parametrize("horizon_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_horizon_that_is_no_time_is_refused(horizon_s: float) -> None:
    with pytest.raises(InputError, match="horizon_s"):
        draw([adapter()], horizon_s)


@pytest.mark.parametrize("window_s", [0.0, -5.0, float("nan"), float("inf")])
def test_a_window_that_is_no_time_is_refused(window_s: float) -> None:
    with pytest.raises(InputError, match="window_s"):
        stream_requests([adapter()], horizon_s=10.0, window_s=window_s, seed=0, max_model_len=100)


def test_constant_lengths_beyond_the_model_are_refused() -> None:
    long = Adapter("long", 8, 1.0, Lengths(5000, 0.0, "constant"), SHORT)
    with pytest.raises(InputError, match=r"'long'.*5000 tokens.*4096"):
        draw_requests([long], horizon_s=10.0, seed=0, max_model_len=4096)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 1.5}, "seed = 1.5"),
        ({"seed": -1}, "seed = -1"),
        ({"max_model_len": 1}, "max_model_len = 1"),
        ({"horizon_s": 1e9}, "more than fit in memory"),
    ],
)
def test_draws_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        draw_requests([adapter()], **{"horizon_s": 10.0, "seed": 0, "max_model_len": 100, **options})
    with pytest.raises(InputError, match="no adapters"):
        draw_requests([], horizon_s=10.0, seed=0, max_model_len=100)


def test_a_long_stream_is_drawn_window_by_window() -> None:
    assert len(next(stream_requests([adapter()], horizon_s=1e9, window_s=60.0, seed=0, max_model_len=100))) > 100


def test_arrivals_more_regular_than_any_server_can_see_are_refused() -> None:
    with pytest.raises(InputError, match=r"arrival CV = 1e-160"):
        adapter(cv=1e-160)
    assert len(draw([adapter(cv=0.001)], 100.0)) == pytest.approx(500, abs=1)
