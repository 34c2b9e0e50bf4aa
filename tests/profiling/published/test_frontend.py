"""The rig's event loop: first come, first served, an adapter's first request costs the most, ports are finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from profiling.published.frontend import Frontend, take_in

FRONTEND = Frontend(first_request_s=0.3, intake_s=0.01)


def arrivals(seed: int, n: int, adapters: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.exponential(1 / rate, n)), rng.integers(0, adapters, n).astype(np.int32)


@given(st.integers(0, 1000), st.integers(1, 80), st.integers(1, 12), st.floats(0.5, 300.0))
def test_the_loop_serves_in_order_one_at_a_time(seed: int, n: int, adapters: int, rate: float) -> None:
    """Against a queue written step by step."""
    arrival, adapter = arrivals(seed, n, adapters, rate)
    intake = take_in(arrival, adapter, FRONTEND, 0)
    free, seen = 0.0, set()
    for i in range(n):
        free = max(free, arrival[i]) + FRONTEND.intake_s + (0.0 if adapter[i] in seen else FRONTEND.first_request_s)
        seen.add(adapter[i])
        assert intake.release_s[i] == pytest.approx(free - FRONTEND.intake_s)
    assert intake.accepted.all()
    assert len(intake.busy_s) == len(seen)
    assert (intake.busy_s[1:, 0] >= intake.busy_s[:-1, 1] - 1e-9).all()


def test_many_busy_adapters_hold_everything_up_for_as_long_as_their_tokenizers_take() -> None:
    arrival, adapter = arrivals(0, 40_000, 384, 300.0)
    intake = take_in(arrival, adapter, Frontend(0.3, 0.0), 0)
    assert intake.release_s[3000] == pytest.approx(384 * 0.3, rel=0.05)
    assert intake.release_s[-1] == pytest.approx(arrival[-1])


def test_without_ports_left_requests_are_lost_until_the_loop_has_caught_up() -> None:
    arrival, adapter = arrivals(1, 2000, 100, 200.0)
    intake = take_in(arrival, adapter, Frontend(0.3, 0.001), 500)
    caught_up = intake.release_s[499]
    lost = ~intake.accepted
    assert lost.any() and (arrival[lost] < caught_up).all()
    assert intake.accepted[:500].all() and intake.accepted[arrival >= caught_up].all()
    assert (np.diff(intake.release_s[intake.accepted]) >= 0).all()
