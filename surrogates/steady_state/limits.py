"""What a server runs out of before it runs out of time: KV cache, slots, running requests, token budget.

Each is a station at which a request may have to wait. With real numbers of servers S and of requests v that want one,
of which one leaves every b seconds per server, a wait is longer than t with probability C(S, v) exp(-(S - v) t / b)
(Erlang C). Requests of unequal size, or that come in bursts, count as fewer and larger ones: a demand with mean m and
variance V is one of m^2 / V equal requests (W. S. Hayward's approximation, see A. Fredericks, "Congestion in blocking
systems", BSTJ 1980).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.slots import mean_place, refine, wait_tail
from surrogates.steady_state.special import erlang_c
from surrogates.steady_state.sums import ColumnSums, companions
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

Floats = NDArray[np.float64]
Records = NDArray[np.void]
Members = NDArray[np.int64]

#: Stations in the order of their fields below.
KV_CACHE, SLOTS, SEQS, BUDGET = range(4)
#: For each station P(wait > 0), and 1 / mean wait of those that wait, 1/s.
WAITING = np.dtype(
    [
        (name, np.float64)
        for name in (
            "kv_chance", "kv_rate", "seqs_chance", "seqs_rate", "budget_chance",
            "budget_rate", "kv_spread", "budget_use", "late", "adapter_late", "ttft_least_s", "ttft_plain_s",
            "ttft_plain_p99_s", "gated_s", "budget_wait_s",
        )
    ]
)  # fmt: skip
#: Most that fluctuations grow because a fuller server is slower.
MOST_FEEDBACK = 5.0
#: Longest TTFT that is told from one without end, s.
FAR_S = 1e6
#: 99th percentile of a standard normal.
Z_99 = 2.3263478740408408


@compiled
def stations(
    paced: Floats, members: Members, base_s: float, slo_s: Floats, load: float, pace_s: float, law: Records,
    at_pace: Records, sums: ColumnSums, slots: Records, out: Records,
) -> None:  # fmt: skip
    """Fills `out[0]` (WAITING) but for the late shares."""
    lin, at, c, w, o = sums.linear, sums.at, law[0], at_pace[0], out[0]
    per_step = load * pace_s
    staying = lin[STAY] * per_step
    # A fuller server is slower and fills up further: fluctuations of the number are 1 / (1 - elasticity) as large.
    elasticity = min(max(w.own_s / w.seen_s, 0.0), 1.0 - 1.0 / MOST_FEEDBACK)
    feedback = 1.0 / (1.0 - elasticity)
    stay_s = lin[STAY_2] / lin[STAY] * pace_s
    o.kv_spread = at[KV_SPREAD] + (feedback - 1.0) * at[KV_NUMBER]
    size = max(o.kv_spread / w.kv_tokens, 1.0)
    o.kv_chance = erlang_c(c.kv_tokens / size, w.kv_tokens / size)
    o.kv_rate = (c.kv_tokens - w.kv_tokens) / size / (stay_s * feedback)
    clump = max(at[NUMBER] * feedback / staying, 0.05)
    o.seqs_chance = erlang_c(c.max_num_seqs / clump, staying / clump)
    o.seqs_rate = (c.max_num_seqs - staying) / clump / (stay_s * feedback)
    g = slots[0]
    refine(c.max_loras, slots)
    again = at[AGAIN] / max(at[ACTIVE], 1e-300)
    o.gated_s = g.starts * g.wait_s * (1.0 + 0.5 * again * g.wait_s) / (lin[RATE] * load)
    # Without waiting: the rest of the step under way, the steps of its own prompt, and what its tokens add to them.
    budget = max(c.token_budget - w.decoding, 1.0)
    own, square = lin[PROMPT] / lin[RATE], min(lin[LUMP] / lin[RATE], lin[PROMPT] / lin[RATE] * c.token_budget)
    per_token_s = w.prompt_s / max(w.prompt_tokens, 1e-300)
    o.ttft_least_s = pace_s * (1.0 + c.extra_steps)
    o.ttft_plain_s = pace_s * (1.0 + c.extra_steps + 0.5 * w.busy + own / budget) + per_token_s * own
    shape = own * own / max(square - own * own, 1e-3 * own * own)
    long = own * (1.0 - 1.0 / (9.0 * shape) + Z_99 / (3.0 * math.sqrt(shape))) ** 3
    o.ttft_plain_p99_s = pace_s * (1.0 + c.extra_steps + w.busy + long / budget) + per_token_s * long
    # Prompts wait for each other: steps that are full of prompt tokens do so many a second.
    full_s = pace_s + per_token_s * max(budget - w.prompt_tokens, 0.0)
    speed = budget / full_s
    o.budget_use = w.prompt_tokens / pace_s / speed
    found = companions(paced, members, base_s, load, slo_s[0], sums)
    # M/G/1 (Pollaczek and Khinchine) with prompts that come in geometric batches.
    left = max(1.0 - o.budget_use, 1e-9) * speed
    o.budget_chance = min(1.0, max(o.budget_use, 0.0) + found / (1.0 + found))
    o.budget_rate = 2.0 * left / (lin[LUMP] / lin[PROMPT] + 2.0 * found * own)
    # The mean wait is one of shorter times, within which fewer come together.
    near = companions(paced, members, base_s, load, 2.0 * pace_s, sums)
    for _ in range(2):
        near = companions(paced, members, base_s, load, 2.0 * pace_s + 2.0 * near * own / left, sums)
    o.budget_wait_s = (o.budget_use * lin[LUMP] / lin[PROMPT] * 0.5 + near * own) / left


@compiled
def later_than(time_s: float, waiting: Records) -> float:
    """P(TTFT > time), requests that wait for a slot left out."""
    o = waiting[0]
    late = 1.0
    if time_s > o.ttft_least_s:
        late = 0.01 ** ((time_s - o.ttft_least_s) / (o.ttft_plain_p99_s - o.ttft_least_s))
    rest_s = max(time_s - o.ttft_plain_s, 0.0)
    late += o.kv_chance * math.exp(-max(o.kv_rate, 0.0) * rest_s)
    late += o.seqs_chance * math.exp(-max(o.seqs_rate, 0.0) * rest_s)
    late += o.budget_chance * math.exp(-max(o.budget_rate, 0.0) * rest_s)
    return min(1.0, late)


@compiled
def gated_for(time_s: float, waiting: Records, slots: Records) -> tuple[float, float]:
    """P(an activation waits longer than this for a slot) per demand without waiting, and how much longer it then waits.

    What comes for the same adapter while it waits, but early enough, is late as well.
    """
    g = slots[0]
    if g.chance <= 0.0:
        return 0.0, 0.0
    tail = wait_tail(max(time_s - waiting[0].ttft_plain_s, 0.0), g.drain, g.rho, g.most)
    rest = mean_place(g.rho, g.most) / g.drain
    return g.chance * tail * g.slower, rest


@compiled
def late_shares(load: float, slo_s: Floats, sums: ColumnSums, slots: Records, waiting: Records) -> None:
    """Fills the shares of all requests, and of an adapter's on average, that miss their promise; `slo_s` (J,)."""
    lin, at, o = sums.linear, sums.at, waiting[0]
    levels = len(slo_s)
    by_level = lin[len(lin) - levels :]
    late, of_adapters = 0.0, 0.0
    for j in range(levels):
        common = later_than(slo_s[j], waiting) * by_level[j] / lin[RATE]
        gone, rest = gated_for(slo_s[j], waiting, slots)
        late += common + gone * (at[ASKS + j] + at[ASKS + levels + j] * rest) / (lin[RATE] * load)
        of_adapters += common
        if gone > 0.0:
            of_adapters += gone * (at[ASKS + 2 * levels + j] + at[ASKS + j] * rest) / lin[COUNT]
    o.late, o.adapter_late = min(late, 1.0), min(of_adapters, 1.0)


@compiled
def _late_after(time_s: float, rate: float, levels: int, sums: ColumnSums, waiting: Records, slots: Records) -> float:
    late = later_than(time_s, waiting)
    gone, rest = gated_for(time_s, waiting, slots)
    for j in range(levels):
        late += gone * (sums.at[ASKS + j] + sums.at[ASKS + levels + j] * rest) / rate
    return late


@compiled
def ttft_quantile(late: float, load: float, levels: int, sums: ColumnSums, waiting: Records, slots: Records) -> float:
    """TTFT that a share `late` of all requests exceeds, s; bisection, 1e-6 of the longest time looked at."""
    rate = sums.linear[RATE] * load
    low, high = 0.0, waiting[0].ttft_plain_p99_s
    while _late_after(high, rate, levels, sums, waiting, slots) > late and high < FAR_S:
        low, high = high, 2.0 * high
    for _ in range(24):
        middle = 0.5 * (low + high)
        if _late_after(middle, rate, levels, sums, waiting, slots) > late:
            low = middle
        else:
            high = middle
    return high
