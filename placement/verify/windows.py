"""Which windows of time a GPU is judged by: how long, and where in a rate that changes.

An hour is the unit. Where hardly a request arrives in an hour, windows are as long as it takes for enough of them.
Where rates follow a profile longer than a window, every window starts at a random point of it, so that the share of bad
hours is one of all hours of the profile and not of its first.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twin.server.column import Column
from twin.workload.adapter import Adapter
from twin.workload.rates import SHORTEST_PHASE_S, RateProfile, level

Array = NDArray[np.float64]

#: Longest window: a year. Longer ones would not be more true.
LONGEST_WINDOW_S = 365 * 86_400.0
#: Expected requests in all windows of the first look / those that are needed, so that chance seldom leaves too few.
SURPLUS = 1.5


def window_length_s(column: Column, *, horizon_s: float, windows: int, requests: int) -> float:
    """`horizon_s`, or as long as it takes for so many requests to arrive in so many windows; a year at most."""
    rate = sum(a.mean_rate_req_per_s for a in column.adapters)
    needed_s = SURPLUS * requests / rate / windows
    return max(horizon_s, min(needed_s, LONGEST_WINDOW_S))


def profile_s(column: Column) -> float:
    """Time after which the longest rate profile of the column ends or starts again, seconds; 0 without one."""
    return max(
        (a.rate_process.edges_s[-1] for a in column.adapters if isinstance(a.rate_process, RateProfile)), default=0
    )


def random_start_s(span_s: float, seed: int) -> float:
    """A time within a profile, uniform, a function of the seed."""
    return float(np.random.default_rng([seed, 5]).random()) * span_s


def starting_at(column: Column, start_s: float) -> Column:
    """The column as it is `start_s` seconds into the rate profiles of its adapters."""
    return replace(column, adapters=tuple(_adapter_at(a, start_s) for a in column.adapters))


def _adapter_at(adapter: Adapter, start_s: float) -> Adapter:
    profile = adapter.rate_process
    if not isinstance(profile, RateProfile):
        return adapter
    later = _profile_at(profile, start_s)
    # A profile that does not repeat is left with its later windows, whose mean is another.
    factor = level(later, later.stands_for) / level(profile, profile.stands_for)
    return replace(adapter, rate_process=later, rate_req_per_s=adapter.rate_req_per_s * factor)


def _profile_at(profile: RateProfile, start_s: float) -> RateProfile:
    end_s = profile.edges_s[-1]
    since = start_s % end_s if profile.repeats else min(start_s, end_s)
    first = min(bisect_right(profile.edges_s, since) - 1, len(profile.factors) - 1)
    left, right = profile.edges_s[first : first + 2]
    # A start that would cut off less than the shortest phase is moved to the change of rate beside it.
    if since - left < SHORTEST_PHASE_S:
        since = left
    elif right - since < SHORTEST_PHASE_S:
        since, first = right, first + 1
        if first == len(profile.factors):
            since, first = (0.0, 0) if profile.repeats else (left, first - 1)
    order = list(range(first, len(profile.factors)))
    edges = [0.0, *(e - since for e in profile.edges_s[first + 1 :])]
    if profile.repeats and since > 0:
        head = [e for e in profile.edges_s[1:] if e < since]
        order += list(range(len(head) + 1))
        edges += [edges[-1] + e for e in head] + [end_s]
    factors = tuple(profile.factors[w] for w in order)
    if not sum(factors) > 0:
        return profile  # what is left of it is silence: a run has to begin somewhere with requests
    cvs = tuple(profile.arrival_cvs[w] for w in order) if profile.arrival_cvs else ()
    return replace(profile, edges_s=tuple(edges), factors=factors, arrival_cvs=cvs)


def busiest_start_s(column: Column, window_s: float) -> tuple[float, float]:
    """Start of the window with the most tokens by the rate profiles, and its rate / the rate planned for, in requests.

    Windows start where some profile changes; adapters without a profile count as they are.
    """
    profiled = [(a, a.rate_process) for a in column.adapters if isinstance(a.rate_process, RateProfile)]
    span_s = profile_s(column)
    starts = np.unique(np.concatenate([[0.0], *(np.array(p.edges_s[:-1]) for _, p in profiled)]))
    starts = starts[starts < span_s]
    tokens, requests = np.zeros(len(starts)), np.zeros(len(starts))
    steady = 0.0
    for adapter in column.adapters:
        weight = adapter.prompt_tokens.mean + adapter.output_tokens.mean
        profile = adapter.rate_process
        if isinstance(profile, RateProfile):
            in_window = adapter.rate_req_per_s * _mean_factor(profile, starts, window_s)
            requests += in_window
            tokens += weight * in_window
        else:
            steady += adapter.mean_rate_req_per_s
    best = int(np.argmax(tokens))
    planned = sum(a.rate_req_per_s for a in column.adapters)
    return float(starts[best]), (float(requests[best]) + steady) / planned


def _mean_factor(profile: RateProfile, starts: Array, window_s: float) -> Array:
    """Mean of the factor over `[start, start + window)`, relative to what the adapter's rate stands for."""
    mean: Array = (_integral(profile, starts + window_s) - _integral(profile, starts)) / window_s
    return mean / level(profile, profile.stands_for)


def _integral(profile: RateProfile, times: Array) -> Array:
    """Integral of the factor from 0 to each time, (T,)."""
    edges, factors = np.array(profile.edges_s), np.array(profile.factors)
    total = np.concatenate([[0.0], np.cumsum(factors * np.diff(edges))])
    end_s = edges[-1]
    inside = times % end_s if profile.repeats else np.minimum(times, end_s)
    w = np.minimum(np.searchsorted(edges, inside, side="right") - 1, len(factors) - 1)
    beyond = np.floor(times / end_s) * total[-1] if profile.repeats else np.maximum(0.0, times - end_s) * factors[-1]
    whole: Array = total[w] + (inside - edges[w]) * factors[w] + beyond
    return whole
