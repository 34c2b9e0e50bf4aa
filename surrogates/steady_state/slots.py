"""Adapter slots: who waits for one, who finds its adapter gone, and what a reload cascade costs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from surrogates.steady_state.special import gamma_tail, normal_tail, rough_gamma_tail
from twin.compiled import compiled

Records = Any

#: Slots at one pace: chance that an activation waits, mean wait of all activations, s; departures/s while all slots are
#: held, most others that can wait then, and how many of them are idle instead; active adapters, their variance,
#: activations/s and the factor on these that waiting leaves; adapters loaded again in cascades, 1/s.
GATE = np.dtype(
    [
        (name, np.float64)
        for name in ("chance", "wait_s", "drain", "idle", "most", "active", "spread", "starts", "slower", "cascades")
    ]
)
#: Most that fluctuations grow because a fuller server is slower.
MOST_FEEDBACK = 5.0
#: Below this chance of finding all slots taken nobody waits.
NEVER = 1e-7
_SQRT_2PI = 2.5066282746310002
#: Steps of a root search at most, and the relative change at which it ends.
_ROUNDS, _PRECISION = 60, 1e-11


@compiled
def chance_to_wait(free: float, varying: float) -> float:
    """Erlang C for real numbers of servers and of requests, with a Gamma tail by cube root (`rough_gamma_tail`)."""
    if free <= varying:
        return 1.0
    if varying <= 1e-12:
        return 0.0
    log_b = free * math.log(varying) - varying - math.lgamma(free + 1.0)
    if log_b < -50.0:
        return 0.0
    blocked = min(1.0, math.exp(log_b) / rough_gamma_tail(free + 1.0, varying))
    return blocked / (1.0 - varying / free * (1.0 - blocked))


@compiled
def mean_place(most: float, idle: float) -> float:
    """Mean place of those that wait, if the number of others of `most` that do not is Poisson (`idle`), below `most`.

    most - E[I | I < most], with the Poisson number as normal; far in its tail the places are geometric.
    """
    z = (most - 0.5 - idle) / math.sqrt(idle)
    geometric = idle / (idle - most) if idle > most else np.inf
    if z < -6.0:
        return geometric
    hazard = math.exp(-0.5 * z * z) / (_SQRT_2PI * normal_tail(-z))
    return max(min(most - idle + math.sqrt(idle) * hazard, geometric), 1.0)


@compiled
def wait_tail(time_s: float, drain: float, most: float, idle: float) -> float:
    """P(wait > time) of those that wait: one in place j has its slot with the j-th departure, at a rate `drain`.

    Departures within the time are Poisson, and so is the number of adapters ahead that are idle instead of waiting, so
    that P(departures < most - I | I < most) = Q(most, idle + drain x time) / Q(most, idle).
    """
    x = idle + drain * time_s
    if idle > 3.0 * most + 30.0:
        # Hardly anybody else waits: geometric places.
        return math.exp(-drain * time_s * (1.0 - most / idle))
    return min(1.0, gamma_tail(most, x) / max(gamma_tail(most, idle), 1e-300))


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
        rate: requests/s of an adapter that waits. idle: adapters that are not active, as many of this rate as ask for
            slots as often. spread_s: standard deviation of the stay of a request.
        feedback: how much larger the variance of the slots that are wanted is because a fuller server is slower: the
            root of 1 / (1 - elasticity), as requests feel all of it and adapters only what outlasts their stay (taken
            from the twin: without it theta* is 5 % too high with few slots, with the whole factor 8 % too low).
    """

    slots: float
    adapters: float
    active: float
    varying: float
    starts: float
    again: float
    rate: float
    idle: float
    spread_s: float
    feedback: float


@compiled
def _after(demand: Demand, wait_s: float) -> tuple[float, float, float]:
    """With a mean wait of activations: slots held, those held by adapters that never leave, factor on activations/s."""
    longer_s = demand.spread_s * longer_together(demand.rate * wait_s)
    slower = 1.0 / (1.0 + (wait_s + longer_s) * demand.again)
    less = slower * (1.0 + longer_s * demand.starts / demand.active)
    return demand.active * less, (demand.active - demand.varying) * less * less, slower


@compiled
def _queue(demand: Demand, wait_s: float) -> tuple[float, float, float, float]:
    """With a mean wait of activations: chance to wait, departures/s while all slots are held, most that can wait, and
    how many of them are idle on average while all slots are held."""
    held, always, slower = _after(demand, wait_s)
    change, free = max(held - always, 1e-12), max(demand.slots - always, 1e-9)
    drain = max(free * demand.starts * slower / change, 1e-12)
    most = max(min(demand.active + demand.idle, demand.adapters) - demand.slots, 1.0)
    idle = drain * demand.idle / demand.starts
    # While slots are free the number that is wanted varies more and longer (Hayward); held ones vary no more.
    longer = 1.0 + (demand.feedback - 1.0) * (1.0 - chance_to_wait(free, change))
    return chance_to_wait(free / longer, change / longer), drain / longer, most, idle / longer


@compiled
def _wait_after(demand: Demand, wait_s: float) -> float:
    """Mean wait of an activation, s, if activations wait `wait_s` on average."""
    chance, drain, most, idle = _queue(demand, wait_s)
    return chance * mean_place(most, idle) / drain


@compiled
def gate(demand: Demand, pace_s: float, out: Records) -> None:
    """Fills `out[0]` (GATE): the wait for a slot, and what it does to the demand for slots.

    An adapter holds a slot while it has requests in service, and leaves it after a mean time b = A / (activations/s).
    One that becomes active while all slots are held waits. Its requests gather meanwhile and are then served together,
    which takes little longer than one (d, `longer_together`), so that waiting lowers the demand: with a mean wait W a
    cycle of activation lasts 1 / L + W + d instead of 1 / L, for L activations per second, and A becomes
    (b + d) / (1 / L + W + d), here with the mean L of the active adapters. W follows from the slots that are left
    (Erlang C), for a queue in which those that wait can not come again. Adapters that are always active take slots away
    and do not vary.

    Where the batch needs all slots, k new adapters take over from k departed ones in one step. vLLM walks through the
    batch in set order and evicts who was touched least recently, which is an adapter of this batch that it has yet to
    reach, unless it has passed a departed one: everybody in places with more new than departed ones before them is
    loaded again (`twin.engine.slots`). At a random place that is the case with probability 1/6 for k = 1, growing to
    1/2; for a Poisson number k of mean m it is m / (6 + 2.3 m) within 0.02.
    """
    o, d = out[0], demand
    o.active, o.spread, o.starts, o.slower = d.active, d.varying, d.starts, 1.0
    o.chance, o.wait_s, o.cascades, o.drain, o.idle, o.most = 0.0, 0.0, 0.0, 1.0, 1.0, 1.0
    if d.adapters <= d.slots or d.varying <= 0.0 or d.starts <= 0.0:
        return
    if (
        d.active < d.slots
        and chance_to_wait((d.slots - d.active + d.varying) / d.feedback, d.varying / d.feedback) < NEVER
    ):
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
    o.chance, o.drain, o.most, o.idle = _queue(d, high)
    o.starts = d.starts * o.slower
    o.active = min(held, d.slots)
    o.spread = max(o.active - always, 1e-12)
    together = o.starts * pace_s
    o.cascades = o.chance * d.slots * together / (6.0 + 2.3 * together) / pace_s
