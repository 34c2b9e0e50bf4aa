"""The compiled loop over columns: pace, then what follows from it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.limits import Z_99, late_shares, stations, ttft_quantile
from surrogates.steady_state.pace import Members, Records, barrier, evaluate, find_pace
from surrogates.steady_state.sums import ColumnSums, add_linear
from surrogates.steady_state.tables import COUNT, NUMBER, RATE, STAY, STAY_2
from twin.compiled import compiled

Floats = NDArray[np.float64]

#: Steady state of one column; fields as in `surrogates.steady_state.state.SteadyState`.
STATE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "pace_s", "requests_in_system", "running", "decoding", "decoding_variance", "ttft_mean_s", "ttft_p99_s",
            "itl_mean_s", "itl_p99_s", "e2e_mean_s", "kv_share", "kv_share_spread", "distinct_adapters",
            "distinct_spread", "loads_per_s", "disk_loads_per_s", "blocked_share", "characteristic_s", "slots_full",
            "slot_wait_chance", "slot_wait_s", "kv_wait_chance", "seqs_wait_chance", "budget_use", "late_share",
            "adapter_late_share", "promise_use", "elasticity", "base_s", "decode_share", "prompt_share", "kv_time_share",
            "lora_share", "past_share", "prompt_tokens_per_step", "rate_req_per_s", "adapters", "shortest_step_s", "second_pace_s",
            "escapes_per_h",
        )
    ]
)  # fmt: skip

#: A state that is left more often than this per hour is not the one that an hour shows.
MOST_ESCAPES = 0.5


@compiled
def solve_columns(
    linear: Floats, paced: Floats, aside: Floats, ranks: Floats, slo_s: Floats, base_s: float, members: Members,
    starts: Members, loads: Floats, pace_limit_s: Floats, token_limit_s: Floats, law: Records, sums: ColumnSums,
    slots: Records, at_pace: Records, waiting: Records, out: Records,
) -> None:  # fmt: skip
    """Fills `out` (P,) for columns whose adapters are `members[starts[p]:starts[p + 1]]`.

    Args:
        loads: factors on all rates, (P,).
        pace_limit_s, token_limit_s: of the adapters, (N,).
        law: (P,). sums, at_pace, waiting: room for one column.
    """
    for p in range(len(out)):
        own = members[starts[p] : starts[p + 1]]
        add_linear(linear, own, sums)
        pace_limit, token_limit = np.inf, np.inf
        for n in own:
            pace_limit = min(pace_limit, pace_limit_s[n])
            token_limit = min(token_limit, token_limit_s[n])
        solve_column(
            paced, aside, ranks, slo_s, base_s, own, loads[p], pace_limit, token_limit, law[p : p + 1], sums, slots, at_pace,
            waiting, out[p : p + 1],
        )  # fmt: skip


@compiled
def solve_column(
    paced: Floats, aside: Floats, ranks: Floats, slo_s: Floats, base_s: float, members: Members, load: float,
    pace_limit: float, token_limit: float, law: Records, sums: ColumnSums, slots: Records, at_pace: Records, waiting: Records,
    out: Records,
) -> None:  # fmt: skip
    """One column, whose `sums` were started; `law` and `out` hold one record."""
    lin, o, c = sums.linear, out[0], law[0]
    o.rate_req_per_s = lin[RATE] * load * c.servers
    o.adapters = lin[COUNT]
    o.base_s = c.base_s
    if lin[RATE] <= 0.0:
        return
    pace_s = find_pace(paced, aside, members, base_s, load, law, ranks, sums, slots, at_pace)
    o.pace_s = pace_s
    w, at = at_pace[0], sums.at
    o.elasticity = min(w.own_s / w.seen_s, 1.0)
    if pace_s == 0.0:
        return
    o.second_pace_s, o.escapes_per_h = 0.0, 0.0
    if lin[COUNT] > c.max_loras:
        settles_s = lin[STAY_2] / lin[STAY] * pace_s / max(1.0 - o.elasticity, 0.1)
        drop, second_s = barrier(
            paced, aside, members, base_s, load, pace_s, law, ranks, sums, slots, at_pace
        )
        o.escapes_per_h = 3600.0 / settles_s * math.exp(-drop)
        o.second_pace_s = second_s
        if o.escapes_per_h > MOST_ESCAPES:
            pace_s = second_s
            o.pace_s = pace_s
            if pace_s == 0.0:
                return
        evaluate(paced, aside, members, base_s, load, pace_s, law, ranks, sums, slots, at_pace)
    stations(paced, members, base_s, slo_s, load, pace_s, law, at_pace, sums, slots, waiting)
    late_shares(load, slo_s, sums, slots, waiting)
    q = waiting[0]
    rate = lin[RATE] * load
    o.slot_wait_chance = slots[0].chance
    o.slot_wait_s = slots[0].wait_s
    waits_s = q.gated_s
    waits_s += q.kv_chance / q.kv_rate if q.kv_rate > 0.0 else np.inf
    waits_s += q.seqs_chance / q.seqs_rate if q.seqs_rate > 0.0 else np.inf
    waits_s += q.budget_wait_s
    o.ttft_mean_s = q.ttft_plain_s + waits_s
    o.ttft_p99_s = ttft_quantile(0.01, load, len(slo_s), sums, waiting, slots)
    o.decoding = w.decoding * c.servers
    o.decoding_variance = at[NUMBER] / max(1.0 - o.elasticity, 0.05) * c.servers
    o.requests_in_system = c.servers * (w.decoding + rate * o.ttft_mean_s)
    o.running = c.servers * (w.decoding + rate * (q.ttft_plain_s - 0.5 * w.busy * pace_s))
    o.e2e_mean_s = o.requests_in_system / o.rate_req_per_s
    o.itl_mean_s = pace_s
    # Of a step with a token: long prompts beside it, and more requests than usual.
    share = min(max(0.01 / max(1.0 - w.quiet, 1e-12), 1e-9), 1.0)
    z = Z_99 if share <= 0.01 else Z_99 * (1.0 - math.sqrt(share))
    shape = w.lump_shape
    per_token_s = w.prompt_s / max(w.prompt_tokens, 1e-300)
    longest = w.lump_tokens * max(1.0 - 1.0 / (9.0 * shape) + z / (3.0 * math.sqrt(shape)), 0.0) ** 3
    prompts_s = per_token_s * max(min(longest, c.token_budget) - w.prompt_tokens, 0.0) if share < 1.0 else 0.0
    crowd_s = Z_99 * (w.token_s / lin[STAY] / load / pace_s) * math.sqrt(max(o.decoding_variance / c.servers, 0.0))
    o.itl_p99_s = pace_s + math.sqrt(prompts_s * prompts_s + crowd_s * crowd_s)
    o.kv_share = w.kv_tokens / c.kv_tokens
    o.kv_share_spread = math.sqrt(max(q.kv_spread, 0.0)) / c.kv_tokens
    o.distinct_adapters = w.active
    o.distinct_spread = math.sqrt(max(slots[0].spread, 0.0))
    o.loads_per_s, o.disk_loads_per_s = w.loads_per_s * c.servers, w.disk_loads_per_s * c.servers
    o.blocked_share, o.characteristic_s, o.slots_full = w.blocked_s, w.characteristic_s, slots[0].chance
    o.kv_wait_chance, o.seqs_wait_chance, o.budget_use = q.kv_chance, q.seqs_chance, q.budget_use
    o.late_share, o.adapter_late_share = q.late, q.adapter_late
    per_prompt_token_s = per_token_s + pace_s / max(c.token_budget, 1.0)
    o.promise_use = max(pace_s / pace_limit, per_prompt_token_s / token_limit)
    o.decode_share, o.prompt_share = (w.token_s - w.prompt_s - w.kv_s) / pace_s, w.prompt_s / pace_s
    o.kv_time_share, o.lora_share, o.past_share = w.kv_s / pace_s, w.lora_s / pace_s, w.past_s / pace_s
    o.prompt_tokens_per_step = w.prompt_tokens
    o.shortest_step_s = w.mean_s
