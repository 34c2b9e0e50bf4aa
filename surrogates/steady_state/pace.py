"""The pace: the shortest mean step time s at which a step takes no longer than s.

The number of requests in service, and with it the time of a step, follows from the pace: a request with o output tokens
stays for o s seconds (Little's law). `step(s) <= s` is what a server that keeps up satisfies; where no pace does, work
piles up and the server is overloaded. step(s) / s falls in s, but for adapter loads, which may make it rise again: then
there is a second, slower state.
"""

from __future__ import annotations

import math

import numpy as np

from surrogates.steady_state.column import Column, look_aside, look_up, pace_at, position
from surrogates.steady_state.law import PLAIN_BATCH, SMALL_BATCH
from surrogates.steady_state.slots import MOST_FEEDBACK, Demand, gate
from surrogates.steady_state.special import next_part, normal_tail, rough_gamma_tail
from surrogates.steady_state.tables import (
    ACTIVE,
    AGAIN,
    ASKS,
    BY_RANK,
    COMPANIONS,
    COUNT,
    DECODE,
    KV,
    LUMP,
    MEAN_2,
    NUMBER,
    PREFILL,
    PROMPT,
    QUIET,
    RATE,
    RISE,
    SLOT_STAY,
    SPREAD,
    STARTS,
    STAY,
    STAY_2,
)
from twin.compiled import compiled

#: What one pace means. Times of a step: `mean_s` over steps, `seen_s` over tokens; the parts of `mean_s` that are made
#: of prompts, KV reads, adapters, and of what is added past the CUDA graphs; `token_s`, all that grows with tokens, and
#: `own_s`, all that grows with the number in service. `quiet` steps have no prompt; the prompt tokens of the others are
#: Gamma (`prompt_shape`, `prompt_step_tokens`). `blocked` is the share of time that loads take.
STEP = np.dtype(
    [
        (name, np.float64)
        for name in (
            "mean_s", "seen_s", "token_s", "own_s", "prompt_s", "past_s", "kv_s", "lora_s", "decoding", "prompt_tokens",
            "kv_tokens", "busy", "quiet", "prompt_shape", "prompt_step_tokens", "loads_per_s", "disk_loads_per_s",
            "blocked", "characteristic_s",
        )
    ]
)  # fmt: skip
#: Slots that idle adapters are short of because the number of active ones varies, in standard deviations.
CACHE_SPREAD = 0.5
#: Longest pace that is looked at, as a multiple of the shortest step; points of the grid per stride; precision of
#: log(step / pace), and steps of a search at most.
LONGEST, SCAN_POINTS, PRECISION, ROUNDS = 100.0, 2, 1e-12, 60
#: A barrier this high is not climbed in any window; KV tokens, in capacities, beyond which no second state is sought.
HIGH_BARRIER, FULL_KV = 30.0, 2.0


@compiled
def _batch_exceeds(limit: float, decoding: float, spread: float, quiet: float, shape: float, scale: float) -> float:
    """P(more than `limit` tokens in a step): decoding ones are normal, prompts Gamma in 1 - quiet of the steps."""
    by_decodes = normal_tail((limit - decoding) / max(spread, 0.5))
    if decoding >= limit:
        return max(by_decodes, 1.0 - quiet)
    by_prompts = (1.0 - quiet) * rough_gamma_tail(shape, (limit - decoding) / scale)
    return by_decodes + (1.0 - by_decodes) * by_prompts


