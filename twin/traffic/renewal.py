"""The compiled part of drawing arrivals: one adapter's next arrival, then the next.

Operational time `s` of an adapter runs at speed `f(t)`, the factor of its rate process (1 without one). In it, arrivals
are a renewal process with Gamma gaps in equilibrium; the n-th arrival happens when `int_0^t f dt` reaches the n-th
renewal. Gaps come from the adapter's own stream (`twin.traffic.streams`). Phases of on/off processes come from a small
counter-based generator of their own, a function of a key alone: adapters of one group see the same phases wherever they
are served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin import portable
from twin.compiled import allocating
from twin.traffic import streams
from twin.workload.adapter import Adapter
from twin.workload.rates import OnOff, RateProfile, level

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

STEADY, PROFILE, ON_OFF = 0, 1, 2
_GOLDEN, _S11 = np.uint64(0x9E3779B97F4A7C15), np.uint64(11)


class Sources(NamedTuple):
    """A adapters as arrays, (A,); windows of all profiles behind one another, (W,).

    `first`..`last` are the windows of an adapter's profile. `high`, `low` are the factors while on and off.
    """

    rate: Floats
    cv: Floats
    kind: NDArray[np.int8]
    first: Ints
    last: Ints
    repeats: NDArray[np.bool_]
    start_s: Floats
    end_s: Floats
    factor: Floats
    window_cv: Floats
    on_s: Floats
    off_s: Floats
    high: Floats
    low: Floats
    fixed: NDArray[np.bool_]


class Progress(NamedTuple):
    """Where each adapter stands, (A,): everything that is carried from one arrival to the next.

    The last arrival or change of rate was at `time_s`; the next arrival is `due_s` operational seconds later, unless
    the rate changes at `until_s`. `cycle_s` is the start of the current repetition of a profile; `stream` (A, 4) is the
    state of the adapters' streams of arrivals.
    """

    time_s: Floats
    due_s: Floats
    until_s: Floats
    factor: Floats
    cv: Floats
    window: Ints
    cycle_s: Floats
    on: NDArray[np.bool_]
    phase_state: NDArray[np.uint64]
    stream: Words


def sources_of(adapters: Sequence[Adapter]) -> Sources:
    """Adapters as arrays. Equal profiles are stored once."""
    n = len(adapters)
    kind = np.zeros(n, np.int8)
    first, last = np.zeros(n, np.int64), np.zeros(n, np.int64)
    repeats, fixed = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    on_s, off_s, high, low = np.ones(n), np.ones(n), np.ones(n), np.ones(n)
    windows, count = [np.array([[0.0], [np.inf], [1.0], [0.0]])], 1
    stored: dict[RateProfile, tuple[int, int]] = {}
    for a, adapter in enumerate(adapters):
        process = adapter.rate_process
        if isinstance(process, RateProfile):
            kind[a] = PROFILE
            if process not in stored:
                windows.append(_windows(process))
                stored[process] = (count, count + len(process.factors) - 1)
                count += len(process.factors)
            first[a], last[a] = stored[process]
            repeats[a] = process.repeats
        elif isinstance(process, OnOff):
            kind[a] = ON_OFF
            on_s[a], off_s[a], fixed[a] = process.on_s, process.off_s, process.phases == "fixed"
            high[a] = 1.0 / level(process, process.stands_for)
            low[a] = process.off_factor * high[a]
    table = np.ascontiguousarray(np.concatenate(windows, axis=1))
    return Sources(
        np.array([a.rate_req_per_s for a in adapters]), np.array([a.arrival_cv for a in adapters]), kind, first, last,
        repeats, table[0], table[1], table[2], table[3], on_s, off_s, high, low, fixed,
    )  # fmt: skip


def _windows(profile: RateProfile) -> Floats:
    """Start and end (s), factor on the adapter's rate, and CV (0 = the adapter's own) of each window, (4, W)."""
    edges, factors = np.array(profile.edges_s), np.array(profile.factors)
    mean = profile.stands_for == "mean"
    scale = portable.dot(factors, np.diff(edges)) / edges[-1] if mean else level(profile, profile.stands_for)
    cvs = np.array(profile.arrival_cvs) if profile.arrival_cvs else np.zeros(len(factors))
    return np.stack([edges[:-1], edges[1:], factors / scale, cvs])


def progress_at_start(sources: Sources, keys: NDArray[np.uint64], phase_keys: NDArray[np.uint64]) -> Progress:
    """Before the first arrival; `keys` (A,) decide the gaps, `phase_keys` (A,) the phases of on/off processes."""
    n = len(sources.rate)
    return Progress(
        np.zeros(n), np.zeros(n), np.full(n, np.inf), np.ones(n), sources.cv.copy(), sources.first.copy(), np.zeros(n),
        np.ones(n, np.bool_), phase_keys.copy(), streams.streams(keys),
    )  # fmt: skip


@allocating
def _phase(state: np.uint64) -> float:
    """A uniform number in [0, 1) for a state of the phases' generator."""
    return float(streams.mixed(state) >> _S11) * streams.TWO_TO_MINUS_53


