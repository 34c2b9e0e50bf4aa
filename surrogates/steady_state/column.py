"""One column in compiled code: its sums over adapters, looked up at a pace, and room for what is found there."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.tables import (
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
Members = NDArray[np.int64]
#: Arrays of named records, (1,) where there is only one: compiled code can write to arrays only.
Records = Any


class Column(NamedTuple):
    """A column under a setting, with the tables of all adapters and sums that are made when they are looked up.

    Args:
        paced, aside, ranks, slo_s, base_s: of `Tables`.
        members: rows of the tables that belong to the column; or, `exchanged`, to one that differs by an exchange.
        linear, paced_sums, aside_sums: sums over the members, (L,), (G, C) and (G / STRIDE, TIMES, 2).
        known, aside_known: what was summed already, (G,) and (G / STRIDE, TIMES).
        at: the row of `paced_sums` at the pace looked up last, between two points of the grid, (C,).
        law: one record `LAW`. load: factor on all rates.
        slots, step, waiting: one record each, for what `gate`, `evaluate` and `stations` find.
        exchanged: the column holds the members without `leave` and with `enter` (-1 = none); `base_*` hold what was
            summed over the members themselves, and serve many exchanges.
    """

    paced: Floats
    aside: Floats
    ranks: Floats
    slo_s: Floats
    base_s: float
    members: Members
    linear: Floats
    paced_sums: Floats
    aside_sums: Floats
    known: Flags
    aside_known: Flags
    at: Floats
    law: Records
    load: float
    slots: Records
    step: Records
    waiting: Records
    exchanged: bool
    leave: int
    enter: int
    base_paced: Floats
    base_aside: Floats
    base_known: Flags
    base_aside_known: Flags


@compiled
def sum_linear(linear: Floats, members: Members, out: Floats) -> None:
    """Sums what needs no pace over the members, into `out` (L,)."""
    out[:] = 0.0
    for n in members:
        for c in range(len(out)):
            out[c] += linear[n, c]


@compiled
def _sum_rows(rows: Floats, members: Members, out: Floats) -> None:
    out[:] = 0.0
    # Four at a time: the sum is stored less often than its terms are read.
    fours = len(members) // 4 * 4
    for k in range(0, fours, 4):
        i, j, m, n = members[k], members[k + 1], members[k + 2], members[k + 3]
        for c in range(len(out)):
            out[c] += (rows[i, c] + rows[j, c]) + (rows[m, c] + rows[n, c])
    for k in range(fours, len(members)):
        for c in range(len(out)):
            out[c] += rows[members[k], c]


@compiled
def _sum_paced(column: Column, g: int) -> None:
    if column.exchanged:
        if not column.base_known[g]:
            _sum_rows(column.paced[g], column.members, column.base_paced[g])
            column.base_known[g] = True
        row, changed, leave, enter = column.base_paced[g], column.paced_sums[g], column.leave, column.enter
        for c in range(len(row)):
            value = row[c]
            if leave >= 0:
                value -= column.paced[g, leave, c]
            if enter >= 0:
                value += column.paced[g, enter, c]
            changed[c] = value
    else:
        _sum_rows(column.paced[g], column.members, column.paced_sums[g])
    column.known[g] = True


@compiled
def _sum_aside(column: Column, point: int, t: int) -> None:
    if column.exchanged and column.base_aside_known[point, t]:
        active, starts = column.base_aside[point, t, 0], column.base_aside[point, t, 1]
    else:
        active, starts = 0.0, 0.0
        for n in column.members:
            active += column.aside[point, t, n, 0]
            starts += column.aside[point, t, n, 1]
    if column.exchanged:
        column.base_aside[point, t, 0], column.base_aside[point, t, 1] = active, starts
        column.base_aside_known[point, t] = True
        if column.leave >= 0:
            active -= column.aside[point, t, column.leave, 0]
            starts -= column.aside[point, t, column.leave, 1]
        if column.enter >= 0:
            active += column.aside[point, t, column.enter, 0]
            starts += column.aside[point, t, column.enter, 1]
    column.aside_sums[point, t, 0], column.aside_sums[point, t, 1] = active, starts
    column.aside_known[point, t] = True


@compiled
def _aside(column: Column, g: int, share: float, t: int, which: int) -> float:
    """Column `which` of `aside_sums` between points g and g + 1 at time t; summed when it is first asked for."""
    for point in (g, g + 1):
        if not column.aside_known[point, t]:
            _sum_aside(column, point, t)
    low, high = column.aside_sums[g, t, which], column.aside_sums[g + 1, t, which]
    return float(low + share * (high - low))


@compiled
def position(column: Column, pace_s: float) -> float:
    """Where a pace lies on the grid, in points; below 0 and beyond the last one it is outside."""
    return CELLS * (math.log2(column.load * pace_s / column.base_s) + BELOW)


@compiled
def pace_at(column: Column, point: float) -> float:
    """The pace of a point of the grid, s."""
    return float(column.base_s * 2.0 ** (point / CELLS - BELOW) / column.load)


@compiled
def _cell(where: float, last: int) -> int:
    """The cell of a grid that a place lies in; the first one for what is no number: nothing is read beside the grid."""
    return min(int(where), last - 1) if where >= 0.0 else 0


@compiled
def look_up(column: Column, pace_s: float) -> None:
    """Fills `column.at` for a pace, all rates multiplied by the load; straight lines over log(pace).

    Outside the grid what grows with the pace goes on in proportion to it: below it all that counts adapters and
    requests, above it only what has no upper limit.
    """
    last = len(column.paced_sums) - 1
    where = position(column, pace_s)
    inside = min(max(where, 0.0), float(last))
    g = _cell(inside, last)
    share = inside - g
    if not column.known[g]:
        _sum_paced(column, g)
    if share > 0.0 and not column.known[g + 1]:
        _sum_paced(column, g + 1)
    low, high, at = column.paced_sums[g], column.paced_sums[g + 1], column.at
    for c in range(len(at)):
        at[c] = low[c] + share * (high[c] - low[c]) if share > 0.0 else low[c]
    if where != inside:
        beyond = 2.0 ** ((where - inside) / CELLS)
        for c in range(PREFILL):
            if where < 0.0 or COMPANIONS <= c <= QUIET:
                at[c] *= beyond
    levels = len(column.slo_s)
    for c in range(PREFILL, ASKS + 2 * levels):
        at[c] *= column.load if c < ASKS + levels else column.load * column.load


@compiled
def companions(column: Column, window_s: float) -> float:
    """Requests of its own adapter that an arrival finds from the last `window_s` seconds, beyond a Poisson number.

    Mean over arrivals, weighted by their prompts.
    """
    last = len(column.paced_sums) - 1
    where = min(max(position(column, 0.5 * window_s), 0.0), float(last))
    g = _cell(where, last)
    for point in (g, g + 1):
        if not column.known[point]:
            _sum_paced(column, point)
    low, high = column.paced_sums[g, PREFILL], column.paced_sums[g + 1, PREFILL]
    return float(max(low + (where - g) * (high - low), 0.0) / column.linear[PROMPT])


@compiled
def look_aside(
    column: Column, pace_s: float, limit: float, spread: float, active: float, starts: float
) -> tuple[float, float]:
    """Characteristic time of a cache of `limit` adapters, s, and activations/s of adapters that it lost meanwhile.

    The cache forgets the adapter that was used longest ago, so that one stays for as long as it takes `limit` others
    to be asked for: t_c solves sum A_i(stay + t_c) = limit (H. Che et al., "Hierarchical web caching systems", JSAC
    2002; C. Fricker et al., "A versatile and accurate approximation for LRU cache performance", 2012). `spread` is
    added to the sum for moments of more than the mean. Returned are (0, `starts`) where nothing idle is kept.
    """
    if active + spread >= limit:
        return 0.0, starts
    last = len(column.aside_sums) - 1
    where = min(max(position(column, pace_s) / STRIDE, 0.0), float(last))
    g = _cell(where, last)
    share = where - g
    # The first of the times whose sum reaches the limit.
    below, above = -1, column.aside_sums.shape[1]
    while above - below > 1:
        middle = (below + above) // 2
        if _aside(column, g, share, middle, 0) + spread >= limit:
            above = middle
        else:
            below = middle
    before, before_rate, before_s = active, starts, 0.0
    if below >= 0:
        before, before_s = _aside(column, g, share, below, 0), FIRST_S * 2.0**below / column.load
        before_rate = column.load * _aside(column, g, share, below, 1)
    if above == column.aside_sums.shape[1]:
        return before_s, before_rate
    here, rate = _aside(column, g, share, above, 0), column.load * _aside(column, g, share, above, 1)
    part = min(max((limit - spread - before) / max(here - before, 1e-12), 0.0), 1.0)
    lost = math.exp(math.log(max(before_rate, 1e-30)) * (1.0 - part) + math.log(max(rate, 1e-30)) * part)
    return before_s + part * (FIRST_S * 2.0**above / column.load - before_s), lost