@compiled
def shared_s(alone_s: float, gap_s: float, servers: int, mps_share: float, busy: float) -> float:
    """Step time of one of some equal servers of a GPU under MPS: `twin.server.sharing`, compiled.

    Every other server is in a step with probability `busy`, independently; those that are form a closed network of a
    delay and the GPU, solved by exact mean value analysis (Reiser and Lavenberg 1980).
    """
    demand = mps_share * max(0.0, alone_s - gap_s)
    delay = alone_s - demand
    total, queue = 0.0, 0.0
    log_busy, log_idle = math.log(max(busy, 1e-12)), math.log(max(1.0 - busy, 1e-12))
    for n in range(1, servers + 1):
        response = demand * (1.0 + queue)
        cycle = delay + response
        queue = n * response / cycle
        # n - 1 of the others are in a step.
        ways = math.lgamma(servers) - math.lgamma(n) - math.lgamma(servers - n + 1.0)
        total += math.exp(ways + (n - 1) * log_busy + (servers - n) * log_idle) * cycle
    return total


@compiled
def _load_adapters(column: Column, pace_s: float) -> None:
    """Adapters loaded per second into slots and from disk, and the share of time for which they block the server."""
    lin, at, w, setting, g = column.linear, column.at, column.step[0], column.law[0], column.slots[0]
    adapters = lin[COUNT]
    w.loads_per_s, w.disk_loads_per_s, w.characteristic_s, w.blocked = 0.0, 0.0, np.inf, 0.0
    if adapters <= min(setting.max_loras, setting.max_cpu_loras):
        return
    short = CACHE_SPREAD * math.sqrt(max(g.spread, 0.0))
    equal, rank_sum = 0.0, 0.0
    for r in range(len(column.ranks)):
        rank_sum += column.ranks[r] * lin[BY_RANK + r]
        if column.ranks[r] == setting.max_lora_rank:
            equal = lin[BY_RANK + r] / adapters
    if adapters > setting.max_loras:
        w.characteristic_s, lost = look_aside(column, pace_s, setting.max_loras, short, g.active, at[STARTS])
        w.loads_per_s = max(lost, g.chance * at[STARTS]) * g.slower + g.cascades
        w.blocked = w.loads_per_s * (equal * setting.equal_load_s + (1.0 - equal) * setting.lower_load_s)
    if adapters > setting.max_cpu_loras:
        _, lost = look_aside(column, pace_s, setting.max_cpu_loras, short, g.active, at[STARTS])
        w.disk_loads_per_s = lost * g.slower
        w.blocked += w.disk_loads_per_s * (setting.disk_base_s + setting.disk_rank_s * rank_sum / adapters)


