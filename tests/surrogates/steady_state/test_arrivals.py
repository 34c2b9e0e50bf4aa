"""Requests of one adapter in service: limits, independent integrals, and the process itself, played by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.integrate import quad
from scipy.stats import gamma

from surrogates.steady_state.arrivals import activity, arrivals_find, log_absence, variance_factor

LOADS = st.floats(1e-4, 1e3)
CVS = st.floats(0.1, 10.0)


@given(LOADS)
def test_poisson_arrivals_have_variance_and_absence_of_a_poisson_number(x: float) -> None:
    assert variance_factor(x, 1.0) == 1.0
    # The general formula, next to k = 1.
    assert variance_factor(x, 1.0 + 1e-9) == pytest.approx(1.0, abs=1e-5)
    for exponential in (0.0, 0.5, 1.0):
        active, slope = activity(x, 1.0 + 1e-9, exponential)
        assert active == pytest.approx(-math.expm1(-x), rel=1e-4, abs=1e-9)
        assert slope == pytest.approx(math.exp(-x), rel=1e-3, abs=1e-6)


@given(LOADS, CVS, st.floats(0.0, 1.0))
def test_activity_is_a_probability_that_grows_with_the_load(x: float, cv: float, exponential: float) -> None:
    k = 1.0 / cv**2
    active, slope = activity(x, k, exponential)
    more, _ = activity(1.01 * x, k, exponential)
    assert 0.0 <= active <= 1.0
    assert 0.0 <= slope <= 1.0
    assert more >= active - 1e-9
    # At most one request in service per adapter that is active.
    assert active <= x * (1 + 1e-9)


@pytest.mark.parametrize("cv", [0.3, 2.0, 5.0])
@pytest.mark.parametrize("x", [0.05, 0.7, 4.0])
@pytest.mark.parametrize("exponential", [0.0, 1.0])
def test_slope_is_the_derivative(x: float, cv: float, exponential: float) -> None:
    k, d = 1.0 / cv**2, 1e-5 * x
    difference = (activity(x + d, k, exponential)[0] - activity(x - d, k, exponential)[0]) / (2 * d)
    assert activity(x, k, exponential)[1] == pytest.approx(difference, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("cv", [0.2, 3.0])
@pytest.mark.parametrize("x", [0.1, 1.0, 6.0])
def test_constant_stays_are_the_rest_of_a_gap(x: float, cv: float) -> None:
    k = 1.0 / cv**2
    # Mean gap 1; nobody came for x with probability integral of P(gap > u) from x on.
    nobody = quad(lambda u: gamma.sf(u, k, scale=1 / k), x, np.inf, limit=400)[0]
    active, slope = activity(x, k, 0.0)
    assert active == pytest.approx(1 - nobody, abs=1e-7)
    assert slope == pytest.approx(gamma.sf(x, k, scale=1 / k), abs=1e-9)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_what_an_arrival_finds_is_the_sum_over_all_that_came_before(cv: float) -> None:
    """h = sum over n of E[exp(-(gap_1 + ... + gap_n) / stay)], each factor a Laplace transform by quadrature."""
    k, x = 1.0 / cv**2, 1.7
    # Gaps of mean 1, stays of mean x.
    phi = quad(lambda u: math.exp(-u / x) * gamma.pdf(u, k, scale=1 / k), 0, np.inf, limit=400)[0]
    assert arrivals_find(x, k) == pytest.approx(sum(phi**n for n in range(1, 4000)), rel=1e-5)


def in_service(cv: float, x: float, stays: str, seed: int) -> np.ndarray:
    """Requests of one adapter in service at random times: a renewal process and its stays, drawn one by one."""
    rng = np.random.default_rng(seed)
    k, count = 1.0 / cv**2, 400_000
    arrivals = np.cumsum(rng.gamma(k, 1 / k, count))
    stay = rng.exponential(x, count) if stays == "exponential" else np.full(count, x)
    times = rng.uniform(40 * x, arrivals[-1] - 1, 60_000)
    left = np.searchsorted(np.sort(arrivals + stay), times)
    return np.asarray(np.searchsorted(arrivals, times) - left)


@pytest.mark.parametrize("cv", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("x", [0.3, 3.0])
def test_number_in_service_of_a_played_process(cv: float, x: float) -> None:
    number = in_service(cv, x, "exponential", 3)
    f = variance_factor(x, 1 / cv**2)
    assert number.mean() == pytest.approx(x, rel=0.1)
    assert number.var() / number.mean() == pytest.approx(f, rel=0.15)
    # The negative binomial form is an approximation: within 0.06 of the probability.
    assert math.exp(log_absence(x, 1 / cv**2)) == pytest.approx((number == 0).mean(), abs=0.06)
    constant = in_service(cv, x, "constant", 4)
    assert 1 - activity(x, 1 / cv**2, 0.0)[0] == pytest.approx((constant == 0).mean(), abs=0.02)
