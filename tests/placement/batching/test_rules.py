"""B_opt by both published rules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from placement.batching.curves import Curve, CurvePoint
from placement.batching.rules import choose, slo_of
from twin.errors import InfeasibleError, InputError


def curve(latency: dict[int, float], throughput: dict[int, float] | None = None, lost: tuple[int, ...] = ()) -> Curve:
    def point(b: int) -> CurvePoint:
        t = (throughput or {}).get(b, 100 * b / (b + 50))
        return CurvePoint(b, t, latency[b], latency[b] * 1.1, math.nan, 100.0 * b, math.nan, preempting=b in lost)

    return Curve("law", tuple(point(b) for b in sorted(latency)))


LATENCY = {1: 4.0, 8: 5.0, 32: 8.0, 64: 11.0, 128: 15.9, 256: 30.0, 512: 60.0}
#: Measured on OPT-1.3B: (requests/s, ITL in ms).
MEASURED = {
    1: (0.94728, 3.62333), 32: (14.22778, 7.50959), 64: (20.20751, 10.39578), 96: (22.41598, 13.89381),
    128: (23.58665, 17.34609), 192: (25.59819, 23.57871), 256: (26.82317, 29.27269), 384: (27.65384, 40.876),
}  # fmt: skip


def test_published_choices_of_opt_1_3b() -> None:
    measured = curve({b: v[1] for b, v in MEASURED.items()}, {b: v[0] for b, v in MEASURED.items()})
    assert choose(measured, "efficiency", slo="strict", epsilon=0.1).point.batch == 96
    relaxed = choose(measured, "efficiency", slo="relaxed", epsilon=0.1)
    assert (relaxed.point.batch, relaxed.bound_by) == (256, "both")
    # eps = 0.2 of the publication's command line binds before the SLO does.
    assert choose(measured, "efficiency", slo="5x", epsilon=0.2).point.batch == 96


def test_slo_is_relative_to_32_or_absolute() -> None:
    assert slo_of(curve(LATENCY), "strict", "efficiency") == (16.0, 32)
    assert slo_of(curve(LATENCY), "relaxed", "latency")[0] == pytest.approx(4 * 8.8)
    assert slo_of(curve(LATENCY), "3x", "efficiency") == (24.0, 32)
    assert slo_of(curve(LATENCY), 20, "efficiency") == (20.0, 32)
    for bad in ("tight", "x", "-3", 0, math.nan, "infx"):
        with pytest.raises(InputError, match="is not an SLO"):
            slo_of(curve(LATENCY), bad, "efficiency")


def test_preempting_points_are_dropped_and_named() -> None:
    c = curve(LATENCY, lost=(128, 256, 512))
    choice = choose(c, "latency", slo=1000, epsilon=0.1)
    assert (choice.point.batch, choice.bound_by, c.dropped) == (64, "memory", (128, 256, 512))
    with pytest.raises(InputError, match="every batch limit preempts"):
        choose(curve(LATENCY, lost=tuple(LATENCY)), "latency", slo=20, epsilon=0.1)


def test_impossible_and_invalid_requests_are_told_apart() -> None:
    with pytest.raises(InfeasibleError, match="lowest latency is 4 ms, at a batch of 1"):
        choose(curve(LATENCY), "efficiency", slo=3.9, epsilon=0.1)
    for epsilon in (0.0, 1.0, -0.1, 2.0, math.nan):
        with pytest.raises(InputError, match=r"epsilon = .* is out of range"):
            choose(curve(LATENCY), "efficiency", slo="strict", epsilon=epsilon)
    without_one = curve({b: v for b, v in LATENCY.items() if b > 1})
    with pytest.raises(InputError, match="batch of 1"):
        choose(without_one, "efficiency", slo="strict", epsilon=0.1)
    assert choose(without_one, "latency", slo="strict", epsilon=0.1).point.batch == 128


@given(st.floats(4.5, 200), st.floats(4.5, 200), st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_a_looser_bound_never_shrinks_the_batch(slo: float, slo2: float, epsilon: float, epsilon2: float) -> None:
    low, high = sorted((slo, slo2))
    easy, hard = sorted((epsilon, epsilon2))
    c = curve(LATENCY)
    tight = choose(c, "efficiency", slo=low, epsilon=hard).point.batch
    assert choose(c, "efficiency", slo=high, epsilon=easy).point.batch >= tight
    assert choose(c, "latency", slo=low * 1.1, epsilon=hard).point.batch >= tight