@compiled
def evaluate(column: Column, pace_s: float) -> float:
    """Fills `column.step` and `column.slots` for a pace; returns step / pace, 1 in a steady state."""
    look_up(column, pace_s)
    lin, at, w, c = column.linear, column.at, column.step[0], column.law[0]
    per_step = column.load * pace_s
    decoding, prompts, staying = lin[DECODE] * per_step, lin[PROMPT] * per_step, lin[STAY] * per_step
    tokens = decoding + prompts
    # Whole blocks: a request holds half a block more than its tokens.
    kv_tokens = lin[KV] * per_step + 0.5 * c.block_tokens * staying
    asks, asking_rate = 0.0, 0.0
    levels = len(column.slo_s)
    for j in range(levels):
        asks, asking_rate = asks + at[ASKS + j], asking_rate + at[ASKS + levels + j]
    demand = Demand(
        c.max_loras, lin[COUNT], at[ACTIVE], at[SPREAD], at[STARTS], at[AGAIN] / max(at[ACTIVE], 1e-300),
        asking_rate / max(asks, 1e-300), asks * asks / max(asking_rate, 1e-300),
        lin[STAY] / lin[RATE] * pace_s * math.sqrt(max(lin[STAY_2] / lin[MEAN_2] - 1.0, 0.0)),
        math.sqrt(min(max(pace_s / (c.base_s + c.lora_s + c.slot_s), 1.0), MOST_FEEDBACK)),
    )  # fmt: skip
    gate(demand, pace_s, column.slots)
    g = column.slots[0]
    w.decoding, w.prompt_tokens, w.kv_tokens, w.busy = decoding, prompts, kv_tokens, 1.0 - math.exp(-staying)
    # Prompt tokens of a step with prompts: Gamma with the moments of a compound Poisson number of batches.
    quiet = math.exp(at[QUIET])
    of_batch = max(at[PREFILL], 0.0) / (lin[RATE] * column.load)
    lump = min(lin[LUMP] / lin[PROMPT] + of_batch, c.token_budget)
    mean = prompts / max(1.0 - quiet, 1e-300)
    variance = (prompts * prompts + prompts * lump) / max(1.0 - quiet, 1e-300) - mean * mean
    shape = min(max(mean * mean / max(variance, 1e-9 * mean * mean), 0.05), 1e6)
    scale = mean / shape
    w.quiet, w.prompt_shape, w.prompt_step_tokens = quiet, shape, mean
    spread = math.sqrt(max(at[NUMBER], 0.0))
    small = 1.0 - _batch_exceeds(SMALL_BATCH, decoding, spread, quiet, shape, scale)
    past = _batch_exceeds(c.graph_tokens, decoding, spread, quiet, shape, scale)
    over = max(0.0, tokens - c.graph_tokens)
    if decoding < c.graph_tokens:
        # E[(X - d)+] of a Gamma X.
        d = c.graph_tokens - decoding
        excess = rough_gamma_tail(shape + 1.0, d / scale) * mean - rough_gamma_tail(shape, d / scale) * d
        over = max(over, (1.0 - quiet) * excess)
    # P(an adapter in the step), as tokens see it: those of adapters are never in a step without one.
    of_adapters = lin[SLOT_STAY] / lin[STAY]
    in_slots = of_adapters + (1.0 - of_adapters) * (1.0 - math.exp(-lin[SLOT_STAY] * per_step))
    token_s = in_slots * (c.slot_token_s + c.lora_token_s) + g.active * c.adapter_token_s
    adapter_s = c.adapter_s + c.adapter_small_s * small + c.adapter_large_s * past
    fixed_lora_s = in_slots * (c.lora_s + c.slot_s) + g.active * adapter_s
    w.kv_s = c.kv_s * kv_tokens
    w.prompt_s = (c.prompt_s + token_s) * prompts
    w.past_s = c.cliff_s * past + c.past_graph_s * over
    if c.plain_large_s > 0.0 and in_slots < 1.0:
        large = _batch_exceeds(PLAIN_BATCH, decoding, spread, quiet, shape, scale)
        w.past_s += (1.0 - in_slots) * c.plain_large_s * large
    w.lora_s = fixed_lora_s + token_s * tokens
    w.token_s = (c.seq_s + token_s) * decoding + w.kv_s + w.prompt_s
    w.mean_s = c.base_s + fixed_lora_s + w.past_s + w.token_s
    # E[step x number] / E[number]: a request sees itself and those that came with it, beyond the mean.
    w.own_s = w.token_s + adapter_s * at[RISE] * g.spread / max(at[SPREAD], 1e-300)
    w.seen_s = w.mean_s + (w.own_s + w.token_s * at[COMPANIONS] / staying) / staying
    if c.servers > 1.0:
        gap_s = min(c.gap_base_s + c.gap_seq_s * decoding, w.seen_s)
        longer = shared_s(w.seen_s, gap_s, int(c.servers), c.mps_share, w.busy) / w.seen_s
        w.mean_s, w.seen_s, w.own_s, w.token_s = (
            w.mean_s * longer,
            w.seen_s * longer,
            w.own_s * longer,
            w.token_s * longer,
        )
        w.prompt_s, w.kv_s, w.lora_s, w.past_s = (
            w.prompt_s * longer,
            w.kv_s * longer,
            w.lora_s * longer,
            w.past_s * longer,
        )
    _load_adapters(column, pace_s)
    return float(w.seen_s / pace_s + w.blocked)