@allocating
def _equilibrium(stream: Words, a: int, rate: float, cv: float) -> float:
    if cv == 1.0:
        return streams.exponential(stream, a) / rate
    shape = 1.0 / (cv * cv)
    scale = 1.0 / (rate * shape)
    # A window opened at random meets a gap of length-biased size (Gamma with shape + 1) at a uniform point.
    return streams.uniform(stream, a) * streams.gamma(stream, a, shape + 1.0) * scale


@allocating
def begin(a: int, src: Sources, at: Progress) -> None:
    """Puts adapter `a` at time 0."""
    if src.kind[a] == PROFILE:
        w = src.first[a]
        at.factor[a] = src.factor[w]
        at.until_s[a] = np.inf if w == src.last[a] and not src.repeats[a] else src.end_s[w]
        if src.window_cv[w] > 0.0:
            at.cv[a] = src.window_cv[w]
    elif src.kind[a] == ON_OFF:
        on_s, off_s = src.on_s[a], src.off_s[a]
        at.phase_state[a] += _GOLDEN
        point = _phase(at.phase_state[a]) * (on_s + off_s)
        at.on[a] = point < on_s
        if src.fixed[a]:
            at.until_s[a] = on_s - point if at.on[a] else on_s + off_s - point
        else:
            at.phase_state[a] += _GOLDEN
            at.until_s[a] = -portable.log(1.0 - _phase(at.phase_state[a])) * (on_s if at.on[a] else off_s)
        at.factor[a] = src.high[a] if at.on[a] else src.low[a]
    at.due_s[a] = _equilibrium(at.stream, a, src.rate[a], at.cv[a])


