"""Tails, quantiles and waits: against SciPy, against textbook queues, and against a queue played by brute force."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import special
from scipy.stats import gamma

from surrogates.steady_state.slots import GATE, Demand, chance_to_wait, gate, longer_together, mean_place, wait_tail
from surrogates.steady_state.special import (
    erlang_c,
    gamma_tail,
    next_part,
    normal_quantile,
    normal_tail,
    rough_gamma_tail,
)
from surrogates.steady_state.waiting import gamma_quantile


@given(st.floats(0.01, 2000.0), st.floats(0.01, 3.0))
def test_gamma_tail_is_that_of_scipy(shape: float, ratio: float) -> None:
    x = shape * ratio
    assert gamma_tail(shape, x) == pytest.approx(special.gammaincc(shape, x), rel=1e-8, abs=1e-11)


@given(st.floats(0.5, 2000.0), st.floats(0.1, 3.0))
def test_rough_gamma_tail(shape: float, ratio: float) -> None:
    x = shape * ratio
    assert rough_gamma_tail(shape, x) == pytest.approx(special.gammaincc(shape, x), abs=0.03)


@given(st.floats(-8, 8))
def test_normal_tail(z: float) -> None:
    assert normal_tail(z) == pytest.approx(special.ndtr(-z), rel=1e-10)
    if abs(z) < 6:
        assert normal_quantile(normal_tail(z)) == pytest.approx(z, abs=1e-3)


@pytest.mark.parametrize("shape", [1.0, 8.0, 100.0])
def test_gamma_quantile_by_wilson_and_hilferty(shape: float) -> None:
    assert gamma_quantile(shape, 2.3263) == pytest.approx(gamma.ppf(0.99, shape, scale=1 / shape), rel=0.02)


def erlang_by_recursion(servers: int, offered: float) -> float:
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


@pytest.mark.parametrize(("servers", "offered"), [(1, 0.3), (8, 5.0), (32, 30.0), (384, 300.0), (2048, 2000.0)])
def test_erlang_c_is_the_recursion_at_whole_numbers(servers: int, offered: float) -> None:
    exact = erlang_by_recursion(servers, offered)
    assert erlang_c(float(servers), offered) == pytest.approx(exact, rel=1e-8)
    if servers > 1:
        assert chance_to_wait(float(servers), offered) == pytest.approx(exact, rel=0.05)
    # In between.
    assert erlang_c(servers + 0.5, offered) < exact


def test_places_of_those_that_wait() -> None:
    """Against sums over places: P(place j) ~ a^(K - j) / (K - j)!, one in place j leaves with the j-th departure."""
    for most, idle in ((5, 3.0), (5, 40.0), (60, 20.0), (60, 90.0), (300, 250.0)):
        places = np.arange(1, most + 1)
        log = (most - places) * math.log(idle) - special.gammaln(most - places + 1)
        weights = np.exp(log - log.max())
        weights /= weights.sum()
        assert mean_place(most, idle) == pytest.approx((weights * places).sum(), rel=0.15)
        tails = special.gammaincc(places, 0.7 * 10)  # P(fewer than j of a Poisson number of departures)
        assert wait_tail(10.0, 0.7, most, idle) == pytest.approx((weights * tails).sum(), rel=0.03)
    # An endless queue: geometric places.
    assert mean_place(800, 1000.0) == pytest.approx(5.0, rel=0.1)
    assert wait_tail(3.0, 1.0, 500, 1000.0) == pytest.approx(math.exp(-1.5), rel=0.02)


def played_gate(slots: int, adapters: int, rate: float, stay_s: float, seed: int) -> tuple[float, float]:
    """Adapters with Poisson requests and exponential stays at `slots` slots, first come first served.

    An adapter keeps its slot while it has requests; those that come while it waits are served with the first one.
    Returns the mean number of slots held, and the mean wait of an activation.
    """
    rng = np.random.default_rng(seed)
    events = [(rng.exponential(1 / rate), 0, a) for a in range(adapters)]
    heapq.heapify(events)
    in_service, waiting_requests = np.zeros(adapters, int), np.zeros(adapters, int)
    queue: list[tuple[int, float]] = []
    held, area, before, waits = 0, 0.0, 0.0, []
    end_s = 40_000.0

    def serve(a: int, requests: int, now: float) -> None:
        in_service[a] += requests
        for _ in range(requests):
            heapq.heappush(events, (now + rng.exponential(stay_s), 1, a))

    while True:
        now, kind, a = heapq.heappop(events)
        if now > end_s:
            return area / end_s, float(np.mean(waits))
        area, before = area + held * (now - before), now
        if kind == 0:
            heapq.heappush(events, (now + rng.exponential(1 / rate), 0, a))
            if in_service[a]:
                serve(a, 1, now)
            elif waiting_requests[a]:
                waiting_requests[a] += 1
            elif held < slots:
                held += 1
                waits.append(0.0)
                serve(a, 1, now)
            else:
                waiting_requests[a] = 1
                queue.append((a, now))
        else:
            in_service[a] -= 1
            if in_service[a] == 0:
                held -= 1
                if queue:
                    b, since = queue.pop(0)
                    waits.append(now - since)
                    held += 1
                    requests, waiting_requests[b] = waiting_requests[b], 0
                    serve(b, int(requests), now)


@pytest.mark.parametrize(("adapters", "load"), [(40, 0.7), (40, 1.3), (18, 1.2), (120, 1.0)])
def test_waiting_for_slots_lowers_the_demand_for_them(adapters: int, load: float) -> None:
    """Also where more slots are wanted than there are: the wait finds its own end."""
    slots, stay_s = 16, 3.0
    x = -math.log1p(-min(load * slots / adapters, 0.98))
    rate = x / stay_s
    active = -math.expm1(-x)
    starts, out = rate * math.exp(-x), np.zeros(1, GATE)
    demand = Demand(
        float(slots), float(adapters), adapters * active, adapters * active * (1 - active), adapters * starts, starts,
        rate, adapters * (1 - active), stay_s, 1.0,
    )  # fmt: skip
    gate(demand, 0.02, out)
    held, wait_s = played_gate(slots, adapters, rate, stay_s, 5)
    assert out["active"][0] == pytest.approx(held, rel=0.04)
    assert out["wait_s"][0] == pytest.approx(wait_s, rel=0.5, abs=0.03)


def test_the_last_of_several_stays() -> None:
    rng = np.random.default_rng(2)
    for y in (0.3, 2.0, 9.0):
        last = [rng.exponential(1.0, 1 + n).max() for n in rng.poisson(y, 40_000)]
        assert longer_together(y) == pytest.approx(np.mean(last) - 1, abs=0.06)


def cascade_loads(new: int, slots: int, rounds: int, seed: int) -> float:
    """Adapters of a full batch that are evicted and loaded again: a walk in set order through all its slots."""
    rng = np.random.default_rng(seed)
    reloaded = 0
    for _ in range(rounds):
        # +1: an adapter that needs a slot, -1: one that departed and left its slot, 0: one that stays.
        places = np.zeros(slots, int)
        chosen = rng.permutation(slots)[: 2 * new]
        places[chosen[:new]], places[chosen[new:]] = 1, -1
        ahead = np.cumsum(places)
        reloaded += int(((places == 0) & (ahead > 0)).sum())
    return reloaded / rounds


@pytest.mark.parametrize("mean", [0.05, 0.5, 2.0, 6.0])
def test_reload_cascade_of_a_poisson_number_of_new_adapters(mean: float) -> None:
    rng, slots = np.random.default_rng(1), 200
    drawn = np.bincount(rng.poisson(mean, 4000))
    played = sum(n * cascade_loads(k, slots, 60, k) for k, n in enumerate(drawn) if k) / drawn.sum() / slots
    assert mean / (6 + 2.3 * mean) == pytest.approx(played, abs=0.02)


@pytest.mark.parametrize(("of", "most"), [(lambda x: 2.0 - np.exp(x), 9), (lambda x: 1.0 - 2.0 * (x > 0.3), 60)])
def test_roots_are_found_in_few_steps(of: Callable[[float], float], most: int) -> None:
    """Of a smooth function in a handful; where it jumps by halving."""
    a, b, part, asked = 0.0, 1.0, 0.5, 0
    of_a, of_b = of(a), of(b)
    while abs(b - a) > 1e-9 and of_a != 0.0 and asked < 100:
        x, asked = a + part * (b - a), asked + 1
        value = of(x)
        if (value > 0) == (of_a > 0):
            c, of_c = a, of_a
        else:
            c, b, of_c, of_b = b, a, of_b, of_a
        a, of_a = x, value
        part = next_part(a, of_a, b, of_b, c, of_c)
        if abs(of_a) < 1e-12:
            break
    assert asked <= most
    assert a == pytest.approx(np.log(2.0) if most < 60 else 0.3, abs=1e-8)
