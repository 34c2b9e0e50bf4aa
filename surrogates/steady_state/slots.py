"""Adapter slots: who waits for one, who finds its adapter gone, and what a reload cascade costs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.special import erlang_c, normal_tail
from twin.compiled import compiled

Records = NDArray[np.void]

#: Slots at one pace: chance that an activation waits, mean wait of all activations, s, and 1 / mean wait of those that
#: do, 1/s; active adapters, their variance, activations/s and the factor on these that waiting leaves; cascade loads/s.
GATE = np.dtype(
    [(name, np.float64) for name in ("chance", "wait_s", "rate", "active", "spread", "starts", "slower", "cascades")]
)
#: Below this chance of finding all slots taken nobody waits.
NEVER = 1e-7
_SQRT_2PI = 2.5066282746310002
_ROUNDS = 40


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
def _wait_after(wait_s: float, slots: float, active: float, varying: float, starts: float, again: float) -> float:
    """Mean wait of an activation, s, if activations wait `wait_s` on average; inf where they find no end."""
    slower = 1.0 / (1.0 + wait_s * again / active)
    always = (active - varying) * slower * slower
    now = active * slower
    if now >= slots:
        return np.inf
    change = now - always
    return chance_to_wait(slots - always, change) * change / (starts * slower * (slots - now))


@compiled
def gate(
    slots: float, active: float, varying: float, starts: float, again: float, pace_s: float, out: Records
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
    o.chance, o.wait_s, o.rate, o.cascades = 0.0, 0.0, 1e9, 0.0
    if varying <= 0.0 or starts <= 0.0:
        return
    if active < slots and chance_to_wait(slots - (active - varying), varying) < NEVER:
        return
    low = 0.0
    if active > slots and again > 0.0:
        low = (active / slots - 1.0) * active / again
    high = max(2.0 * low, varying / starts)
    for _ in range(_ROUNDS):
        if _wait_after(high, slots, active, varying, starts, again) <= high:
            break
        high *= 2.0
    for _ in range(24):
        middle = 0.5 * (low + high)
        if _wait_after(middle, slots, active, varying, starts, again) > middle:
            low = middle
        else:
            high = middle
    o.wait_s = high
    o.slower = 1.0 / (1.0 + high * again / active)
    always = (active - varying) * o.slower * o.slower
    o.active = min(active * o.slower, slots)
    o.spread = max(o.active - always, 1e-12)
    o.starts = starts * o.slower
    o.chance = chance_to_wait(slots - always, o.spread)
    o.rate = max(slots - o.active, 1e-9) * o.starts / o.spread
    together = o.starts * pace_s
    o.cascades = o.chance * slots * together / (6.0 + 2.0 * together) / pace_s


@compiled
def refine(slots: float, out: Records) -> None:
    """The chance to wait by Erlang C itself."""
    o = out[0]
    if o.chance > 0.0:
        o.chance = erlang_c(slots - (o.active - o.spread), o.spread)
