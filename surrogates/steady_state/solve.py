"""The compiled loop over columns: the pace, then what follows from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from surrogates.steady_state.column import Column, Flags, Floats, Members, Records, sum_linear
from surrogates.steady_state.pace import barrier, evaluate, find_pace
from surrogates.steady_state.special import normal_quantile
from surrogates.steady_state.tables import BURST, BY_RANK, COUNT, NUMBER, RATE, SQUARE, STAY, STAY_2
from surrogates.steady_state.waiting import Z_99, gamma_quantile, late_shares, stations, ttft_quantile
from twin.compiled import compiled

#: Why a column is not healthy, or what comes nearest to making it so.
COMPUTE, KV_CACHE, SLOTS, SEQS, BUDGET, PROMISE, MEMORY, RANK = range(8)
LIMITS = (
    "compute", "kv_cache", "adapter_slots", "max_num_seqs", "token_budget", "promise", "memory", "max_lora_rank"
)  # fmt: skip
#: Steady state of one column, in the order of `surrogates.steady_state.state.SteadyState`.
STATE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "rate_req_per_s", "adapters", "pace_s", "requests_in_system", "running", "decoding", "ttft_mean_s",
            "ttft_p99_s", "itl_mean_s", "itl_p99_s", "e2e_mean_s", "kv_share", "kv_share_spread", "distinct_adapters",
            "distinct_spread", "loads_per_s", "disk_loads_per_s", "blocked_share", "cached_for_s", "slots_full",
            "slot_wait_s", "kv_wait_chance", "seqs_use", "budget_use", "late_share", "adapter_late_share",
            "promise_use", "elasticity", "decoding_variance", "decode_share", "kv_read_share", "prompt_share",
            "lora_share", "past_graph_share", "prompt_tokens_per_step", "second_pace_s", "escapes_per_h", "arrival_cv",
            "effective_adapters", "stay_steps", "base_s", "max_loras", "ttft_slo_s", "limit", "healthy",
        )
    ]
)  # fmt: skip
#: A state that is left more often than this per hour is not the one that an hour shows.
MOST_ESCAPES = 0.5
#: Share of late requests from which on their place is named; below it the time of a step is what limits a column.
NOTICED = 1e-6
#: Rule `published`. Beyond this mean share of the KV cache preemptions cost more throughput than further requests bring
#: (measured: without it the rule's boundary lies 5 % too high wherever the KV cache binds). A mean wait for slots of a
#: tenth of the hour leaves a tenth of the requests unserved, and so do waits of a quarter of an hour where adapters
#: that are always busy ask for slots (36 of 0.8 req/s on 8 slots wait 1,250 s; the twin serves 89 %).
THRASHING_KV, UNSERVED_S, LONGEST_WAIT_S = 0.87, 360.0, 900.0
#: Loads among which the largest is sought, times the pivot of the tables; steps up, then halvings.
LEAST_LOAD, MOST_LOAD, LOAD_STEP, LOAD_HALVINGS = 2.0**-12, 2.0**12, 1.5, 20


class Judge(NamedTuple):
    """What is healthy: most late requests, and of an adapter on average; or, `published`, that 90 % are served."""

    late: float
    adapter_late: float
    published: bool


class Source(NamedTuple):
    """What columns are made of: the arrays of `Tables`."""

    linear: Floats
    paced: Floats
    aside: Floats
    ranks: Floats
    slo_s: Floats
    base_s: float
    pace_limit_s: Floats
    token_limit_s: Floats


class Room(NamedTuple):
    """Room for one column, and for the one that it differs from: the arrays of `Column` that are filled."""

    linear: Floats
    paced: Floats
    aside: Floats
    known: Flags
    aside_known: Flags
    at: Floats
    slots: Records
    step: Records
    waiting: Records
    nobody: Members
    base_linear: Floats
    base_paced: Floats
    base_aside: Floats
    base_known: Flags
    base_aside_known: Flags


@compiled
def solve_groups(
    source: Source, members: Members, starts: Members, loads: Floats, law: Records, judge: Judge, room: Room,
    out: Records,
) -> None:  # fmt: skip
    """Fills `out` (P,) for columns whose adapters are `members[starts[p]:starts[p + 1]]`; loads, law: (P,)."""
    for p in range(len(out)):
        own = members[starts[p] : starts[p + 1]]
        pace_limit_s, token_limit_s = limits_of(source, own)
        column = started(source, own, loads[p], law[p : p + 1], room)
        solve(column, pace_limit_s, token_limit_s, judge, out[p : p + 1])


@compiled
def started(source: Source, members: Members, load: float, law: Records, room: Room) -> Column:
    """A column of which no pace has been looked up."""
    sum_linear(source.linear, members, room.linear)
    room.known[:] = False
    room.aside_known[:, :] = False
    return Column(
        source.paced, source.aside, source.ranks, source.slo_s, source.base_s, members, room.linear, room.paced,
        room.aside, room.known, room.aside_known, room.at, law, load, room.slots, room.step, room.waiting, False, -1,
        -1, room.base_paced, room.base_aside, room.base_known, room.base_aside_known,
    )  # fmt: skip


@compiled
def solve_exchanges(
    source: Source, members: Members, leave: Members, enter: Members, load: float, law: Records, judge: Judge,
    room: Room, out: Records,
) -> None:  # fmt: skip
    """Fills `out` (P,) for columns that hold `members` without `leave` and with `enter`, (P,) each, -1 = none."""
    room.base_known[:] = False
    room.base_aside_known[:, :] = False
    sum_linear(source.linear, members, room.base_linear)
    for p in range(len(out)):
        gone, new = leave[p], enter[p]
        pace_limit_s, token_limit_s = np.inf, np.inf
        for n in members:
            if n != gone:
                pace_limit_s = min(pace_limit_s, source.pace_limit_s[n])
                token_limit_s = min(token_limit_s, source.token_limit_s[n])
        for c in range(len(room.linear)):
            room.linear[c] = room.base_linear[c]
            if gone >= 0:
                room.linear[c] -= source.linear[gone, c]
            if new >= 0:
                room.linear[c] += source.linear[new, c]
        if new >= 0:
            pace_limit_s = min(pace_limit_s, source.pace_limit_s[new])
            token_limit_s = min(token_limit_s, source.token_limit_s[new])
        room.known[:] = False
        room.aside_known[:, :] = False
        column = Column(
            source.paced, source.aside, source.ranks, source.slo_s, source.base_s, members, room.linear, room.paced,
            room.aside, room.known, room.aside_known, room.at, law[p : p + 1], load, room.slots, room.step,
            room.waiting, True, gone, new, room.base_paced, room.base_aside, room.base_known, room.base_aside_known,
        )  # fmt: skip
        solve(column, pace_limit_s, token_limit_s, judge, out[p : p + 1])


@compiled
def limits_of(source: Source, members: Members) -> tuple[float, float]:
    """Longest pace and time per prompt token that promises of the members allow, s."""
    pace_s, token_s = np.inf, np.inf
    for n in members:
        pace_s, token_s = min(pace_s, source.pace_limit_s[n]), min(token_s, source.token_limit_s[n])
    return pace_s, token_s


@compiled
def solve_sums(
    source: Source, linear: Floats, paced: Floats, aside: Floats, loads: Floats, pace_limits_s: Floats,
    token_limits_s: Floats, law: Records, judge: Judge, room: Room, out: Records,
) -> None:  # fmt: skip
    """The same for columns given as sums of rows, (P, L), (P, G, C) and (P, G / STRIDE, TIMES, 2)."""
    room.known[:] = True
    room.aside_known[:, :] = True
    nobody = room.nobody
    for p in range(len(out)):
        column = Column(
            source.paced, source.aside, source.ranks, source.slo_s, source.base_s, nobody, linear[p], paced[p],
            aside[p], room.known, room.aside_known, room.at, law[p : p + 1], loads[p], room.slots, room.step,
            room.waiting, False, -1, -1, room.base_paced, room.base_aside, room.base_known, room.base_aside_known,
        )  # fmt: skip
        solve(column, pace_limits_s[p], token_limits_s[p], judge, out[p : p + 1])


@compiled
def solve(column: Column, pace_limit_s: float, token_limit_s: float, judge: Judge, out: Records) -> None:
    """One column; `out` holds one record."""
    lin, o, c, w = column.linear, out[0], column.law[0], column.step[0]
    o.rate_req_per_s, o.adapters = lin[RATE] * column.load * c.servers, lin[COUNT]
    o.base_s, o.max_loras, o.ttft_slo_s = c.base_s, c.max_loras, column.slo_s[0] if len(column.slo_s) else np.inf
    o.healthy, o.limit = 0.0, COMPUTE
    if lin[RATE] <= 0.0:
        o.healthy = 1.0
        return
    for r in range(len(column.ranks)):
        if column.ranks[r] > c.max_lora_rank and lin[BY_RANK + r] > 0.5:
            o.limit = RANK
            return
    if c.starts < 1.0:
        o.limit = MEMORY
        return
    pace_s = find_pace(column)
    if pace_s == 0.0:
        return
    o.second_pace_s, o.escapes_per_h = 0.0, 0.0
    if lin[COUNT] > c.max_loras:
        settles_s = lin[STAY_2] / lin[STAY] * pace_s / max(1.0 - w.own_s / w.seen_s, 0.1)
        drop, second_s = barrier(column, pace_s)
        o.escapes_per_h, o.second_pace_s = 3600.0 / settles_s * math.exp(-drop), second_s
        if o.escapes_per_h > MOST_ESCAPES:
            pace_s = second_s
            if pace_s == 0.0:
                o.limit = SLOTS
                return
        evaluate(column, pace_s)
    o.pace_s = pace_s
    stations(column, pace_s)
    late_shares(column)
    _describe(column, pace_s, out)
    token_s = w.prompt_s / max(w.prompt_tokens, 1e-300) + pace_s / c.token_budget
    o.promise_use = max(pace_s / pace_limit_s, token_s / token_limit_s)
    _judge(column, judge, out)


@compiled
def _describe(column: Column, pace_s: float, out: Records) -> None:
    """Means, spreads and shares of a column whose pace and waits are known."""
    lin, o, c = column.linear, out[0], column.law[0]
    w, q, g = column.step[0], column.waiting[0], column.slots[0]
    rate = lin[RATE] * column.load
    waits_s = q.slot_wait_s + q.budget_wait_s
    waits_s += q.kv_chance / q.kv_rate if q.kv_rate > 0.0 else np.inf
    waits_s += q.seqs_chance / q.seqs_rate if q.seqs_rate > 0.0 else np.inf
    o.ttft_mean_s, o.ttft_p99_s = q.plain_s + waits_s, ttft_quantile(column, 0.01)
    o.decoding = w.decoding * c.servers
    o.elasticity = min(w.own_s / w.seen_s, 1.0)
    o.decoding_variance = column.at[NUMBER] * q.feedback * c.servers
    o.requests_in_system = c.servers * (w.decoding + rate * o.ttft_mean_s)
    o.running = c.servers * (w.decoding + rate * (q.plain_s - 0.5 * w.busy * pace_s))
    o.e2e_mean_s = o.requests_in_system / o.rate_req_per_s
    o.itl_mean_s = pace_s
    # The slowest percent of the steps that tokens are made in: long prompts beside them, more requests than usual.
    with_prompts = max(1.0 - w.quiet, 1e-12)
    prompts_s = 0.0
    if with_prompts > 0.01:
        among = gamma_quantile(w.prompt_shape, normal_quantile(0.01 / with_prompts))
        tokens = min(w.prompt_step_tokens * among, c.token_budget)
        prompts_s = w.prompt_s / max(w.prompt_tokens, 1e-300) * max(tokens - w.prompt_tokens, 0.0)
    spread_s = Z_99 * w.token_s / (lin[STAY] * column.load * pace_s) * math.sqrt(column.at[NUMBER] * q.feedback)
    loads = w.loads_per_s * pace_s
    loading_s = 0.0
    if loads > 0.01:
        # 99 % of a Poisson number; loads that come in cascades are not told apart.
        most = max(loads + Z_99 * math.sqrt(loads), 1.0)
        loading_s = w.blocked * pace_s * (most / loads - 1.0)
    o.itl_p99_s = pace_s + math.sqrt(prompts_s * prompts_s + spread_s * spread_s + loading_s * loading_s)
    o.kv_share, o.kv_share_spread = w.kv_tokens / c.kv_tokens, math.sqrt(max(q.kv_variance, 0.0)) / c.kv_tokens
    o.distinct_adapters, o.distinct_spread = g.active, math.sqrt(max(g.spread, 0.0))
    o.loads_per_s, o.disk_loads_per_s = w.loads_per_s * c.servers, w.disk_loads_per_s * c.servers
    o.blocked_share, o.cached_for_s, o.slots_full, o.slot_wait_s = w.blocked, w.characteristic_s, g.chance, g.wait_s
    o.kv_wait_chance, o.seqs_use, o.budget_use = (
        q.kv_chance,
        lin[STAY] * column.load * pace_s / c.max_num_seqs,
        q.budget_use,
    )
    o.late_share, o.adapter_late_share = q.late, q.adapter_late
    o.prompt_share, o.kv_read_share, o.lora_share = w.prompt_s / pace_s, w.kv_s / pace_s, w.lora_s / pace_s
    o.decode_share, o.past_graph_share = (w.token_s - w.prompt_s - w.kv_s) / pace_s, w.past_s / pace_s
    o.prompt_tokens_per_step = w.prompt_tokens
    o.arrival_cv, o.stay_steps = math.sqrt(lin[BURST] / lin[RATE]), lin[STAY] / lin[RATE]
    o.effective_adapters = lin[STAY] * lin[STAY] / lin[SQUARE]


@compiled
def _judge(column: Column, judge: Judge, out: Records) -> None:
    """Whether the column is healthy, and what limits it: where most of the late requests wait."""
    o, q, g = out[0], column.waiting[0], column.slots[0]
    keeps_up = q.kv_rate > 0.0 and q.seqs_rate > 0.0 and q.budget_use < 1.0
    if judge.published:
        full = o.kv_share > THRASHING_KV or q.slot_wait_s > UNSERVED_S or g.wait_s > LONGEST_WAIT_S
        o.healthy = 1.0 if keeps_up and not full else 0.0
    else:
        in_time = o.late_share <= judge.late and o.adapter_late_share <= judge.adapter_late and o.promise_use <= 1.0
        o.healthy = 1.0 if keeps_up and in_time else 0.0
    time_s = max(column.slo_s[0] - q.plain_s, 0.0)
    kv = q.kv_chance * math.exp(-max(q.kv_rate, 0.0) * time_s)
    seqs = q.seqs_chance * math.exp(-max(q.seqs_rate, 0.0) * time_s)
    budget = q.budget_chance * math.exp(-max(q.budget_rate, 0.0) * time_s)
    most = max(kv, seqs, budget)
    if most > NOTICED:
        o.limit = KV_CACHE if kv == most else SEQS if seqs == most else BUDGET
    if g.chance > 0.0 and o.late_share - most > max(most, NOTICED):
        o.limit = SLOTS
    if o.promise_use > 1.0:
        o.limit = PROMISE


@compiled
def largest_loads(
    source: Source, members: Members, starts: Members, law: Records, judge: Judge, room: Room, state: Records,
    out: Floats,
) -> None:  # fmt: skip
    """Largest factor on all rates with which each column is healthy, (P,); NaN where none is.

    Upwards from a light load in steps of `LOAD_STEP` to the first one that is not healthy, then by bisection. `state`
    has room for one record.
    """
    for p in range(len(out)):
        own = members[starts[p] : starts[p + 1]]
        pace_limit_s, token_limit_s = limits_of(source, own)
        low, high = 0.0, LEAST_LOAD
        while high <= MOST_LOAD:
            column = started(source, own, high, law[p : p + 1], room)
            solve(column, pace_limit_s, token_limit_s, judge, state)
            if state[0].healthy < 1.0:
                break
            low, high = high, high * LOAD_STEP
        if low == 0.0:
            out[p] = np.nan
            continue
        for _ in range(LOAD_HALVINGS):
            middle = math.sqrt(low * high)
            column = started(source, own, middle, law[p : p + 1], room)
            solve(column, pace_limit_s, token_limit_s, judge, state)
            if state[0].healthy < 1.0:
                high = middle
            else:
                low = middle
        out[p] = low
