"""Adapter slots: who waits for one, who finds its adapter gone, and what a reload cascade costs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from surrogates.steady_state.special import gamma_tail, normal_tail
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
    servers", 1981): for few slots below `erlang_c`, as adapters, of which there is a finite number, are."""
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
def longer_together(requests: float) -> float:
    """How much longer 1 + N requests take together than one, in standard deviations of a stay.

    For exponential stays and a Poisson number N with this mean y: the last of m ends after the harmonic number H_m, and
    E[H_(1 + N)] = Ein(y) + (1 - exp(-y)) / y with Ein(y) = integral from 0 to y of (1 - exp(-t)) / t, here
    log(1 + y + (e^gamma - 1) y^2 / (y + 3.12)) (0.02).
    """
    y = requests
    if y < 1e-4:
        return 0.5 * y
    return math.log(1.0 + y + 0.7810724 * y * y / (y + 3.12)) - math.expm1(-y) / y - 1.0


class Demand(NamedTuple):
    """What adapters want of some slots if nobody waits.

    Args:
        slots, adapters: how many there are. active: sum A, slots wanted on average. varying: sum A (1 - A).
        starts: activations/s. again: their mean over the active adapters, 1/s.
        rate: requests/s of an adapter that waits. spread_s: standard deviation of the stay of a request.
    """

    slots: float
    adapters: float
    active: float
    varying: float
    starts: float
    again: float
    rate: float
    spread_s: float


@compiled
def _after(demand: Demand, wait_s: float) -> tuple[float, float, float]:
    """With a mean wait of activations: slots held, those held by adapters that never leave, factor on activations/s."""
    longer_s = demand.spread_s * longer_together(demand.rate * wait_s)
    slower = 1.0 / (1.0 + (wait_s + longer_s) * demand.again)
    less = slower * (1.0 + longer_s * demand.starts / demand.active)
    return demand.active * less, (demand.active - demand.varying) * less * less, slower


@compiled
def _wait_after(demand: Demand, wait_s: float) -> float:
    """Mean wait of an activation, s, if activations wait `wait_s` on average."""
    held, always, slower = _after(demand, wait_s)
    change = max(held - always, 1e-12)
    free = max(demand.slots - always, 1e-9)
    place = mean_place(change / free, max(demand.adapters - demand.slots, 1.0))
    return chance_to_wait(free, change) * place * change / (demand.starts * slower * free)


@compiled
def gate(demand: Demand, pace_s: float, out: Records) -> None:
    """Fills `out[0]` (GATE): the wait for a slot, and what it does to the demand for slots.

    An adapter holds a slot while it has requests in service, and leaves it after a mean time b = A / (activations/s).
    One that becomes active while all slots are held waits. Its requests gather meanwhile and are then served together,
    which takes little longer than one (d, `longer_together`), so that waiting lowers the demand: with a mean wait W a
    cycle of activation lasts 1 / L + W + d instead of 1 / L, for L activations per second, and A becomes
    (b + d) / (1 / L + W + d), here with the mean L of the active adapters. W follows from the slots that are left
    (Erlang C, for a queue that has no more places than adapters without a slot), and is found where both agree.
    Adapters that are always active take slots away and do not vary.

    Where the batch needs all slots, k new adapters take over from k departed ones in one step. vLLM walks through the
    batch in set order and evicts who was touched least recently, which is an adapter of this batch that it has yet to
    reach, unless it has passed a departed one: everybody in places with more new than departed ones before them is
    loaded again (`twin.engine.slots`). At a random place that is the case with probability 1/6 for k = 1, growing to
    1/2; for a Poisson number k of mean m it is m / (6 + 2.3 m) within 0.02.
    """
    o, d = out[0], demand
    o.active, o.spread, o.starts, o.slower = d.active, d.varying, d.starts, 1.0
    o.chance, o.wait_s, o.cascades, o.drain, o.rho, o.most = 0.0, 0.0, 0.0, 1.0, 0.0, 1.0
    if d.adapters <= d.slots or d.varying <= 0.0 or d.starts <= 0.0:
        return
    if d.active < d.slots and chance_to_wait(d.slots - (d.active - d.varying), d.varying) < NEVER:
        return
    # Regula falsi (Illinois): what waiting leads to falls in the wait.
    low, high = 0.0, d.varying / d.starts
    above, below = _wait_after(d, low), _wait_after(d, high) - high
    for _ in range(_ROUNDS):
        if below <= 0.0:
            break
        low, above, high = high, below, 3.0 * high
        below = _wait_after(d, high) - high
    side = 0
    for _ in range(_ROUNDS):
        middle = (low * below - high * above) / (below - above) if above > 0.0 else high
        off = _wait_after(d, middle) - middle
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
    held, always, o.slower = _after(d, high)
    change, free = max(held - always, 1e-12), max(d.slots - always, 1e-9)
    o.chance, o.starts = chance_to_wait(free, change), d.starts * o.slower
    o.rho, o.most = change / free, max(d.adapters - d.slots, 1.0)
    o.drain = max(free * o.starts / change, 1e-12)
    o.active = min(held, d.slots)
    o.spread = max(o.active - always, 1e-12)
    together = o.starts * pace_s
    o.cascades = o.chance * d.slots * together / (6.0 + 2.3 * together) / pace_s