@allocating
def advance(a: int, src: Sources, at: Progress, end_s: float, times: Floats, n: int) -> tuple[int, bool]:
    """Writes the next arrivals of adapter `a` that are before `end_s` to `times[n:]`.

    Returns the new n, and whether all of them had room; else call again with more. State stays where it is at `end_s`,
    so that windows joined are the same as one window.
    """
    # Locals, because arrays in a tuple cost a reference count each time they are touched.
    time_s, due_s, until_s, factor = at.time_s[a], at.due_s[a], at.until_s[a], at.factor[a]
    rate, cv, kind, stream = src.rate[a], at.cv[a], src.kind[a], at.stream
    shape = 1.0 / (cv * cv)
    scale = 1.0 / (rate * shape)
    window, cycle_s, on, phase_state = at.window[a], at.cycle_s[a], at.on[a], at.phase_state[a]
    starts_first, last, repeats = src.first[a], src.last[a], src.repeats[a]
    own_cv = src.cv[a]
    ends, factors, cvs = src.end_s, src.factor, src.window_cv
    on_s, off_s, high, low, fixed = src.on_s[a], src.off_s[a], src.high[a], src.low[a], src.fixed[a]
    room, done = len(times), False
    while True:
        if factor > 0.0:
            arrival = time_s + due_s / factor
            if arrival < until_s:
                if arrival >= end_s:
                    done = True
                    break
                if n == room:
                    break
                times[n] = arrival
                n += 1
                time_s = arrival
                due_s = streams.gamma(stream, a, shape) * scale
                continue
        if until_s >= end_s:
            done = True
            break
        due_s = max(0.0, due_s - (until_s - time_s) * factor)
        time_s = until_s
        if kind == PROFILE:
            if window == last:
                cycle_s += ends[last]
                window = starts_first
            else:
                window += 1
            factor = factors[window]
            until_s = np.inf if window == last and not repeats else cycle_s + ends[window]
            next_cv = cvs[window] if cvs[window] > 0.0 else own_cv
            if next_cv != cv:
                # Gaps of another kind cannot go on where the last ones stopped; in equilibrium the mean is exact.
                cv = next_cv
                shape = 1.0 / (cv * cv)
                scale = 1.0 / (rate * shape)
                due_s = _equilibrium(stream, a, rate, cv)
        else:
            on = not on
            mean_s = on_s if on else off_s
            if fixed:
                until_s += mean_s
            else:
                phase_state += _GOLDEN
                until_s -= portable.log(1.0 - _phase(phase_state)) * mean_s
            factor = high if on else low
    at.time_s[a], at.due_s[a], at.until_s[a], at.factor[a], at.cv[a] = time_s, due_s, until_s, factor, cv
    at.window[a], at.cycle_s[a], at.on[a], at.phase_state[a] = window, cycle_s, on, phase_state
    return n, done


@allocating
def _wider(times: Floats) -> Floats:
    wider = np.empty(2 * len(times), np.float64)
    wider[: len(times)] = times
    return wider


@allocating
def begin_all(src: Sources, at: Progress) -> None:
    """Puts every adapter at time 0."""
    for a in range(len(src.rate)):
        begin(a, src, at)


@allocating
def draw_until(src: Sources, at: Progress, end_s: float, size: int) -> tuple[Floats, Ints]:
    """The next arrivals before `end_s`, adapter by adapter, (N,), and the number of each, (A,); `size` guesses at N."""
    adapters = len(src.rate)
    times, counts = np.empty(max(size, 16), np.float64), np.empty(adapters, np.int64)
    n = 0
    for a in range(adapters):
        first, done = n, False
        while not done:
            if n == len(times):
                times = _wider(times)
            n, done = advance(a, src, at, end_s, times, n)
        counts[a] = n - first
    return times[:n], counts


@allocating
def order_of(times: Floats, end_s: float) -> Ints:
    """Order by time, a permutation (N,); equal times stay as they are. Times lie in [0, end_s).

    A bucket sort: one bucket a request, filled evenly by traffic that is about steady.
    """
    n = len(times)
    starts = np.zeros(n + 1, np.int64)
    bucket = np.empty(n, np.int64)
    for i in range(n):
        bucket[i] = min(int(times[i] / end_s * n), n - 1)
        starts[bucket[i] + 1] += 1
    for b in range(n):
        starts[b + 1] += starts[b]
    order, filled = np.empty(n, np.int64), starts[:n].copy()
    for i in range(n):
        order[filled[bucket[i]]] = i
        filled[bucket[i]] += 1
    for b in range(n):
        first, last = starts[b], starts[b + 1]
        if last - first > 50:
            own = order[first:last].copy()
            order[first:last] = own[np.argsort(times[own], kind="mergesort")]
            continue
        for k in range(first + 1, last):
            moved, at = order[k], k
            while at > first and times[order[at - 1]] > times[moved]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = moved
    return order
