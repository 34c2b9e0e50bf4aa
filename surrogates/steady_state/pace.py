"""The pace: the shortest mean step time s at which a step takes no longer than s.

The number of requests in service, and with it the time of a step, follows from the pace: a request with o output tokens
stays for o s seconds (Little's law). `step(s) <= s` is what a server that keeps up satisfies; where no pace does, work
piles up and the server is overloaded. step(s) / s falls in s, but for adapter loads.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.law import SMALL_BATCH
from surrogates.steady_state.slots import gate
from surrogates.steady_state.special import normal_tail, rough_gamma_tail
from surrogates.steady_state.sums import ColumnSums, look_aside, look_up, position
from surrogates.steady_state.tables import (
    ACTIVE,
    AGAIN,
    BELOW,
    BY_RANK,
    CELLS,
    COMPANIONS,
    COUNT,
    DECODE,
    KV,
    LUMP,
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
)
from twin.compiled import compiled

Floats = NDArray[np.float64]
Members = NDArray[np.int64]
Records = NDArray[np.void]

#: Quantities at one pace; `use` is step / pace. Times of a step: `mean_s` over steps, `seen_s` over tokens, `token_s`
#: the part that grows with the tokens, `own_s` the part that grows with the number in service, `prompt_s` of prompts.
AT_PACE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "use", "mean_s", "seen_s", "token_s", "own_s", "prompt_s", "past_s", "kv_s", "lora_s", "decoding",
            "prompt_tokens", "kv_tokens", "active", "quiet", "lump_shape", "lump_tokens", "busy", "loads_per_s",
            "disk_loads_per_s", "blocked_s", "characteristic_s",
        )
    ]
)  # fmt: skip
#: Spread of the active adapters, in standard deviations, that slots for idle ones are short of on average.
CACHE_SPREAD = 0.5
#: Longest pace that is looked at, as a multiple of the shortest step; points of the grid per stride; precision.
LONGEST, SCAN_POINTS, PRECISION, ROUNDS = 100.0, 2, 1e-12, 60


@compiled
def _batch_exceeds(limit: float, decoding: float, spread: float, quiet: float, shape: float, scale: float) -> float:
    """P(more than `limit` tokens in a step): decoding requests (normal), and prompts in 1 - quiet of the steps (Gamma)."""
    by_decodes = normal_tail((limit - decoding) / max(spread, 0.5))
    if decoding >= limit:
        return max(by_decodes, 1.0 - quiet)
    by_prompts = (1.0 - quiet) * rough_gamma_tail(shape, (limit - decoding) / scale)
    return by_decodes + (1.0 - by_decodes) * by_prompts


@compiled
def shared_s(alone_s: float, gap_s: float, servers: int, mps_share: float, busy: float) -> float:
    """Step time of one of some equal servers of a GPU: `twin.server.sharing`, under MPS.

    Every other server is in a step with probability `busy`, independently; those that are form a closed network of a
    delay and the GPU, solved by exact mean value analysis (Reiser and Lavenberg 1980).
    """
    kernels = max(0.0, alone_s - gap_s)
    demand = mps_share * kernels
    delay = alone_s - demand
    total, queue = 0.0, 0.0
    for n in range(1, servers + 1):
        response = demand * (1.0 + queue)
        cycle = delay + response
        queue = n * response / cycle
        # n - 1 of the others are busy.
        chance = math.exp(
            math.lgamma(servers) - math.lgamma(n) - math.lgamma(servers - n + 1.0)
            + (n - 1) * math.log(max(busy, 1e-12)) + (servers - n) * math.log(max(1.0 - busy, 1e-12))
        )  # fmt: skip
        total += chance * cycle
    return total


@compiled
def _loads(
    aside: Floats, members: Members, base_s: float, load: float, pace_s: float, law: Records, ranks: Floats,
    sums: ColumnSums, slots: Records, out: Records,
) -> None:  # fmt: skip
    """Adapters loaded per second, and the share of the time in which loads block the server."""
    lin, at, w, setting, g = sums.linear, sums.at, out[0], law[0], slots[0]
    adapters = lin[COUNT]
    w.loads_per_s, w.disk_loads_per_s, w.characteristic_s = 0.0, 0.0, np.inf
    deviation = math.sqrt(max(g.spread, 0.0))
    if adapters > setting.max_loras:
        w.characteristic_s, lost = look_aside(
            aside, members, base_s, load, pace_s, setting.max_loras, CACHE_SPREAD * deviation, g.active, at[STARTS],
            sums,
        )  # fmt: skip
        lost = max(lost, g.chance * at[STARTS]) * g.slower
        w.loads_per_s = lost + g.cascades
    equal, rank_sum = 0.0, 0.0
    for r in range(len(ranks)):
        rank_sum += ranks[r] * lin[BY_RANK + r]
        if ranks[r] == setting.max_lora_rank:
            equal = lin[BY_RANK + r] / adapters
    load_s = equal * setting.equal_load_s + (1.0 - equal) * setting.lower_load_s
    w.blocked_s = w.loads_per_s * load_s
    if adapters > setting.max_cpu_loras:
        _, w.disk_loads_per_s = look_aside(
            aside, members, base_s, load, pace_s, setting.max_cpu_loras, CACHE_SPREAD * deviation, g.active, at[STARTS],
            sums,
        )  # fmt: skip
        w.disk_loads_per_s *= g.slower
        w.blocked_s += w.disk_loads_per_s * (setting.disk_base_s + setting.disk_rank_s * rank_sum / adapters)


@compiled
def evaluate(
    paced: Floats, aside: Floats, members: Members, base_s: float, load: float, pace_s: float, law: Records,
    ranks: Floats, sums: ColumnSums, slots: Records, out: Records,
) -> float:  # fmt: skip
    """Fills `out[0]` (AT_PACE) for a pace; returns step / pace. `law` holds one record."""
    look_up(paced, members, base_s, load, pace_s, sums)
    lin, at, w, c = sums.linear, sums.at, out[0], law[0]
    per_step = load * pace_s
    decoding, prompts = lin[DECODE] * per_step, lin[PROMPT] * per_step
    tokens, staying = decoding + prompts, lin[STAY] * per_step
    kv_tokens = lin[KV] * per_step + 0.5 * c.block_tokens * staying
    limit = c.max_loras if lin[COUNT] > c.max_loras else np.inf
    gate(limit, lin[COUNT], at[ACTIVE], at[SPREAD], at[STARTS], at[AGAIN], pace_s, slots)
    active = slots[0].active
    w.decoding, w.prompt_tokens, w.kv_tokens, w.active = decoding, prompts, kv_tokens, active
    w.busy = 1.0 - math.exp(-staying)
    # Prompt tokens of a step in which a prompt arrived: Gamma with the moments of a compound Poisson number.
    quiet = math.exp(at[QUIET])
    of_burst = max(at[PREFILL], 0.0) / (lin[RATE] * load)
    lump = min(lin[LUMP] / lin[PROMPT] + of_burst, c.token_budget)
    mean = prompts / max(1.0 - quiet, 1e-300)
    variance = (prompts * prompts + prompts * lump) / max(1.0 - quiet, 1e-300) - mean * mean
    shape = min(max(mean * mean / max(variance, 1e-9 * mean * mean), 0.05), 1e6)
    scale = mean / shape
    w.quiet, w.lump_shape, w.lump_tokens = quiet, shape, mean
    spread = math.sqrt(max(at[NUMBER], 0.0))
    small = 1.0 - _batch_exceeds(SMALL_BATCH, decoding, spread, quiet, shape, scale)
    past = _batch_exceeds(c.graph_tokens, decoding, spread, quiet, shape, scale)
    over = max(0.0, tokens - c.graph_tokens)
    if decoding < c.graph_tokens:
        d = c.graph_tokens - decoding
        tail = rough_gamma_tail(shape + 1.0, d / scale) * mean - rough_gamma_tail(shape, d / scale) * d
        over = max(over, (1.0 - quiet) * tail)
    # As tokens see it: those of adapters are never in a step without one.
    gated = lin[SLOT_STAY] / lin[STAY]
    in_slots = gated + (1.0 - gated) * (1.0 - math.exp(-lin[SLOT_STAY] * per_step))
    of_token = in_slots * (c.slot_token_s + c.lora_token_s) + active * c.adapter_token_s
    of_adapter = c.adapter_s + c.adapter_small_s * small + c.adapter_large_s * past
    w.prompt_s = (c.prompt_s + of_token) * prompts
    w.past_s = c.cliff_s * past + c.past_graph_s * over
    w.kv_s = c.kv_s * kv_tokens
    w.lora_s = in_slots * (c.lora_s + c.slot_s) + active * of_adapter + of_token * tokens
    decode_s = (c.seq_s + of_token) * decoding + w.kv_s
    w.token_s = decode_s + w.prompt_s
    fixed_s = c.base_s + in_slots * (c.lora_s + c.slot_s) + active * of_adapter + w.past_s
    w.mean_s = fixed_s + w.token_s
    # A request sees itself and those that came with it, beyond the mean: E[step x decoding] / E[decoding].
    w.own_s = w.token_s + of_adapter * at[RISE] * slots[0].spread / max(at[SPREAD], 1e-300)
    w.seen_s = w.mean_s + (w.own_s + w.token_s * at[COMPANIONS] / staying) / staying
    if c.servers > 1.0:
        gap = c.gap_base_s + c.gap_seq_s * decoding
        stretch = shared_s(w.seen_s, min(gap, w.seen_s), int(c.servers), c.mps_share, w.busy) / w.seen_s
        w.mean_s *= stretch
        w.seen_s *= stretch
        w.own_s *= stretch
    w.blocked_s = 0.0
    if lin[COUNT] > 0.0:
        _loads(aside, members, base_s, load, pace_s, law, ranks, sums, slots, out)
    w.use = w.seen_s / pace_s + w.blocked_s
    return w.use


@compiled
def find_pace(
    paced: Floats, aside: Floats, members: Members, base_s: float, load: float, law: Records, ranks: Floats,
    sums: ColumnSums, slots: Records, out: Records,
) -> float:  # fmt: skip
    """The pace in seconds; 0 if there is none up to `LONGEST` shortest steps. `out` is filled for the pace.

    Points of the grid from the shortest step upwards, then the root of log(use) in the cell (regula falsi with the
    Illinois rule).
    """
    shortest = law[0].base_s
    first = math.floor(position(load * shortest, base_s))
    last = math.ceil(position(load * LONGEST * shortest, base_s))
    found = first
    point = first
    high = np.inf
    while True:
        pace_s = base_s * 2.0 ** (point / CELLS - BELOW) / load
        high = math.log(evaluate(paced, aside, members, base_s, load, pace_s, law, ranks, sums, slots, out))
        if high <= 0.0:
            found = point
            break
        if point >= last:
            return 0.0
        point += SCAN_POINTS
    low_s, low = 0.0, 0.0
    for _ in range(SCAN_POINTS):
        low_s = base_s * 2.0 ** ((found - 1) / CELLS - BELOW) / load
        low = math.log(evaluate(paced, aside, members, base_s, load, low_s, law, ranks, sums, slots, out))
        if low > 0.0:
            break
        found, high = found - 1, low
    return _root(paced, aside, members, base_s, load, law, ranks, sums, slots, out, low_s, low, found, high)


@compiled
def barrier(
    paced: Floats, aside: Floats, members: Members, base_s: float, load: float, pace_s: float, law: Records,
    ranks: Floats, sums: ColumnSums, slots: Records, out: Records,
) -> tuple[float, float]:  # fmt: skip
    """How well the state at a pace is kept from a slower one: the barrier, and the pace of the slower state, s.

    The number n in service is a birth-death process: n(s) = rate x stay x s, births at the rate of the requests, deaths
    as fast as steps are made at n. Its stationary distribution is p(n) ~ exp(sum of log(births / deaths)), and births /
    deaths is the `use` at the pace s(n). Above the pace it is below 1; where loads drive it above 1 again lies the top
    of the barrier, and behind it a second state. Bursts make n diffuse faster, by the variance factor f. Returns the
    drop of -log p to the top (inf: there is none), and the pace behind it (0: none, the server is overloaded).
    """
    last = math.ceil(position(load * LONGEST * law[0].base_s, base_s))
    point = math.floor(position(load * pace_s, base_s)) + 1
    before_s, before, drop = pace_s, 0.0, 0.0
    climbing = True
    while point <= last:
        here_s = base_s * 2.0 ** (point / CELLS - BELOW) / load
        here = math.log(evaluate(paced, aside, members, base_s, load, here_s, law, ranks, sums, slots, out))
        if climbing:
            part = 1.0 if here <= 0.0 else -before / max(here - before, 1e-12)
            per_s = sums.linear[STAY] * load * sums.linear[STAY] * load * here_s / max(sums.at[NUMBER], 1e-12)
            drop -= 0.5 * (before + min(here, 0.0)) * (here_s - before_s) * part * per_s
            climbing = here <= 0.0
            if climbing and out[0].kv_tokens > 2.0 * law[0].kv_tokens:
                return np.inf, 0.0
        elif here <= 0.0:
            return drop, _root(
                paced, aside, members, base_s, load, law, ranks, sums, slots, out, before_s, before, point, here
            )
        before_s, before = here_s, here
        point += 1
    return (np.inf, 0.0) if climbing else (drop, 0.0)


@compiled
def _root(
    paced: Floats, aside: Floats, members: Members, base_s: float, load: float, law: Records, ranks: Floats,
    sums: ColumnSums, slots: Records, out: Records, low_s: float, low: float, found: int, high: float,
) -> float:  # fmt: skip
    high_s = base_s * 2.0 ** (found / CELLS - BELOW) / load
    a, b, pace_s = math.log(low_s), math.log(high_s), high_s
    side = 0
    for _ in range(ROUNDS):
        c = (a * high - b * low) / (high - low)
        pace_s = math.exp(c)
        value = math.log(evaluate(paced, aside, members, base_s, load, pace_s, law, ranks, sums, slots, out))
        if abs(value) < PRECISION or b - a < PRECISION:
            break
        if value > 0.0:
            a, low = c, value
            if side == 1:
                high *= 0.5
            side = 1
        else:
            b, high = c, value
            if side == -1:
                low *= 0.5
            side = -1
    return pace_s
