"""Where requests wait, and how long: KV cache, running requests, token budget, adapter slots.

With real numbers of servers S and of requests v that want one, of which one leaves every b seconds per server, a wait
is longer than t with probability C(S, v) exp(-(S - v) t / b) (Erlang C). Requests of unequal size, or that come in
batches, count as fewer and larger ones: a demand with mean m and variance V is one of m^2 / V equal requests (W. S.
Hayward's approximation, see A. Fredericks, "Congestion in blocking systems", BSTJ 1980).
"""

from __future__ import annotations

import math

import numpy as np

from surrogates.steady_state.column import Column, companions
from surrogates.steady_state.slots import MOST_FEEDBACK, mean_place, wait_tail
from surrogates.steady_state.special import erlang_c
from surrogates.steady_state.tables import (
    ACTIVE,
    AGAIN,
    ASKS,
    COUNT,
    KV_NUMBER,
    KV_SPREAD,
    LUMP,
    NUMBER,
    PROMPT,
    RATE,
    STAY,
    STAY_2,
)
from twin.compiled import compiled

#: Of the KV cache, the limit of running requests and the token budget: P(wait > 0), and 1 / mean wait of those that
#: wait, 1/s (negative: more is wanted than there is). `budget_use` is the share of the prompt tokens/s that full steps
#: would compute. TTFT of a request that waits for nothing: least, mean, 99th percentile, s. Mean waits of all requests,
#: s. Shares of the requests, and of an adapter's on average, that are later than their promise.
WAITING = np.dtype(
    [
        (name, np.float64)
        for name in (
            "kv_chance", "kv_rate", "seqs_chance", "seqs_rate", "budget_chance", "budget_rate", "budget_use",
            "kv_variance", "feedback", "least_s", "plain_s", "plain_p99_s", "slot_wait_s", "budget_wait_s", "late",
            "adapter_late",
        )
    ]
)  # fmt: skip
#: Longest TTFT that is told from one without end, s; precision of a quantile, and steps in search of it.
FAR_S, CLOSE, ROUNDS = 1e6, 1e-6, 60
#: 99th percentile of a standard normal.
Z_99 = 2.3263478740408408


@compiled
def gamma_quantile(shape: float, z: float) -> float:
    """Quantile / mean of a Gamma variable where a standard normal has `z` (Wilson and Hilferty 1931)."""
    return float(max(1.0 - 1.0 / (9.0 * shape) + z / (3.0 * math.sqrt(shape)), 0.0) ** 3)


@compiled
def stations(column: Column, pace_s: float) -> None:
    """Fills `column.waiting` but for the late shares."""
    lin, at, c, w, o, g = column.linear, column.at, column.law[0], column.step[0], column.waiting[0], column.slots[0]
    staying = lin[STAY] * column.load * pace_s
    # A fuller server is slower and fills up further: fluctuations of the number are 1 / (1 - elasticity) as large.
    elasticity = min(max(w.own_s / w.seen_s, 0.0), 1.0 - 1.0 / MOST_FEEDBACK)
    o.feedback = 1.0 / (1.0 - elasticity)
    stay_s = lin[STAY_2] / lin[STAY] * pace_s
    o.kv_variance = at[KV_SPREAD] + (o.feedback - 1.0) * at[KV_NUMBER]
    size = max(o.kv_variance / w.kv_tokens, 1.0)
    o.kv_chance = erlang_c(c.kv_tokens / size, w.kv_tokens / size)
    o.kv_rate = (c.kv_tokens - w.kv_tokens) / size / (stay_s * o.feedback)
    batch = max(at[NUMBER] * o.feedback / staying, 0.05)
    o.seqs_chance = erlang_c(c.max_num_seqs / batch, staying / batch)
    o.seqs_rate = (c.max_num_seqs - staying) / batch / (stay_s * o.feedback)
    again = at[AGAIN] / max(at[ACTIVE], 1e-300)
    o.slot_wait_s = g.starts * g.wait_s * (1.0 + 0.5 * again * g.wait_s) / (lin[RATE] * column.load)
    _prefill(column, pace_s)


