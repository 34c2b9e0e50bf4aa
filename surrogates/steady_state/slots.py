"""Adapter slots: who waits for one, who finds its adapter gone, and what a reload cascade costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from surrogates.steady_state.special import erlang_c, gamma_tail, normal_tail
from twin.compiled import compiled

Records = Any

#: Slots at one pace: chance that an activation waits, mean wait of all activations, s, and 1 / mean wait of those that
#: do, 1/s; active adapters, their variance, activations/s and the factor on these that waiting leaves; cascade loads/s.
GATE = np.dtype(
    [
        (name, np.float64)
        for name in ("chance", "wait_s", "drain", "rho", "most", "active", "spread", "starts", "slower", "cascades")
    ]
)
#: Below this chance of finding all slots taken nobody waits.
NEVER = 1e-7
_SQRT_2PI = 2.5066282746310002
#: Steps of a root search at most, and the relative change at which it ends.
_ROUNDS, _PRECISION = 60, 1e-11


@compiled
def chance_to_wait(free: float, varying: float) -> float:
    """Erlang C where many slots vary (S. Halfin and W. Whitt, "Heavy-traffic limits for queues with many exponential
    servers", 1981): within a tenth of `erlang_c` from 5 on, ten times as fast."""
    if free <= varying:
        return 1.0
    beta = (free - varying) / math.sqrt(max(varying, 1e-12))
    if beta > 8.0:
        return 0.0
    density = math.exp(-0.5 * beta * beta) / _SQRT_2PI
    return 1.0 / (1.0 + beta * normal_tail(-beta) / density)


@compiled
def mean_place(rho: float, most: float) -> float:
    """Mean place in a queue of at most `most` places, geometric with ratio rho."""
    if abs(rho - 1.0) < 1e-6:
        return 0.5 * (most + 1.0)
    power = float(rho**most)
    if power > 1e12:
        return most - 1.0 / (rho - 1.0)
    return 1.0 / (1.0 - rho) - most * power / (1.0 - power)


@compiled
def wait_tail(time_s: float, drain: float, rho: float, most: float) -> float:
    """P(wait > time) of those that wait: place j in a queue of at most `most` places is left by the j-th departure.

    With P(place j) ~ rho^(j-1), j <= K, and departures at a rate `drain`, a = drain x time:
    (exp(-a (1 - rho)) Q(K, a rho) - rho^K Q(K, a)) / (1 - rho^K), for no limit exp(-a (1 - rho)).
    """
    a = drain * time_s
    if abs(rho - 1.0) < 1e-4:
        rho = 1.0 - 1e-4 if rho < 1.0 else 1.0 + 1e-4
    power = float(rho**most)
    if power < 1e-12:
        # Hardly anybody is in the last places: the queue seems endless.
        return math.exp(-a * (1.0 - rho))
    if power > 1e12:
        return gamma_tail(most, a)
    tail = (math.exp(-a * (1.0 - rho)) * gamma_tail(most, a * rho) - power * gamma_tail(most, a)) / (1.0 - power)
    return min(max(tail, 0.0), 1.0)


@compiled
def _wait_after(
    wait_s: float, slots: float, active: float, varying: float, starts: float, again: float, most: float
) -> float:
    """Mean wait of an activation, s, if activations wait `wait_s` on average."""
    slower = 1.0 / (1.0 + wait_s * again / active)
    always = (active - varying) * slower * slower
    change = max(active * slower - always, 1e-12)
    free = max(slots - always, 1e-9)
    return chance_to_wait(free, change) * mean_place(change / free, most) * change / (starts * slower * free)


@compiled
def gate(
    slots: float,
    adapters: float,
    active: float,
    varying: float,
    starts: float,
    again: float,
    pace_s: float,
    out: Records,
) -> None:
    """Fills `out[0]` (GATE): the wait for a slot, and what it does to the demand for slots.

    An adapter holds a slot while it has requests in service, and leaves it after a mean time A / (activations/s). One
    that becomes active while all slots are held waits. Its requests gather meanwhile and are then served together, so
    that waiting lowers the demand: with a mean wait W a cycle of activation lasts 1 / L + W instead of 1 / L, for L
    activations per second, and A falls to A / (1 + L W), here with the mean L of the active adapters. W follows from
    the slots that are left, and is found where both agree. `varying` = sum A (1 - A): adapters that are always active
    take slots away and do not vary.

    Where the batch needs all slots, k new adapters take over from k departed ones in one step. vLLM walks through the
    batch in set order and evicts who was touched least recently, which is an adapter of this batch that it has yet to
    reach, unless it has passed a departed one: everybody in places with more new than departed ones before them is
    loaded again (`twin.engine.slots`). At a random place that is the case with probability 1/6 for k = 1, growing to
    1/2; for a Poisson number k of mean m it is m / (6 + 2 m) within 0.02.
    """
    o = out[0]
    o.active, o.spread, o.starts, o.slower = active, varying, starts, 1.0
    o.chance, o.wait_s, o.cascades, o.drain, o.rho, o.most = 0.0, 0.0, 0.0, 1.0, 0.0, 1.0
    if varying <= 0.0 or starts <= 0.0:
        return
    if active < slots and chance_to_wait(slots - (active - varying), varying) < NEVER:
        return
    most = max(adapters - slots, 1.0)
    # Regula falsi (Illinois): what waiting leads to falls in the wait.
    low, high = 0.0, varying / starts
    above = _wait_after(low, slots, active, varying, starts, again, most) - low
    below = _wait_after(high, slots, active, varying, starts, again, most) - high
    for _ in range(_ROUNDS):
        if below <= 0.0:
            break
        low, above, high = high, below, 3.0 * high
        below = _wait_after(high, slots, active, varying, starts, again, most) - high
    side = 0
    for _ in range(_ROUNDS):
        middle = (low * below - high * above) / (below - above) if above > 0.0 else high
        off = _wait_after(middle, slots, active, varying, starts, again, most) - middle
        if abs(off) <= _PRECISION * middle or high - low <= _PRECISION * high:
            high = middle
            break
        if off > 0.0:
            low, above = middle, off
            below *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            high, below = middle, off
            above *= 0.5 if side == -1 else 1.0
            side = -1
    o.wait_s = high
    o.slower = 1.0 / (1.0 + high * again / active)
    always = (active - varying) * o.slower * o.slower
    change, free = max(active * o.slower - always, 1e-12), max(slots - always, 1e-9)
    o.chance = chance_to_wait(free, change)
    o.starts = starts * o.slower
    o.rho, o.most = change / free, most
    o.drain = max(free * o.starts / change, 1e-12)
    o.active = min(active * o.slower, slots)
    o.spread = max(o.active - always, 1e-12)
    together = o.starts * pace_s
    o.cascades = o.chance * slots * together / (6.0 + 2.0 * together) / pace_s


@compiled
def refine(slots: float, out: Records) -> None:
    """The chance to wait by Erlang C itself."""
    o = out[0]
    if o.chance > 0.0:
        free = slots - (o.active - o.spread)
        o.chance = erlang_c(free, o.rho * free)
