"""The measuring rig's monitor: it asks the server for `/metrics`, and the server's event loop stands still meanwhile.

The published campaigns scraped `/metrics` 2 s after each answer. vLLM 0.8.5 keeps one `lora_requests_info` series for
every combination of running and waiting adapters that it has ever seen, and writes all of them into every answer: the
answer takes longer and longer (0.01 s with 8 adapters, 0.5 s with hundreds at the end of an hour). While the loop
writes it,

* requests that arrive are not read, and first tokens are not sent: TTFT gains a tail;
* tokens pile up and reach the client as one chunk, so there are fewer and longer gaps between chunks (ITL). Not so
  with more than 128 running requests: the frontend then hands out a step's tokens in pieces and lets each be sent.

TPOT and throughput do not change. The length of an answer is predicted from the simulated combinations, never read
from a run: `answer_s = base_s + series_s * combinations + adapter_s * (adapters named in them)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Outputs of a step that vLLM's frontend hands out in one go (VLLM_V1_OUTPUT_PROC_CHUNK_SIZE).
HANDED_OUT_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Monitor:
    """How long the server takes to answer the monitor, seconds.

    Args:
        pause_s: between an answer and the next question.
        base_s, series_s, adapter_s: of an answer, of a combination in it, of an adapter named in a combination.
    """

    pause_s: float = 2.0
    base_s: float = 0.0034
    series_s: float = 9.8e-6
    adapter_s: float = 0.11e-6


@dataclass(frozen=True, slots=True)
class Combinations:
    """Distinct (running adapters, waiting adapters) by time of their first appearance.

    Args:
        time_s: (C,), ascending.
        named: adapters in the combination, (C,).
    """

    time_s: Array
    named: NDArray[np.int64]


def combinations_of(
    adapter: NDArray[np.int32], release_s: Array, first_s: Array, finish_s: Array, n_adapters: int, step_s: float
) -> Combinations:
    """What the server's statistics have seen after each step.

    Args:
        adapter, release_s, first_s, finish_s: of every request, (N,); NaN where it did not happen.
        step_s: mean step time; a request that arrives during a step is seen waiting at that step's end.
    """
    parts = []
    for side, (times, gain_of_one) in enumerate(((release_s, 1), (first_s, -1), (first_s, 1), (finish_s, -1))):
        there = np.isfinite(times)
        # Rows: time, adapter (waiting ones after the running ones), change of its count.
        row = adapter[there] + (n_adapters if side < 2 else 0)
        parts.append((times[there], row, np.full(len(row), gain_of_one)))
    time_s, row, change = (np.concatenate([p[i] for p in parts]) for i in range(3))
    order = np.lexsort((-change, time_s, row))
    time_s, row, change = time_s[order], row[order], change[order]
    count = np.cumsum(change)
    # Every adapter's changes start from zero again.
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    before = np.where(starts > 0, count[starts - 1], 0)
    count -= np.repeat(before, np.diff(np.append(starts, len(row))))
    toggled = (count > 0) != (count - change > 0)
    time_s, row, gain = time_s[toggled], row[toggled], np.where(change[toggled] > 0, 1, -1)
    order = np.argsort(time_s, kind="stable")
    time_s, row, gain = time_s[order], row[order], gain[order]
    names = np.random.default_rng(0).integers(1, 2**63, 2 * n_adapters, dtype=np.int64)
    state, named = np.bitwise_xor.accumulate(names[row]), np.cumsum(gain)
    seen = [first_s[np.isfinite(first_s)], finish_s[np.isfinite(finish_s)], release_s + step_s / 2]
    at = np.searchsorted(time_s, np.unique(np.concatenate(seen)), side="right") - 1
    at = at[at >= 0]
    _, earliest = np.unique(state[at], return_index=True)
    chosen = at[np.sort(earliest)]
    return Combinations(time_s[chosen], named[chosen])


@dataclass(frozen=True, slots=True)
class Scrapes:
    """Times at which the event loop writes an answer.

    Args:
        start_s, end_s: ascending and disjoint, (K,).
    """

    start_s: Array
    end_s: Array

    def after(self, time_s: Array) -> Array:
        """When something that becomes ready at `time_s` (N,) gets its turn."""
        at = np.searchsorted(self.start_s, time_s, side="right") - 1
        inside = (at >= 0) & (time_s < self.end_s[np.maximum(at, 0)])
        return np.where(inside, self.end_s[np.maximum(at, 0)], time_s)

    @property
    def median_s(self) -> float:
        """Median length of an answer."""
        return float(np.median(self.end_s - self.start_s))


def scrapes_of(combinations: Combinations, monitor: Monitor, horizon_s: float) -> Scrapes:
    """Every answer of a window."""
    cost = np.cumsum(monitor.series_s + monitor.adapter_s * combinations.named)
    starts, ends, t = [], [], 0.0
    while t < horizon_s:
        seen = int(np.searchsorted(combinations.time_s, t))
        starts.append(t)
        ends.append(t + monitor.base_s + (float(cost[seen - 1]) if seen else 0.0))
        t = ends[-1] + monitor.pause_s
    return Scrapes(np.array(starts), np.array(ends))


def chunk_factor(scrapes: Scrapes, running: Array, step_s: float, horizon_s: float) -> float:
    """Tokens per chunk that the client sees, by which its mean gap between chunks is longer.

    In a cycle of `pause + answer` seconds the tokens of the answer's time, if they are more than one, arrive as one.

    Args:
        running: running requests in equal parts of the window, (bins,).
    """
    edges = np.linspace(0.0, horizon_s, len(running) + 1)
    at = np.clip(np.searchsorted(scrapes.start_s, (edges[1:] + edges[:-1]) / 2) - 1, 0, None)
    answer = scrapes.end_s[at] - scrapes.start_s[at]
    cycle = np.append(np.diff(scrapes.start_s), answer[-1:] + 2.0)[at] if len(scrapes.start_s) > 1 else answer + 2.0
    factor = cycle / (cycle - answer + np.minimum(step_s, answer))
    factor = np.where(running <= HANDED_OUT_AT_ONCE, factor, 1.0)
    tokens = running.sum()
    return float(tokens / (running / factor).sum()) if tokens > 0 else 1.0
