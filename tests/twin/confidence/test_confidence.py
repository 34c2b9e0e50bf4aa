"""Sequential decisions: the stated error probability holds although one looks after every few seeds."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import binom

from tests.twin.columns import LLAMA, column
from twin.confidence.comparison import compare
from twin.confidence.decide import decide_label, decide_limit, estimate
from twin.confidence.seeds import FIRST_SEED, runner
from twin.confidence.sequential import looks, mean_interval, mean_limit, spent, success_boundary
from twin.errors import InputError

Run = Callable[[int], Any]


def result(served: float = 1.0, horizon_s: float = 3600.0) -> Any:
    return SimpleNamespace(row={"served_fraction": served}, horizon_s=horizon_s)


def normal_run(rng: np.random.Generator, mean: float, spread: float) -> Run:
    """Seeds whose served fraction is normal; a seed asked for again gives the same value."""
    values = rng.normal(mean, spread, 64)
    return lambda seed: result(float(values[seed - FIRST_SEED]))


def label_run(rng: np.random.Generator, healthy_share: float) -> Run:
    healthy = rng.random(64) < healthy_share
    return lambda seed: result(1.0 if healthy[seed - FIRST_SEED] else 0.5)


def noise(probability: float, trials: int) -> float:
    """Three standard errors of a rate counted over so many trials."""
    return 3 * float(np.sqrt(probability * (1 - probability) / trials))


# --- statistics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0.05, 0.01, 0.001])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_boundary_is_crossed_by_chance_less_often_than_stated(probability: float, error: float) -> None:
    """50,000 random walks at the least favourable probability, looked at after every one of 60 trials."""
    boundary = np.array(success_boundary(probability, error, 60))
    rng = np.random.default_rng(3)
    walks = (rng.random((50_000, 60)) < probability).cumsum(axis=1)
    crossed = np.maximum.accumulate(walks >= boundary, axis=1).mean(axis=0)
    allowed = np.array([spent(error, n) for n in range(1, 61)])
    assert (crossed <= allowed + 4 * np.sqrt(allowed / len(walks)) + 2 / len(walks)).all()
    # The allowance is used, not merely respected.
    assert crossed[-1] > 0.4 * error or probability == 0.9


def test_looking_after_every_trial_without_a_plan_would_break_the_promise() -> None:
    """What the boundary is for: the fixed-size test at each look errs several times as often."""
    rng = np.random.default_rng(4)
    walks = (rng.random((20_000, 50)) < 0.5).cumsum(axis=1)
    naive = binom.ppf(0.95, np.arange(1, 51), 0.5) + 1
    assert (walks >= naive).any(axis=1).mean() > 0.15


def test_unanimous_seeds_decide_as_early_as_any_test_can() -> None:
    assert next(n for n, s in enumerate(success_boundary(0.5, 0.05, 50), 1) if s <= n) == 5
    assert next(n for n, s in enumerate(success_boundary(0.5, 0.01, 50), 1) if s <= n) == 8


def test_looks_double_until_the_budget() -> None:
    assert looks(3, 48) == [3, 6, 12, 24, 48]
    assert looks(3, 10) == [3, 6, 10]
    assert looks(3, 3) == [3]


def test_interval_is_two_limits_of_half_the_error() -> None:
    values = np.array([1.0, 2.0, 4.0])
    assert mean_interval(values, 0.1) == (mean_limit(values, 0.05, upper=False), mean_limit(values, 0.05, upper=True))


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "wrong"), [(0.45, True), (0.55, False)])
def test_false_labels_are_rarer_than_stated(share: float, wrong: bool) -> None:
    """Columns just beside the boundary, where the wrong decision is most likely."""
    rng = np.random.default_rng(7)
    error, trials = 0.05, 300
    decisions = [
        decide_label(label_run(rng, share), rule="published", error=error, max_seeds=40, threads=1).healthy
        for _ in range(trials)
    ]
    assert np.mean([d is wrong for d in decisions]) <= error + noise(error, trials)
    assert any(d is (not wrong) for d in decisions)


@pytest.mark.parametrize(("share", "expected"), [(0.95, True), (0.02, False)])
def test_clear_labels_are_decided_with_few_seeds(share: float, expected: bool) -> None:
    rng = np.random.default_rng(8)
    decisions = [decide_label(label_run(rng, share), rule="published", threads=1) for _ in range(100)]
    assert np.mean([d.healthy is expected for d in decisions]) > 0.98
    assert np.mean([len(d.seeds) for d in decisions]) < 11
    assert all(d.stopped == "decided" for d in decisions if d.healthy is not None)


def test_decision_says_seeds_and_reason() -> None:
    decision = decide_label(lambda seed: result(0.5), rule="published", error=0.05, first_seed=17)
    assert decision.healthy is False and decision.seeds == (17, 18, 19, 20, 21)
    assert decision.reasons == ("throughput is 50.0 % of the ideal",)
    assert "not healthy: 0 of 5 seeds" in str(decision) and "below 5 %" in str(decision)


def test_open_case_ends_with_the_budget() -> None:
    decision = decide_label(lambda seed: result(seed % 2), rule="published", max_seeds=12)
    assert decision.healthy is None and decision.stopped == "budget" and len(decision.seeds) == 12
    assert "undecided" in str(decision) and "budget" in str(decision)


def test_decision_does_not_depend_on_threads() -> None:
    runs = [label_run(np.random.default_rng(k), 0.7) for k in range(20)]
    for run in runs:
        assert decide_label(run, rule="published", threads=1) == decide_label(run, rule="published", threads=3)


def test_minimum_of_seeds_is_respected() -> None:
    decision = decide_label(lambda seed: result(), rule="published", error=0.05, min_seeds=9)
    assert decision.healthy is True and len(decision.seeds) == 9


# --- means --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_false_sides_are_rarer_than_stated(sign: int) -> None:
    rng = np.random.default_rng(9)
    error, trials = 0.05, 300
    wrong = 0
    for _ in range(trials):
        outcome = decide_limit(
            normal_run(rng, 0.9 + sign * 1e-6, 0.01), "served_fraction", 0.9, error=error, threads=1
        )  # fmt: skip
        wrong += outcome.above is (sign < 0)
    assert wrong / trials <= error + noise(error, trials)


def test_looks_at_means_err_less_often_than_stated() -> None:
    """30,000 sequences of normal seeds, looked at 3, 6, 12, 24 and 48 times: any look wrong in at most 5 %."""
    rng = np.random.default_rng(6)
    schedule, error = looks(3, 48), 0.05
    values = rng.normal(size=(30_000, 48))
    wrong, once = np.zeros(len(values), bool), np.zeros(len(values), bool)
    for n in schedule:
        t = values[:, :n].mean(axis=1) / values[:, :n].std(axis=1, ddof=1) * np.sqrt(n)
        wrong |= np.abs(t) > -stdtrit(n - 1, error / len(schedule) / 2)
        once |= np.abs(t) > -stdtrit(n - 1, error / 2)
    assert 0.5 * error < wrong.mean() <= error
    assert once.mean() > 2 * error, "without sharing the error the promise breaks"


def test_naive_looks_would_err_too_often() -> None:
    """The same data judged at the full error probability after every seed: the promise breaks."""
    rng = np.random.default_rng(10)
    wrong = 0
    for _ in range(300):
        values = rng.normal(0.0, 1.0, 48)
        wrong += any(mean_limit(values[:n], 0.05, upper=False) > 0 for n in range(3, 49))
    assert wrong / 300 > 0.10


def test_clear_side_is_decided_with_the_first_seeds() -> None:
    outcome = decide_limit(normal_run(np.random.default_rng(1), 0.99, 0.002), "served_fraction", 0.9)
    assert outcome.above is True and outcome.stopped == "decided" and len(outcome.seeds) == 3
    assert "[" in str(outcome) and outcome.low > 0.9


def test_intervals_cover_the_mean_as_often_as_stated() -> None:
    rng = np.random.default_rng(11)
    inside, trials, counts = 0, 500, []
    for _ in range(trials):
        found = estimate(
            normal_run(rng, 1.0, 0.02), "served_fraction", relative_half_width=0.015, error=0.1, threads=1
        )  # fmt: skip
        inside += found.low <= 1.0 <= found.high
        counts.append(len(found.seeds))
        assert (found.stopped == "decided") == (found.relative_half_width <= 0.015)
    assert inside / trials >= 0.9 - noise(0.1, trials)
    assert len(set(counts)) > 1, "the number of seeds follows the data"


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = estimate(lambda seed: result(0.25), "served_fraction")
    assert (found.low, found.high, found.relative_half_width) == (0.25, 0.25, 0.0)


def test_missing_figures_decide_nothing() -> None:
    found = estimate(lambda seed: result(float("nan")), "served_fraction", max_seeds=6)
    assert found.stopped == "budget" and np.isnan(found.mean)


# --- comparison ---------------------------------------------------------------------------------------------------


def paired(rng: np.random.Generator, shift: float, correlation: float) -> tuple[Run, Run]:
    common, own_a, own_b = rng.normal(size=(3, 64))
    part = np.sqrt(correlation), np.sqrt(1 - correlation)
    a = part[0] * common + part[1] * own_a
    b = part[0] * common + part[1] * own_b + shift
    return lambda s: result(float(a[s - FIRST_SEED])), lambda s: result(float(b[s - FIRST_SEED]))


def test_false_orders_are_rarer_than_stated() -> None:
    rng = np.random.default_rng(12)
    trials = 500
    found = [compare(*paired(rng, 0.0, 0.8), "served_fraction", error=0.05, threads=1).larger for _ in range(trials)]
    assert np.mean([f is not None for f in found]) <= 0.05 + noise(0.05, trials)


def test_common_seeds_reduce_the_variance_by_what_the_correlation_says() -> None:
    rng = np.random.default_rng(13)
    found = [
        compare(*paired(rng, 0.0, 0.9), "served_fraction", max_seeds=48, min_seeds=48, threads=1) for _ in range(60)
    ]
    assert np.median([c.variance_reduction for c in found]) == pytest.approx(10, rel=0.2)
    assert np.median([c.correlation for c in found]) == pytest.approx(0.9, abs=0.05)
    independent = compare(*paired(rng, 0.0, 0.0), "served_fraction", max_seeds=48, min_seeds=48, threads=1)
    assert independent.variance_reduction < 2


def test_difference_and_equality_are_found() -> None:
    rng = np.random.default_rng(14)
    larger = compare(*paired(rng, 2.0, 0.95), "served_fraction")
    assert larger.larger == "b" and larger.low > 0 and "common random numbers" in str(larger)
    equal = compare(*paired(rng, 0.0, 0.999), "served_fraction", tolerance=0.5)
    assert equal.larger == "equal"
    same = compare(lambda s: result(s % 7), lambda s: result(s % 7), "served_fraction", tolerance=0.1)
    assert same.larger == "equal" and same.variance_reduction == float("inf")


def test_settings_are_compared_on_the_same_requests() -> None:
    """Two slot counts in the twin: the requests are the same, so the difference varies less than its parts."""
    few, many = column(48, (0.2, 0.1), 24), column(48, (0.2, 0.1), 48)
    found = compare(
        runner(few, LLAMA, horizon_s=1800), runner(many, LLAMA, horizon_s=1800), "ttft_mean_s", min_seeds=4, max_seeds=4
    )
    assert found.larger == "a", "fewer slots, longer waits"
    throughput = compare(
        runner(few, LLAMA, horizon_s=1800), runner(many, LLAMA, horizon_s=1800), "throughput_tps", max_seeds=3
    )
    assert throughput.variance_reduction > 3
    assert throughput.notes == ()


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_short_window_is_no_stand_in() -> None:
    def short(seed: int) -> Any:
        return result(0.8 + seed % 3 / 100, horizon_s=600.0)

    for decide in (
        lambda: decide_label(short, rule="published"),
        lambda: decide_limit(short, "served_fraction", 0.9),
    ):
        with pytest.raises(InputError, match="600 s are below 1800 s") as refusal:
            decide()
        assert "3600" in refusal.value.remedy
    assert "biased" in estimate(short, "served_fraction").notes[0]
    assert "biased" in compare(short, short, "served_fraction").notes[0]