@compiled
def find_pace(column: Column) -> float:
    """The shortest pace with step / pace <= 1, s; 0 if there is none up to `LONGEST` shortest steps.

    Points of the grid from the shortest step upwards, then the root in the cell.
    """
    shortest = column.law[0].base_s
    # A step is longer than the shortest one: at the first point step / pace is above 1, whatever it is.
    first = math.floor(position(column, shortest))
    last, point = math.ceil(position(column, LONGEST * shortest)), first
    before, high = np.nan, 1.0
    while high > 0.0:
        if point >= last:
            return 0.0
        before = high if point > first else np.nan
        point += SCAN_POINTS
        high = math.log(evaluate(column, pace_at(column, point)))
    middle = math.log(evaluate(column, pace_at(column, point - 1)))
    if middle > 0.0:
        return _root(column, pace_at(column, point - 1), middle, pace_at(column, point), high)
    if math.isnan(before):
        before = math.log(evaluate(column, pace_at(column, point - SCAN_POINTS)))
        if before <= 0.0:
            return pace_at(column, point - SCAN_POINTS)
    return _root(column, pace_at(column, point - SCAN_POINTS), before, pace_at(column, point - 1), middle)


@compiled
def _root(column: Column, low_s: float, low: float, high_s: float, high: float) -> float:
    """Where log(step / pace) is 0 between two paces, `low` > 0 >= `high`.

    Secants, then parabolas through three points where these are monotone, else halvings (T. R. Chandrupatla, "A new
    hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function", 1997).
    """
    a, b, pace_s = math.log(low_s), math.log(high_s), high_s
    of_a, of_b = low, high
    part = of_a / (of_a - of_b)
    for _ in range(ROUNDS):
        x = a + part * (b - a)
        pace_s = math.exp(x)
        value = math.log(evaluate(column, pace_s))
        if abs(value) < PRECISION or abs(b - a) < PRECISION:
            break
        # The root lies between a, the point found last, and b; c is the one that was left.
        if (value > 0.0) == (of_a > 0.0):
            c, of_c = a, of_a
        else:
            c, b, of_c, of_b = b, a, of_b, of_a
        a, of_a = x, value
        part = next_part(a, of_a, b, of_b, c, of_c)
    return pace_s


@compiled
def barrier(column: Column, pace_s: float) -> tuple[float, float]:
    """How well the state at a pace is kept from a slower one: the barrier, and the pace of the slower state, s.

    The number n in service is a birth-death process with n(s) = rate x stay x s: births at the rate of the requests,
    deaths as fast as steps are made at n. Its stationary distribution is p(n) ~ exp(sum of log(births / deaths)), and
    births / deaths is step / pace at the pace s(n). Above the pace it is below 1; where loads drive it above 1 again
    lies the top of the barrier, and behind it a second state. Bursts make n diffuse faster, by the variance factor f.
    Returns the drop of log p to the top (inf: there is none, or it is too high), and the pace behind it (0: none, the
    server is overloaded there).
    """
    last = math.ceil(position(column, LONGEST * column.law[0].base_s))
    point = math.floor(position(column, pace_s)) + 1
    before_s, before, drop = pace_s, 0.0, 0.0
    climbing = True
    while point <= last:
        here_s = pace_at(column, point)
        here = math.log(evaluate(column, here_s))
        if climbing:
            part = 1.0 if here <= 0.0 else -before / max(here - before, 1e-12)
            per_step = column.linear[STAY] * column.load
            per_s = per_step * per_step * here_s / max(column.at[NUMBER], 1e-12)
            drop -= 0.5 * (before + min(here, 0.0)) * (here_s - before_s) * part * per_s
            climbing = here <= 0.0
            if drop > HIGH_BARRIER or (climbing and column.step[0].kv_tokens > FULL_KV * column.law[0].kv_tokens):
                return np.inf, 0.0
        elif here <= 0.0:
            return drop, _root(column, before_s, before, here_s, here)
        before_s, before = here_s, here
        point += 1
    return (np.inf, 0.0) if climbing else (drop, 0.0)