@compiled
def _prefill(column: Column, pace_s: float) -> None:
    """Prompts: the rest of the step under way, the steps of its own prompt, and the prompts before it."""
    lin, c, w, o = column.linear, column.law[0], column.step[0], column.waiting[0]
    budget = max(c.token_budget - w.decoding, 1.0)
    own, square = lin[PROMPT] / lin[RATE], lin[LUMP] / lin[RATE]
    token_s = w.prompt_s / max(w.prompt_tokens, 1e-300)
    o.least_s = pace_s * (1.0 + c.extra_steps)
    o.plain_s = pace_s * (1.0 + c.extra_steps + 0.5 * w.busy + own / budget) + token_s * own
    long = own * gamma_quantile(own * own / max(square - own * own, 1e-3 * own * own), Z_99)
    o.plain_p99_s = pace_s * (1.0 + c.extra_steps + w.busy + long / budget) + token_s * long
    # Steps that are full of prompt tokens do so many of them a second.
    speed = budget / (pace_s + token_s * max(budget - w.prompt_tokens, 0.0))
    o.budget_use = w.prompt_tokens / pace_s / speed
    left = max(1.0 - o.budget_use, 1e-9) * speed
    # M/G/1 (Pollaczek and Khinchine) with prompts that come in geometric batches, seen over the time of the promise.
    found = companions(column, column.slo_s[0])
    o.budget_chance = min(1.0, o.budget_use + found / (1.0 + found))
    o.budget_rate = 2.0 * left / (square / own + 2.0 * found * own)
    # The mean wait is shorter, and fewer come together within it.
    near = companions(column, 2.0 * pace_s)
    for _ in range(2):
        near = companions(column, 2.0 * pace_s + 2.0 * near * own / left)
    o.budget_wait_s = (o.budget_use * square / own * 0.5 + near * own) / left


@compiled
def later_than(column: Column, time_s: float) -> float:
    """P(TTFT > time) of requests that need not wait for a slot."""
    o = column.waiting[0]
    late = 1.0
    if time_s > o.least_s:
        late = 0.01 ** ((time_s - o.least_s) / (o.plain_p99_s - o.least_s))
    rest_s = max(time_s - o.plain_s, 0.0)
    late += o.kv_chance * math.exp(-max(o.kv_rate, 0.0) * rest_s)
    late += o.seqs_chance * math.exp(-max(o.seqs_rate, 0.0) * rest_s)
    late += o.budget_chance * math.exp(-max(o.budget_rate, 0.0) * rest_s)
    return float(min(1.0, late))


@compiled
def gated_for(column: Column, time_s: float) -> tuple[float, float]:
    """P(an activation waits longer than this for a slot) per demand without waiting, and how much longer it then waits.

    What comes for the same adapter while it waits, but early enough, is late as well.
    """
    g = column.slots[0]
    if g.chance <= 0.0:
        return 0.0, 0.0
    tail = wait_tail(max(time_s - column.waiting[0].plain_s, 0.0), g.drain, g.most, g.idle)
    return g.chance * tail * g.slower, mean_place(g.most, g.idle) / g.drain


@compiled
def late_shares(column: Column) -> None:
    """Fills the shares of all requests, and of an adapter's on average, that are later than their promise."""
    lin, at, o, slo_s = column.linear, column.at, column.waiting[0], column.slo_s
    levels = len(slo_s)
    by_level = lin[len(lin) - levels :]
    late, of_adapters = 0.0, 0.0
    for j in range(levels):
        common = later_than(column, slo_s[j]) * by_level[j] / lin[RATE]
        gone, rest = gated_for(column, slo_s[j])
        late += common + gone * (at[ASKS + j] + at[ASKS + levels + j] * rest) / (lin[RATE] * column.load)
        of_adapters += common
        if gone > 0.0:
            of_adapters += gone * (at[ASKS + 2 * levels + j] + at[ASKS + j] * rest) / lin[COUNT]
    o.late, o.adapter_late = min(late, 1.0), min(of_adapters, 1.0)


@compiled
def _late_after(column: Column, time_s: float) -> float:
    late = later_than(column, time_s)
    gone, rest = gated_for(column, time_s)
    if gone > 0.0:
        levels, asks = len(column.slo_s), 0.0
        for j in range(levels):
            asks += column.at[ASKS + j] + column.at[ASKS + levels + j] * rest
        late += gone * asks / (column.linear[RATE] * column.load)
    return late


@compiled
def ttft_quantile(column: Column, late: float) -> float:
    """TTFT that a share `late` of all requests exceeds, s (regula falsi with the Illinois rule on its logarithm)."""
    low_s, high_s = column.waiting[0].least_s, column.waiting[0].plain_p99_s
    low, high = -math.log(late), math.log(_late_after(column, high_s) / late)
    while high > 0.0:
        if high_s > FAR_S:
            return float(high_s)
        low_s, low, high_s = high_s, high, 2.0 * high_s
        high = math.log(max(_late_after(column, high_s), 1e-300) / late)
    side = 0
    for _ in range(ROUNDS):
        middle_s = (low_s * high - high_s * low) / (high - low)
        middle = math.log(max(_late_after(column, middle_s), 1e-300) / late)
        if abs(middle) < CLOSE or high_s - low_s < CLOSE * high_s:
            return float(middle_s)
        if middle > 0.0:
            low_s, low = middle_s, middle
            high *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            high_s, high = middle_s, middle
            low *= 0.5 if side == -1 else 1.0
            side = -1
    return float(high_s)
