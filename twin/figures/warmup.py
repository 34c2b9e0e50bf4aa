"""Warm-up removal: which part of a window counts, and the engine's figures of that part.

A measured run starts with an empty queue, and so does a simulated one: by default nothing is removed. A figure of
the steady state asks for `warmup_s`, a number of seconds or `"auto"`: MSER-5 (K. P. White, "An effective truncation
heuristic for bias reduction in simulation output", Simulation 69, 1997; the 5-batch form is by Spratt, 1998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range, check
from twin.engine.state import ITL_BINS, ITL_BINS_PER_MS, TRACE_COLUMNS
from twin.errors import InputError

Array = NDArray[np.float64]
WarmupRule = Literal["none", "given", "mser-5", "no steady state"]

#: Observations of a batch, batches of a window, and the share of the window that MSER may remove.
BATCH, BATCHES, MOST_REMOVED = 5, 60, 0.5
#: A given warm-up leaves at least this share of the window: the drift test needs its 15 blocks.
LEAST_LEFT = 0.25


@dataclass(frozen=True, slots=True)
class Warmup:
    """Seconds that were removed from the start of a window, and why these."""

    seconds: float
    rule: WarmupRule


def mser(batch_means: Array, most_removed: float = MOST_REMOVED) -> int | None:
    """Batches to remove: the d that minimises `sum_{j >= d} (y_j - mean_{>= d})^2 / (n - d)^2`.

    That is the squared standard error of the mean of what is left. Returns None where the minimum lies on the upper
    end of the range, `d = most_removed * n`: the series has not settled (a queue that grows, for instance).
    """
    n = len(batch_means)
    last = int(most_removed * n)
    # Sums from the end; centred, so that the squares lose nothing.
    y = batch_means - batch_means.mean()
    left = n - np.arange(last + 1)
    total = np.cumsum(y[::-1])[::-1][: last + 1]
    squares = np.cumsum((y * y)[::-1])[::-1][: last + 1]
    statistic = np.maximum(squares - total * total / left, 0.0) / left.astype(float) ** 2
    best = int(np.argmin(statistic))
    return None if best == last and last > 0 else best


def steps_to_trace(horizon_s: float, base_ms: float, time_scale: float = 1.0) -> int:
    """Rows that hold every step of a window: no step is shorter than the law's constant `base_ms`.

    Raises:
        InputError: a law without a constant bounds nothing.
    """
    if not base_ms * time_scale > 0:
        raise InputError(
            f"the step-time law has base {base_ms!r} ms: the number of steps is not bounded",
            remedy="removing a warm-up needs a law whose base is positive; use warmup_s=0",
        )
    return math.ceil(horizon_s * 1000.0 / (base_ms * time_scale)) + 2


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What the engine did in the part of the window that counts.

    Args:
        running, waiting, kv_blocks: time averages; requests, requests, blocks in use.
        preemptions_per_s, loads_per_s: events.
        itl_histogram: decoded tokens by duration of their step, bins of 1/4 ms, (4096,).
    """

    running: float
    waiting: float
    kv_blocks: float
    preemptions_per_s: float
    loads_per_s: float
    itl_histogram: Array


def _column(trace: Array, name: str) -> Array:
    return trace[:, TRACE_COLUMNS.index(name)]


def _check_complete(trace: Array, busy_s: float) -> None:
    recorded = float(_column(trace, "duration_s").sum())
    if recorded < busy_s * (1 - 1e-9) - 1e-9:
        raise InputError(
            f"a warm-up is removed with the help of the step trace, but it covers {recorded:.1f} s of {busy_s:.1f} "
            "busy seconds",
            remedy="simulate with trace_steps=twin.figures.warmup.steps_to_trace(...)",
        )


def _system_means(trace: Array, horizon_s: float, parts: int) -> Array:
    """Mean of running + waiting in equal parts of the window, a step counted where it starts, (parts,)."""
    weight = (_column(trace, "running") + _column(trace, "waiting")) * _column(trace, "duration_s")
    where = np.minimum((_column(trace, "start_s") / horizon_s * parts).astype(np.int64), parts - 1)
    sums = np.asarray(np.bincount(where, weights=weight, minlength=parts), dtype=np.float64)
    return sums * (parts / horizon_s)


def resolve(warmup_s: float | Literal["auto"], trace: Array, *, horizon_s: float, busy_s: float) -> Warmup:
    """The warm-up in seconds; `"auto"` is MSER-5 over running + waiting in 300 parts, batches of 5.

    Raises:
        InputError: a warm-up that is negative or leaves less than a quarter of the window, or an incomplete trace.
    """
    if isinstance(warmup_s, str):
        if warmup_s != "auto":
            raise InputError(f"warmup_s {warmup_s!r} is neither 'auto' nor a number", remedy="use 'auto' or e.g. 600")
        _check_complete(trace, busy_s)
        parts = _system_means(trace, horizon_s, BATCH * BATCHES)
        removed = mser(parts.reshape(BATCHES, BATCH).mean(axis=1))
        if removed is None:
            return Warmup(0.0, "no steady state")
        return Warmup(removed * horizon_s / BATCHES, "mser-5")
    most = Range(0, (1 - LEAST_LEFT) * horizon_s, unit="seconds", hint="that is at most three quarters of the window")
    check(warmup_s, "warmup_s", most)
    return Warmup(float(warmup_s), "given" if warmup_s > 0 else "none")


def engine_after(warmup: Warmup, trace: Array, *, horizon_s: float, total_blocks: int, busy_s: float) -> EngineFigures:
    """Figures of the steps after the warm-up; a step that reaches over the limit counts with the part after it."""
    _check_complete(trace, busy_s)
    start, duration = _column(trace, "start_s"), _column(trace, "duration_s")
    weight = np.clip(start + duration - warmup.seconds, 0.0, duration)
    window = horizon_s - warmup.seconds
    later = start >= warmup.seconds
    bins = np.minimum((duration[later] * 1000.0 * ITL_BINS_PER_MS).astype(np.int64), ITL_BINS - 1)
    tokens = np.bincount(bins, weights=_column(trace, "decodes")[later], minlength=ITL_BINS)
    return EngineFigures(
        running=float((weight * _column(trace, "running")).sum()) / window,
        waiting=float((weight * _column(trace, "waiting")).sum()) / window,
        kv_blocks=float((weight * (total_blocks - _column(trace, "free_blocks"))).sum()) / window,
        preemptions_per_s=float(_column(trace, "preemptions")[later].sum()) / window,
        loads_per_s=float(_column(trace, "loads")[later].sum()) / window,
        itl_histogram=np.asarray(tokens, dtype=np.float64),
    )
