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

from surrogates.steady_state.slots import refine
from surrogates.steady_state.special import erlang_c
from surrogates.steady_state.sums import ColumnSums
from surrogates.steady_state.tables import (
    ACTIVE,
    AGAIN,
    ASKS,
    COUNT,
    KV_NUMBER,
    KV_SPREAD,
    LUMP,
    NUMBER,
    PREFILL,
    PROMPT,
    RATE,
    STAY,
    STAY_2,
)
from twin.compiled import compiled

Floats = NDArray[np.float64]
Records = NDArray[np.void]

#: Stations in the order of their fields below.
KV_CACHE, SLOTS, SEQS, BUDGET = range(4)
#: For each station P(wait > 0), and 1 / mean wait of those that wait, 1/s.
WAITING = np.dtype(
    [
        (name, np.float64)
        for name in (
            "kv_chance", "kv_rate", "slots_chance", "slots_rate", "seqs_chance", "seqs_rate", "budget_chance",
            "budget_rate", "kv_spread", "budget_use", "late", "adapter_late", "ttft_least_s", "ttft_plain_s",
            "ttft_plain_p99_s", "gated_share", "gated_s",
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
    load: float, pace_s: float, law: Records, at_pace: Records, sums: ColumnSums, slots: Records, out: Records
) -> None:
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
    o.slots_chance, o.slots_rate = g.chance, g.rate
    again = at[AGAIN] / max(at[ACTIVE], 1e-300)
    # Requests that come while their adapter waits are late too, if it waits for long enough after they came.
    o.gated_share = g.slower * (1.0 + again / g.rate) if g.chance > 0.0 else 0.0
    o.gated_s = g.starts * g.wait_s * (1.0 + 0.5 * again * g.wait_s) / (lin[RATE] * load)
    # Prompts wait for the tokens that a step has left (M/G/1: Pollaczek and Khinchine).
    budget = max(c.token_budget - w.decoding, 1e-9)
    o.budget_use = w.prompt_tokens / budget
    burst = 1.0 + max(at[PREFILL], 0.0) / (lin[PROMPT] * load)
    lump = lin[LUMP] / lin[PROMPT] * burst
    o.budget_chance = min(1.0, o.budget_use)
    o.budget_rate = 2.0 * (1.0 - o.budget_use) * budget / (lump * pace_s)
    # Without waiting: the rest of the step under way, the steps of its own prompt, and what its tokens add to them.
    own, square = lin[PROMPT] / lin[RATE], min(lin[LUMP] / lin[RATE], lin[PROMPT] / lin[RATE] * c.token_budget)
    per_token_s = w.prompt_s / max(w.prompt_tokens, 1e-300)
    o.ttft_least_s = pace_s * (1.0 + c.extra_steps)
    own *= burst
    o.ttft_plain_s = pace_s * (1.0 + c.extra_steps + 0.5 * w.busy + own / budget) + per_token_s * own
    own /= burst
    shape = own * own / max(square - own * own, 1e-3 * own * own)
    long = own * (1.0 - 1.0 / (9.0 * shape) + Z_99 / (3.0 * math.sqrt(shape))) ** 3
    o.ttft_plain_p99_s = pace_s * (1.0 + c.extra_steps + w.busy + long / budget) + per_token_s * long * burst


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
def gated_longer_than(time_s: float, waiting: Records) -> float:
    """P(a request whose adapter is not in service has no slot within this time)."""
    o = waiting[0]
    return o.gated_share * o.slots_chance * math.exp(-max(o.slots_rate, 0.0) * max(time_s - o.ttft_plain_s, 0.0))


@compiled
def late_shares(load: float, slo_s: Floats, sums: ColumnSums, waiting: Records) -> None:
    """Fills the shares of all requests, and of an adapter's on average, that miss their promise; `slo_s` (J,)."""
    lin, at, o = sums.linear, sums.at, waiting[0]
    levels = len(slo_s)
    by_level = lin[len(lin) - levels :]
    late, of_adapters = 0.0, 0.0
    for j in range(levels):
        common, gated = later_than(slo_s[j], waiting), gated_longer_than(slo_s[j], waiting)
        late += (by_level[j] * common + at[ASKS + j] / load * gated) / lin[RATE]
        of_adapters += by_level[j] / lin[RATE] * common
        if lin[COUNT] > 0.0:
            of_adapters += at[ASKS + levels + j] / lin[COUNT] * gated
    o.late, o.adapter_late = min(late, 1.0), min(of_adapters, 1.0)


@compiled
def ttft_quantile(late: float, load: float, levels: int, sums: ColumnSums, waiting: Records) -> float:
    """TTFT that a share `late` of all requests exceeds, s; bisection, 1e-6 of the longest time looked at."""
    lin, at = sums.linear, sums.at
    asks = 0.0
    for j in range(levels):
        asks += at[ASKS + j]
    asks /= lin[RATE] * load
    low, high = 0.0, waiting[0].ttft_plain_p99_s
    while later_than(high, waiting) + asks * gated_longer_than(high, waiting) > late and high < FAR_S:
        low, high = high, 2.0 * high
    for _ in range(24):
        middle = 0.5 * (low + high)
        if later_than(middle, waiting) + asks * gated_longer_than(middle, waiting) > late:
            low = middle
        else:
            high = middle
    return high
