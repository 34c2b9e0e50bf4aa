"""Elementary functions of the drawing code: as good as a library's, and the same everywhere (test_determinism.py)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy.special import gammaincinv, ndtr

from twin import portable
from twin.traffic import streams
from twin.traffic.gamma_quantiles import log_gamma_quantiles


def ulps(found: float, exact: mpf) -> float:
    """Error in units in the last place."""
    return float(abs(mpf(found) - exact) / mpf(math.ulp(abs(float(exact)))))


@pytest.mark.parametrize(
    ("function", "exact", "points", "limit"),
    [
        (portable.exp, mp.exp, lambda r: np.concatenate([r.uniform(-708, 709, 3000), r.uniform(-1, 1, 3000)]), 1.0),
        (portable.log, mp.log, lambda r: 10 ** r.uniform(-300, 300, 3000), 2.0),
        (portable.log, mp.log, lambda r: np.append(r.uniform(0.5, 2, 3000), 1 + r.uniform(-1e-3, 1e-3, 3000)), 2.0),
        (portable.log1p, mp.log1p, lambda r: np.append(r.uniform(-0.99, 2, 3000), r.uniform(-1e-9, 1e-9, 99)), 3.0),
    ],
    ids=["exp", "log", "log near 1", "log1p"],
)  # fmt: skip
def test_functions_are_right_to_the_last_bits(
    function: Callable[[float], float], exact: Callable[[mpf], mpf],
    points: Callable[[np.random.Generator], np.ndarray], limit: float,
) -> None:  # fmt: skip
    with mp.workprec(170):
        for x in points(np.random.default_rng(0)).tolist():
            assert ulps(function(x), exact(mpf(x))) < limit, x


def test_powers() -> None:
    rng = np.random.default_rng(0)
    with mp.workprec(170):
        for x, y in zip(rng.uniform(1e-3, 1e3, 2000).tolist(), rng.uniform(-5, 5, 2000).tolist(), strict=True):
            assert ulps(portable.power(x, y), mp.power(mpf(x), mpf(y))) < 2 + 2 * abs(y * math.log(x))


def test_edges() -> None:
    inf, nan = math.inf, math.nan
    assert [portable.exp(x) for x in (0.0, -800.0, 800.0, -inf, inf)] == [1.0, 0.0, inf, 0.0, inf]
    assert [portable.log(x) for x in (1.0, 0.0, inf)] == [0.0, -inf, inf]
    assert all(math.isnan(v) for v in (portable.exp(nan), portable.log(nan), portable.log(-1.0)))
    assert portable.exp(-740.0) == pytest.approx(math.exp(-740.0), rel=1e-2), "subnormal numbers"
    assert portable.log(5e-324) == pytest.approx(math.log(5e-324), rel=1e-15)
    assert [portable.power(0.0, y) for y in (0.0, 2.0, -1.0)] == [1.0, 0.0, inf]


def test_normal_distribution() -> None:
    z = np.linspace(-9, 9, 4001)
    assert portable.normal_cdf(z) == pytest.approx(ndtr(z), rel=1e-12, abs=1e-300)
    assert portable.normal_cdf([[-50.0], [50.0]]).tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("cv", [0.001, 0.05, 0.3, 0.999, 1.0, 1.06, 2.0, 5.0, 30.0])
def test_quantiles_of_the_gamma_distribution(cv: float) -> None:
    shape, z = 1 / cv**2, np.linspace(-5, 5, 401)
    exact = np.log(np.maximum(gammaincinv(shape, ndtr(z)) / shape, 1e-12))
    assert log_gamma_quantiles(shape, z) == pytest.approx(exact, abs=1e-6)


def test_interpolation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    xs, ys, x = np.sort(rng.random(50)), rng.random(50), rng.uniform(-0.2, 1.2, 2000)
    everywhere = np.append(x, xs)
    assert portable.interpolate(everywhere, xs, ys) == pytest.approx(np.interp(everywhere, xs, ys), abs=1e-12)


def test_the_generator_is_xoshiro256() -> None:
    """The first words of the authors' C program (https://doi.org/10.1145/3460772) for the state 1, 2, 3, 4."""
    state = np.array([[1, 2, 3, 4]], np.uint64)
    words = [int(streams.word(state, 0)) for _ in range(4)]
    assert words == [41943041, 58720359, 3588806011781223, 3591011842654386]
