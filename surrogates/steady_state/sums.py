"""Sums over the adapters of a column, looked up at a pace."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.tables import (
    AGAIN,
    ASKS,
    BELOW,
    CELLS,
    COMPANIONS,
    FIRST_S,
    PREFILL,
    PROMPT,
    QUIET,
    STRIDE,
)
from twin.compiled import compiled

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class ColumnSums(NamedTuple):
    """One column: sums of rows of `Tables`, made when they are first looked up, and what was looked up last.

    Args:
        linear: (L,). paced: (G, C). aside: (G / STRIDE, TIMES, 2).
        known, aside_known: whether a pace was summed already, (G,) and (G / STRIDE,).
        at: the row of `paced` at the pace looked up last, between two points of the grid, (C,).
    """

    linear: Floats
    paced: Floats
    aside: Floats
    known: Flags
    aside_known: Flags
    at: Floats


@compiled
def add_linear(linear: Floats, members: NDArray[np.int64], out: ColumnSums) -> None:
    """Starts a column: sums what needs no pace, and forgets all paces."""
    out.linear[:] = 0.0
    for n in members:
        for c in range(linear.shape[1]):
            out.linear[c] += linear[n, c]
    out.known[:] = False
    out.aside_known[:] = False


@compiled
def _sum_paced(paced: Floats, members: NDArray[np.int64], g: int, out: ColumnSums) -> None:
    row = out.paced[g]
    row[:] = 0.0
    for n in members:
        for c in range(paced.shape[2]):
            row[c] += paced[n, g, c]
    out.known[g] = True


@compiled
def _sum_aside(aside: Floats, members: NDArray[np.int64], g: int, out: ColumnSums) -> None:
    rows = out.aside[g]
    rows[:] = 0.0
    for n in members:
        for t in range(aside.shape[2]):
            rows[t, 0] += aside[n, g, t, 0]
            rows[t, 1] += aside[n, g, t, 1]
    out.aside_known[g] = True


@compiled
def position(pace_s: float, base_s: float) -> float:
    """Where a pace lies on the grid, in points; below 0 and beyond the last one it is outside."""
    return CELLS * (math.log2(pace_s / base_s) + BELOW)


@compiled
def look_up(
    paced: Floats, members: NDArray[np.int64], base_s: float, load: float, pace_s: float, out: ColumnSums
) -> None:
    """Fills `out.at` for a pace, with all rates multiplied by `load`; straight lines over log(pace).

    Outside the grid what grows with the pace goes on in proportion to it: below it all that counts adapters and
    requests, above it only what has no upper limit.
    """
    last = paced.shape[1] - 1
    where = position(load * pace_s, base_s)
    inside = min(max(where, 0.0), float(last))
    g = min(int(inside), last - 1)
    share = inside - g
    if not out.known[g]:
        _sum_paced(paced, members, g, out)
    if share > 0.0 and not out.known[g + 1]:
        _sum_paced(paced, members, g + 1, out)
    low, high, at = out.paced[g], out.paced[g + 1], out.at
    for c in range(len(at)):
        at[c] = low[c] + share * (high[c] - low[c]) if share > 0.0 else low[c]
    if where != inside:
        beyond = 2.0 ** ((where - inside) / CELLS)
        for c in range(len(at)):
            if c < PREFILL and (where < 0.0 or COMPANIONS <= c <= QUIET):
                at[c] *= beyond
    levels = (len(at) - ASKS) // 3
    for c in range(PREFILL, ASKS + 2 * levels):
        at[c] *= load if c < ASKS + levels else load * load


@compiled
def companions(
    paced: Floats, members: NDArray[np.int64], base_s: float, load: float, window_s: float, out: ColumnSums
) -> float:
    """Requests of its own adapter that an arrival finds from the last `window_s` seconds, beyond a Poisson number.

    Mean over arrivals, weighted by their prompts.
    """
    last = paced.shape[1] - 1
    where = min(max(position(0.5 * load * window_s, base_s), 0.0), float(last))
    g = min(int(where), last - 1)
    for point in (g, g + 1):
        if not out.known[point]:
            _sum_paced(paced, members, point, out)
    low, high = out.paced[g, PREFILL], out.paced[g + 1, PREFILL]
    return max(low + (where - g) * (high - low), 0.0) / out.linear[PROMPT]


@compiled
def look_aside(
    aside: Floats, members: NDArray[np.int64], base_s: float, load: float, pace_s: float, limit: float, spread: float,
    active: float, starts: float, out: ColumnSums,
) -> tuple[float, float]:  # fmt: skip
    """Characteristic time of a cache of `limit` adapters, s, and activations/s of adapters that it lost meanwhile.

    The cache forgets the adapter that was used longest ago, so that one stays for as long as it takes `limit` others
    to be asked for: t_c solves sum A_i(stay + t_c) = limit (H. Che et al., "Hierarchical web caching systems", JSAC
    2002; C. Fricker et al., "A versatile and accurate approximation for LRU cache performance", 2012). `spread` is
    added to the sum for moments of more than the mean. Returned are (0, `starts`) where nothing idle is kept.
    """
    last = aside.shape[1] - 1
    where = min(max(position(load * pace_s, base_s) / STRIDE, 0.0), float(last))
    g = min(int(where), last - 1)
    share = where - g
    for point in (g, g + 1):
        if not out.aside_known[point]:
            _sum_aside(aside, members, point, out)
    low, high = out.aside[g], out.aside[g + 1]
    if active + spread >= limit:
        return 0.0, starts
    before, before_rate, before_t = active, starts, 0.0
    for t in range(aside.shape[2]):
        here = low[t, 0] + share * (high[t, 0] - low[t, 0])
        rate = load * (low[t, 1] + share * (high[t, 1] - low[t, 1]))
        time = FIRST_S * 2.0**t / load
        if here + spread >= limit:
            part = min(max((limit - spread - before) / max(here - before, 1e-12), 0.0), 1.0)
            lost = math.exp(math.log(max(before_rate, 1e-30)) * (1 - part) + math.log(max(rate, 1e-30)) * part)
            return before_t + part * (time - before_t), lost
        before, before_rate, before_t = here, rate, time
    return before_t, before_rate
