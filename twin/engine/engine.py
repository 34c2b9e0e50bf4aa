"""The engine loop: vLLM V1's scheduler, KV cache and adapter slots, one step at a time.

A step is: enqueue arrivals; schedule the running requests (decodes, then the one partial prefill), preempting
from the end of the list where KV blocks run out; admit waiting requests past the LoRA gate while token budget,
`max_num_seqs` and blocks last; load adapters; let the clock run for the law's step time; hand out tokens.

Nothing in a step looks at every request. All decoding requests advance together, so that finish times are known
on admission (buckets by step), block needs are counted by residue class, and waiting requests sit in one list per
adapter. A step without events costs a few additions.

`advance` runs an engine up to a time and may be called again: all state lies in the arrays of an `EngineState`
(`twin.engine.engine` makes one). With async scheduling a step is scheduled while the one before it runs: a request
whose last token is in flight is not scheduled any more and does not count at the LoRA gate, but holds its KV blocks and
its place until that step's output is processed, one schedule later.

Rules: vLLM V1 (docs/twin.md lists them, docs/scheduler.md how they are tested against vLLM's own code). State
changes at one point of a step each. The helpers live in this file because numba's on-disk cache watches the file
of the compiled function only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

NONE = -1
#: Why the last scan of the waiting queue ended; index into `EngineState.blocked_s`.
SCAN, GATED, KV_FULL, SEQS_FULL = 0, 1, 2, 3
#: What became of a request.
WAITING, RUNNING, FINISHED_STATE, REJECTED, REFUSED = 0, 1, 2, 3, 4
TIME_WAIT_S = 60.0
#: Step durations are counted in bins of 1/4 ms, the last one open.
ITL_BINS, ITL_BINS_PER_MS = 4096, 4.0
FEATURES = 17
TRACE_COLUMNS = (
    "start_s", "duration_s", "decodes", "prompt_tokens", "kv_tokens", "adapters", "running", "waiting", "skipped",
    "free_blocks", "loads", "preemptions", "step",
)  # fmt: skip
#: Kinds of events: (step, kind, request or adapter, value).
SCHEDULED, SKIPPED, PREEMPTED, FINISHED, LOADED, EVICTED = 0, 1, 2, 3, 4, 5
#: Value of LOADED: host memory -> slot, or disk -> host memory; of EVICTED: from a slot, or from host memory.
SLOT, HOST = 0, 1

#: Integers of the state, indices into `EngineState.n`.
(
    N_KNOWN, N_UPCOMING, N_STEP, N_WAITING, N_OPEN, N_FRONT, FRONT_KEY, N_RUNNING, N_ACTIVE, N_DECODES, KV_TOKENS,
    FREE, PARTIAL, PAUSED, N_RESIDENT, N_HOSTED, N_LEAVING, IN_FLIGHT, SCAN_STATE, STOPPED_SKIPS, LOADS, DISK_LOADS,
    PREEMPTIONS, SKIPS, MAX_WAITING, N_TRACED, N_EVENTS, N_FINISHED, N_RELEASED,
) = range(29)  # fmt: skip
INTEGERS = 29
#: Floats of the state, indices into `EngineState.x`: the time of the next schedule, the end of the last step, sums.
NOW, GPU_END, KV_INTEGRAL, BUSY_S, LOAD_S, DISK_S = 0, 1, 2, 3, 4, 5
FLOATS = 6


class Limits(NamedTuple):
    """What bounds an engine; names are vLLM's where it has one.

    Args:
        host_adapters: adapters kept in host memory (`max_cpu_loras`); as many as there are = no disk loads.
        client_ports: connections of a measuring client; 0 = no limit. For replays only.
        horizon_s: length of the window, for the series.
        time_scale: factor on every step's time (for fitting).
        async_scheduling: schedule a step while the one before it runs.
        whole_sequence_must_fit: admission asks for the blocks of the whole sequence, not of its first chunk.
        skip_past: go on past requests that the LoRA gate holds back; False = they block those behind them.
        reload_cascade: slots are filled in set order, evicting the least recently touched adapter even where the
            batch needs it; False = one that the batch does not need.
    """

    max_loras: int
    max_lora_rank: int
    max_num_seqs: int
    token_budget: int
    block: int
    total_blocks: int
    host_adapters: int
    client_ports: int
    horizon_s: float
    time_scale: float
    async_scheduling: bool
    whole_sequence_must_fit: bool
    skip_past: bool
    reload_cascade: bool


class EngineState(NamedTuple):
    """All that an engine knows; arrays over N requests, A adapters, S sequences.

    Linked lists are arrays of indices, `NONE` at their ends. The first five are the requests, of which the first
    `n[N_KNOWN]` are filled in.
    """

    arrival: NDArray[np.float64]
    adapter: NDArray[np.int32]
    prompt: NDArray[np.int32]
    cached: NDArray[np.int32]
    output: NDArray[np.int32]
    # Adapters: base model or not, place in set order, load times.
    slotless: NDArray[np.bool_]
    walk: NDArray[np.int32]
    place: NDArray[np.int32]
    load_s: NDArray[np.float64]
    disk_s: NDArray[np.float64]
    law: NDArray[np.float64]
    # What became of the requests; times in seconds, NaN where something did not happen.
    first: NDArray[np.float64]
    finish: NDArray[np.float64]
    state: NDArray[np.int8]
    # Waiting: one list in queue order, and one per adapter; `key` orders them. `tree` counts arrivals ahead.
    key: NDArray[np.int64]
    gprev: NDArray[np.int32]
    gnext: NDArray[np.int32]
    aprev: NDArray[np.int32]
    anext: NDArray[np.int32]
    ghead: NDArray[np.int32]
    gtail: NDArray[np.int32]
    ahead: NDArray[np.int32]
    atail: NDArray[np.int32]
    waiting_of: NDArray[np.int32]
    tree: NDArray[np.int32]
    # Running, in vLLM's order; adapters of the batch.
    rprev: NDArray[np.int32]
    rnext: NDArray[np.int32]
    rhead: NDArray[np.int32]
    rtail: NDArray[np.int32]
    runs: NDArray[np.int32]
    active: NDArray[np.int32]
    active_at: NDArray[np.int32]
    # Decoding requests: computed tokens before step s are need + (s - 1 - entry_step).
    produced: NDArray[np.int32]
    need: NDArray[np.int32]
    computed: NDArray[np.int32]
    entry_step: NDArray[np.int64]
    decoding: NDArray[np.bool_]
    # Requests that finish after the same step, in a ring of lists; decoding requests by block residue.
    bucket: NDArray[np.int32]
    bucket_end: NDArray[np.int32]
    bprev: NDArray[np.int32]
    bnext: NDArray[np.int32]
    residues: NDArray[np.int32]
    fresh: NDArray[np.int32]
    leaving: NDArray[np.int32]
    is_leaving: NDArray[np.bool_]
    granted: NDArray[np.int32]
    # Slots and host cache.
    resident: NDArray[np.bool_]
    hosted: NDArray[np.bool_]
    last_step: NDArray[np.int64]
    since: NDArray[np.int64]
    old: NDArray[np.int32]
    old_host: NDArray[np.int32]
    # Figures.
    running_bins: NDArray[np.float64]
    waiting_bins: NDArray[np.float64]
    itl_histogram: NDArray[np.float64]
    features: NDArray[np.float64]
    blocked_s: NDArray[np.float64]
    finish_order: NDArray[np.float64]
    trace: NDArray[np.float64]
    events: NDArray[np.int64]
    n: NDArray[np.int64]
    x: NDArray[np.float64]


class KernelOutput(NamedTuple):
    """Arrays of one simulation; times in seconds, NaN where something did not happen.

    Args:
        state: `WAITING` (or not yet arrived), `RUNNING`, `FINISHED_STATE`, `REJECTED` by the engine, `REFUSED` by the
            client, (N,).
        blocked_s: time with requests waiting, by why the last scan of the queue ended: budget or preemption, LoRA
            gate, KV blocks, `max_num_seqs`, (4,).
        loads, disk_loads: adapters copied host -> slot and disk -> host, taking `load_s` and `disk_s`.
        trace: one row a step, columns `TRACE_COLUMNS`.
        events: rows (step, kind, request or adapter, value), (E, 4).
    """

    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    state: NDArray[np.int8]
    running_bins: NDArray[np.float64]
    waiting_bins: NDArray[np.float64]
    kv_integral: float
    itl_histogram: NDArray[np.float64]
    features: NDArray[np.float64]
    blocked_s: NDArray[np.float64]
    steps: int
    busy_s: float
    loads: int
    load_s: float
    disk_loads: int
    disk_s: float
    preemptions: int
    skips: int
    max_waiting: int
    free_blocks_end: int
    trace: NDArray[np.float64]
    events: NDArray[np.int64]


@nb.njit(cache=True, nogil=True)
def _fenwick_add(tree: Any, r: Any, value: Any) -> None:
    i = r + 1
    while i < len(tree):
        tree[i] += value
        i += i & (-i)


@nb.njit(cache=True, nogil=True)
def _fenwick_before(tree: Any, r: Any) -> Any:
    total = 0
    i = r
    while i > 0:
        total += tree[i]
        i -= i & (-i)
    return total


@nb.njit(cache=True, nogil=True)
def _append(queue: Any, node: Any, head: Any, tail: Any, before: Any, after: Any) -> None:
    """Joins the end of a doubly linked list; `head` and `tail` are indexed by queue."""
    before[node], after[node] = tail[queue], NONE
    if tail[queue] != NONE:
        after[tail[queue]] = node
    else:
        head[queue] = node
    tail[queue] = node


@nb.njit(cache=True, nogil=True)
def _prepend(queue: Any, node: Any, head: Any, tail: Any, before: Any, after: Any) -> None:
    """Joins the front of a doubly linked list."""
    before[node], after[node] = NONE, head[queue]
    if head[queue] != NONE:
        before[head[queue]] = node
    else:
        tail[queue] = node
    head[queue] = node


@nb.njit(cache=True, nogil=True)
def _unlink(queue: Any, node: Any, head: Any, tail: Any, before: Any, after: Any) -> None:
    """Leaves a doubly linked list."""
    if before[node] != NONE:
        after[before[node]] = after[node]
    else:
        head[queue] = after[node]
    if after[node] != NONE:
        before[after[node]] = before[node]
    else:
        tail[queue] = before[node]


@nb.njit(cache=True, nogil=True)
def _blocks(tokens: Any, block: Any) -> Any:
    """KV blocks of a sequence, `ceil(tokens / block)`."""
    return (tokens + block - 1) // block


@nb.njit(cache=True, nogil=True)
def _deactivate(a: Any, active: Any, active_at: Any, n_active: Any) -> Any:
    """Takes an adapter without scheduled requests out of the active ones; returns how many are left."""
    n_active -= 1
    moved = active[n_active]
    active[active_at[a]] = moved
    active_at[moved] = active_at[a]
    active_at[a] = NONE
    return n_active


@nb.njit(cache=True, nogil=True)
def _scanned_before(r: Any, key: Any, n_front: Any, tree: Any, ghead: Any, gnext: Any) -> Any:
    """Waiting requests ahead of `r`'s place in the queue: those that a scan up to `r` has gone past."""
    if key[r] >= 0:
        return n_front + _fenwick_before(tree, r)
    count, other = 0, ghead[0]
    while other != NONE and key[other] < key[r]:
        count += 1
        other = gnext[other]
    return count


@nb.njit(cache=True, nogil=True)
def _log(events: Any, n_events: Any, step: Any, kind: Any, index: Any, value: Any) -> Any:
    """Writes one event where there is room; returns how many there would be with room for all."""
    if n_events < len(events):
        events[n_events, 0], events[n_events, 1] = step, kind
        events[n_events, 2], events[n_events, 3] = index, value
    return n_events + 1


@nb.njit(cache=True, nogil=True)
def _least_recently_touched(
    member: Any, old: Any, n_old: Any, p: Any, ahead: Any, step: Any, reload_cascade: Any, walk: Any, place: Any,
    runs: Any, since: Any, last_step: Any,
) -> Any:  # fmt: skip
    """The member of a cache to evict while the walk over the batch is at place `p`; returns (adapter, `ahead`).

    Adapters that stayed in the batch were touched in the previous step, in walk order (`ahead` runs over them);
    `old` holds the others, touched when they last were in a batch.
    """
    victim = NONE
    for i in range(n_old):
        b = old[i]
        if member[b] and last_step[b] < step and (reload_cascade or runs[b] == 0) and (
            victim == NONE
            or last_step[b] < last_step[victim]
            or (last_step[b] == last_step[victim] and place[b] < place[victim])
        ):  # fmt: skip
            victim = b
    if reload_cascade and (victim == NONE or last_step[victim] == step - 1):
        ahead = max(ahead, p + 1)
        while ahead < len(walk):
            b = walk[ahead]
            if member[b] and runs[b] > 0 and since[b] < step:
                break
            ahead += 1
        if ahead < len(walk) and (victim == NONE or ahead < place[victim]):
            victim = walk[ahead]
    return victim, ahead


@nb.njit(cache=True, nogil=True)
def _load_adapters(
    max_loras: Any, host_adapters: Any, reload_cascade: Any, step: Any, walk: Any, place: Any, runs: Any, since: Any,
    last_step: Any, slotless: Any, resident: Any, hosted: Any, old: Any, old_host: Any, load_s: Any, disk_s: Any,
    n_resident: Any, n_hosted: Any, events: Any, n_events: Any,
) -> Any:  # fmt: skip
    """Touches the batch's adapters in set order: disk -> host memory -> slot, least recently used out first.

    `set_active_adapters` walks the batch and evicts the least recently *touched* adapter, which may be one of the
    batch that the walk has not reached yet: it is then loaded again, and so on (the reload cascade). Both levels
    are touched together, so an adapter in a slot is in host memory too, and an eviction there frees the slot.
    Returns (residents, hosted, loads, seconds, disk loads, seconds, events).
    """
    loads, disk_loads, slot_time, disk_time = 0, 0, 0.0, 0.0
    bounded = host_adapters < len(walk)
    n_old, n_old_host, ahead, ahead_host = 0, 0, 0, 0
    for b in range(len(walk)):
        if runs[b] == 0 or since[b] == step:
            if resident[b]:
                old[n_old] = b
                n_old += 1
            if bounded and hosted[b]:
                old_host[n_old_host] = b
                n_old_host += 1
    for p in range(len(walk)):
        a = walk[p]
        if runs[a] == 0 or slotless[a]:
            continue
        if not hosted[a]:
            if n_hosted >= host_adapters:
                victim, ahead_host = _least_recently_touched(
                    hosted, old_host, n_old_host, p, ahead_host, step, reload_cascade, walk, place, runs, since,
                    last_step,
                )  # fmt: skip
                hosted[victim] = False
                n_hosted -= 1
                if len(events):
                    n_events = _log(events, n_events, step, EVICTED, victim, HOST)
                if resident[victim]:
                    resident[victim] = False
                    n_resident -= 1
                    if len(events):
                        n_events = _log(events, n_events, step, EVICTED, victim, SLOT)
            hosted[a] = True
            n_hosted += 1
            disk_loads += 1
            disk_time += disk_s[a]
            if len(events):
                n_events = _log(events, n_events, step, LOADED, a, HOST)
        if not resident[a]:
            if n_resident >= max_loras:
                victim, ahead = _least_recently_touched(
                    resident, old, n_old, p, ahead, step, reload_cascade, walk, place, runs, since, last_step
                )
                resident[victim] = False
                n_resident -= 1
                if len(events):
                    n_events = _log(events, n_events, step, EVICTED, victim, SLOT)
            resident[a] = True
            n_resident += 1
            loads += 1
            slot_time += load_s[a]
            if len(events):
                n_events = _log(events, n_events, step, LOADED, a, SLOT)
        last_step[a] = step
    return n_resident, n_hosted, loads, slot_time, disk_loads, disk_time, n_events


@nb.njit(cache=True, nogil=True)
def advance(limits: Any, s: Any, until_s: Any) -> None:
    """Runs the engine until the next step would be scheduled at `until_s` or later, or nothing is left to do.

    Requests that arrive later may be added (`twin.engine.engine.add_requests`) before the next call.
    """
    # One name an array: attributes of a named tuple cost reference counting inside the loop.
    (
        arrival, adapter, prompt, cached, output, slotless, walk, place, load_s, disk_s, law, first, finish, state,
        key, gprev, gnext, aprev, anext, ghead, gtail, ahead, atail, waiting_of, tree, rprev, rnext, rhead, rtail,
        runs, active, active_at, produced, need, computed, entry_step, decoding, bucket, bucket_end, bprev, bnext,
        residues, fresh, leaving, is_leaving, granted, resident, hosted, last_step, since, old, old_host,
        running_bins, waiting_bins, itl_histogram, features, blocked_s, finish_order, trace, events, n, x,
    ) = s  # fmt: skip
    max_loras, block, total_blocks = limits.max_loras, limits.block, limits.total_blocks
    token_budget, horizon_s = limits.token_budget, limits.horizon_s
    n_adapters, bins, ring = len(slotless), len(running_bins), len(bucket)
    n_lora_adapters = 0
    for a in range(n_adapters):
        if not slotless[a]:
            n_lora_adapters += 1
    gate_possible = n_lora_adapters > max_loras
    graph_tokens = law[17]
    logging = len(events) > 0
    known, upcoming, step = n[N_KNOWN], n[N_UPCOMING], n[N_STEP]
    n_waiting, n_waiting_open, n_front, front_key = n[N_WAITING], n[N_OPEN], n[N_FRONT], n[FRONT_KEY]
    n_running, n_active, decodes = n[N_RUNNING], n[N_ACTIVE], n[N_DECODES]
    kv_tokens, free, partial, paused = n[KV_TOKENS], n[FREE], n[PARTIAL], n[PAUSED]
    residents, hosts, n_leaving, in_flight = n[N_RESIDENT], n[N_HOSTED], n[N_LEAVING], n[IN_FLIGHT]
    scan_state, stopped_skips = n[SCAN_STATE], n[STOPPED_SKIPS]
    n_events, traced, n_finished, n_released = n[N_EVENTS], n[N_TRACED], n[N_FINISHED], n[N_RELEASED]
    max_waiting = n[MAX_WAITING]
    t, gpu_end = x[NOW], x[GPU_END]

    while t < until_s:
        # 1. Arrivals up to now join the end of the queue.
        while upcoming < known and arrival[upcoming] <= t:
            r = upcoming
            upcoming += 1
            if limits.client_ports > 0:
                while n_released < n_finished and finish_order[n_released] <= arrival[r] - TIME_WAIT_S:
                    n_released += 1
                if n_running + n_waiting + (n_finished - n_released) >= limits.client_ports:
                    state[r] = REFUSED
                    continue
            a = adapter[r]
            key[r] = r
            _append(0, r, ghead, gtail, gprev, gnext)
            _append(a, r, ahead, atail, aprev, anext)
            waiting_of[a] += 1
            n_waiting += 1
            if gate_possible:
                _fenwick_add(tree, r, 1)
            if slotless[a] or runs[a] > 0:
                n_waiting_open += 1
                if scan_state == GATED:
                    scan_state = SCAN
            elif scan_state == GATED and n_active < max_loras:
                scan_state = SCAN
        max_waiting = max(max_waiting, n_waiting)

        # 2. Running requests: every decode takes one token, the partial prefill what is left of the budget.
        step += 1
        preempted = 0
        chunk = 0
        new_adapter = False
        if partial != NONE:
            chunk = min(need[partial] - computed[partial], token_budget - decodes)
            a = adapter[partial]
            if chunk == 0 and paused == 0:
                # It gets no token, so that the batch holds its adapter for the others only.
                paused = 1
                runs[a] -= 1
                if runs[a] == 0 and not slotless[a]:
                    last_step[a] = step - 1
                    n_active = _deactivate(a, active, active_at, n_active)
                    n_waiting_open -= waiting_of[a]
            elif chunk > 0 and paused == 1:
                paused = 0
                runs[a] += 1
                if runs[a] == 1 and not slotless[a]:
                    active[n_active] = a
                    active_at[a] = n_active
                    n_active += 1
                    since[a] = step
                    n_waiting_open += waiting_of[a]
                    if not resident[a]:
                        new_adapter = True
        blocks_decode = residues[(-step) % block]
        blocks_chunk = 0
        if chunk > 0:
            done = computed[partial]
            blocks_chunk = _blocks(done + chunk, block) - _blocks(done, block)
        if blocks_decode + blocks_chunk <= free:
            free -= blocks_decode + blocks_chunk
        else:
            r = rhead[0]
            while r != NONE:
                if decoding[r]:
                    have = need[r] + step - 1 - entry_step[r]
                    wanted = 1 if have % block == 0 else 0
                elif chunk > 0 and r == partial:
                    wanted = blocks_chunk
                else:
                    wanted = 0
                gone = False
                while free < wanted:
                    # Preemption: the last running request gives up its blocks and is computed again later.
                    v = rtail[0]
                    _unlink(0, v, rhead, rtail, rprev, rnext)
                    n_running -= 1
                    preempted += 1
                    if logging:
                        n_events = _log(events, n_events, step, PREEMPTED, v, 0)
                    if is_leaving[v]:
                        # Its last token is in flight: it finishes without running again.
                        is_leaving[v] = False
                        free += _blocks(computed[v], block)
                        continue
                    a = adapter[v]
                    scheduled = True
                    if decoding[v]:
                        have = need[v] + step - 1 - entry_step[v]
                        made = step - 1 - entry_step[v]
                        residues[(need[v] - entry_step[v] - 1) % block] -= 1
                        slot = (entry_step[v] + output[v] - produced[v]) % ring
                        _unlink(slot, v, bucket, bucket_end, bprev, bnext)
                        produced[v] += made
                        decoding[v] = False
                        decodes -= 1
                    else:
                        have = computed[v]
                        scheduled = paused == 0
                        partial, chunk, paused = NONE, 0, 0
                    free += _blocks(have, block)
                    kv_tokens -= have
                    need[v] = prompt[v] + produced[v]
                    computed[v] = 0
                    state[v] = WAITING
                    if scheduled:
                        runs[a] -= 1
                        if runs[a] == 0 and not slotless[a]:
                            last_step[a] = step - 1
                            n_active = _deactivate(a, active, active_at, n_active)
                            n_waiting_open -= waiting_of[a]
                    key[v] = front_key
                    front_key -= 1
                    _prepend(0, v, ghead, gtail, gprev, gnext)
                    _prepend(a, v, ahead, atail, aprev, anext)
                    waiting_of[a] += 1
                    n_waiting += 1
                    n_front += 1
                    if slotless[a] or runs[a] > 0:
                        n_waiting_open += 1
                    if v == r:
                        gone = True
                        break
                if gone:
                    break
                free -= wanted
                r = rnext[r]
            scan_state = SCAN
            n[PREEMPTIONS] += preempted

        budget = token_budget - decodes - chunk
        prompt_tokens = chunk
        n_fresh = 0
        if partial != NONE and chunk > 0:
            computed[partial] += chunk
            kv_tokens += chunk
            if logging:
                granted[partial] = chunk
            if computed[partial] == need[partial]:
                fresh[n_fresh] = partial
                n_fresh += 1
                partial = NONE

        # 3. Admission: first come, first served, past requests whose adapter finds no slot (skip-past).
        skipped = 0
        if preempted == 0 and n_waiting > 0 and partial == NONE and budget > 0:
            if scan_state == GATED:
                skipped = n_waiting
            elif scan_state == KV_FULL:
                skipped = stopped_skips
            elif scan_state == SCAN:
                last = NONE
                while True:
                    if n_waiting == 0:
                        break
                    if budget <= 0 or n_running >= limits.max_num_seqs:
                        # The budget ends the scan of this step only.
                        if budget > 0:
                            scan_state = SEQS_FULL
                        if gate_possible and last != NONE:
                            skipped = _scanned_before(last, key, n_front, tree, ghead, gnext)
                        break
                    r = NONE
                    if not gate_possible or n_active < max_loras:
                        r = ghead[0]
                    elif not limits.skip_past:
                        r = ghead[0]
                        if not slotless[adapter[r]] and runs[adapter[r]] == 0:
                            r = NONE
                    elif n_waiting_open > 0:
                        for i in range(n_active):
                            h = ahead[active[i]]
                            if h != NONE and (r == NONE or key[h] < key[r]):
                                r = h
                        if n_lora_adapters < n_adapters:
                            for other in range(n_adapters):
                                if slotless[other]:
                                    h = ahead[other]
                                    if h != NONE and (r == NONE or key[h] < key[r]):
                                        r = h
                    if r == NONE:
                        scan_state = GATED
                        skipped = n_waiting
                        break
                    a = adapter[r]
                    tokens = min(need[r] - cached[r], budget)
                    wanted = _blocks(cached[r] + tokens, block)
                    room = _blocks(need[r], block) if limits.whole_sequence_must_fit else wanted
                    if room > free:
                        if n_running == 0 and free == total_blocks:
                            # It can never fit: vLLM would wait for ever.
                            state[r] = REJECTED
                        else:
                            scan_state = KV_FULL
                            stopped_skips = _scanned_before(r, key, n_front, tree, ghead, gnext) if gate_possible else 0
                            skipped = stopped_skips
                            break
                    # Out of the queue.
                    _unlink(0, r, ghead, gtail, gprev, gnext)
                    _unlink(a, r, ahead, atail, aprev, anext)
                    waiting_of[a] -= 1
                    n_waiting -= 1
                    if key[r] < 0:
                        n_front -= 1
                    elif gate_possible:
                        _fenwick_add(tree, r, -1)
                    if slotless[a] or runs[a] > 0:
                        n_waiting_open -= 1
                    if state[r] == REJECTED:
                        continue
                    # Into the running list.
                    last = r
                    state[r] = RUNNING
                    _append(0, r, rhead, rtail, rprev, rnext)
                    n_running += 1
                    runs[a] += 1
                    if runs[a] == 1 and not slotless[a]:
                        active[n_active] = a
                        active_at[a] = n_active
                        n_active += 1
                        since[a] = step
                        n_waiting_open += waiting_of[a]
                        if not resident[a]:
                            new_adapter = True
                    free -= wanted
                    computed[r] = cached[r] + tokens
                    kv_tokens += computed[r]
                    budget -= tokens
                    prompt_tokens += tokens
                    if logging:
                        granted[r] = tokens
                    if computed[r] == need[r]:
                        fresh[n_fresh] = r
                        n_fresh += 1
                    else:
                        partial = r
            if not limits.skip_past:
                skipped = 0
            n[SKIPS] += skipped

        # 4. Async: only now is the step before processed, and what it finished leaves.
        reason, free_now, running_now = scan_state, free, n_running
        step_before_end = gpu_end
        was_in_flight = in_flight
        if n_leaving > 0:
            for i in range(n_leaving):
                r = leaving[i]
                if is_leaving[r]:
                    is_leaving[r] = False
                    free += _blocks(computed[r], block)
                    _unlink(0, r, rhead, rtail, rprev, rnext)
                    n_running -= 1
            n_leaving = 0
            scan_state = SCAN
        in_flight = 0

        # Nothing to do: wait for the step in flight, or sleep until the next arrival.
        if decodes + prompt_tokens == 0:
            step -= 1
            if was_in_flight == 1:
                t = max(t, step_before_end)
            elif n_running == 0 and n_waiting == 0:
                if upcoming >= known:
                    break
                t = max(t, arrival[upcoming])
            continue

        if logging:
            r = rhead[0]
            while r != NONE:
                if decoding[r]:
                    n_events = _log(events, n_events, step, SCHEDULED, r, 1)
                elif granted[r] > 0:
                    n_events = _log(events, n_events, step, SCHEDULED, r, granted[r])
                    granted[r] = 0
                r = rnext[r]
            r = ghead[0]
            for _ in range(skipped):
                n_events = _log(events, n_events, step, SKIPPED, r, 0)
                r = gnext[r]

        # 5. Adapter slots, then the clock.
        loads: Any = 0
        load_time = 0.0
        if new_adapter:
            residents, hosts, loads, slot_time, disk_loads, disk_time, n_events = _load_adapters(
                max_loras, limits.host_adapters, limits.reload_cascade, step, walk, place, runs, since,
                last_step, slotless, resident, hosted, old, old_host, load_s, disk_s, residents, hosts,
                events, n_events,
            )  # fmt: skip
            load_time = slot_time + disk_time
            n[LOADS] += loads
            n[DISK_LOADS] += disk_loads
            x[LOAD_S] += slot_time
            x[DISK_S] += disk_time
        b, p, adapters = float(decodes), float(prompt_tokens), float(n_active)
        tokens_f = b + p
        kv = kv_tokens / 1000.0
        past = tokens_f > graph_tokens
        over = tokens_f - graph_tokens if past else 0.0
        queue = b * n_waiting / 1e6
        skip = skipped / 1000.0
        ms = law[0] + law[1] * b + law[2] * p + law[3] * kv + law[15] * skip + law[16] * queue
        if past:
            ms += law[4] + law[5] * over
        if adapters > 0:
            rank16 = limits.max_lora_rank / 16.0
            ms += law[6] + adapters * (law[7] + law[8] * rank16 + law[12] * tokens_f / 1000.0)
            ms += max_loras * (law[9] + law[10] * tokens_f / 1000.0) + law[11] * tokens_f
            if tokens_f < 128.0:
                ms += law[13] * adapters
            if past:
                ms += law[14] * adapters
            features[6] += 1.0
            features[7] += adapters
            features[8] += adapters * rank16
            features[9] += max_loras
            features[10] += max_loras * tokens_f / 1000.0
            features[11] += tokens_f
            features[12] += adapters * tokens_f / 1000.0
            if tokens_f < 128.0:
                features[13] += adapters
            if past:
                features[14] += adapters
        features[0] += 1.0
        features[1] += b
        features[2] += p
        features[3] += kv
        if past:
            features[4] += 1.0
            features[5] += over
        features[15] += skip
        features[16] += queue
        dt = limits.time_scale * (ms / 1000.0 + load_time)
        start = max(t, gpu_end)
        end = start + dt
        where = min(int(start / horizon_s * bins), bins - 1)
        running_bins[where] += running_now * dt
        waiting_bins[where] += n_waiting * dt
        x[KV_INTEGRAL] += (total_blocks - free_now) * dt
        if n_waiting > 0:
            blocked_s[reason] += dt
        itl_histogram[min(int(dt * 1000.0 * ITL_BINS_PER_MS), ITL_BINS - 1)] += b
        if traced < len(trace):
            row = trace[traced]
            row[0], row[1], row[2], row[3], row[4], row[5] = start, dt, b, p, kv_tokens, adapters
            row[6], row[7], row[8], row[9] = running_now, n_waiting, skipped, free_now
            row[10], row[11], row[12] = loads, preempted, step
            traced += 1
        x[BUSY_S] += dt
        gpu_end = end
        if limits.async_scheduling:
            # Two steps in flight: the next one is scheduled when the one before this has been processed.
            in_flight = 1
            if was_in_flight == 1:
                t = max(t, step_before_end)
        else:
            t = end

        # 6. Tokens: finished decodes leave, fresh prefills hand out their first token and start to decode.
        kv_tokens += decodes
        slot = step % ring
        r = bucket[slot]
        bucket[slot] = bucket_end[slot] = NONE
        left = r != NONE
        while r != NONE:
            following = bnext[r]
            residues[(need[r] - entry_step[r] - 1) % block] -= 1
            decoding[r] = False
            decodes -= 1
            computed[r] = need[r] + step - entry_step[r]
            fresh[n_fresh] = r
            n_fresh += 1
            produced[r] = output[r]
            r = following
        for i in range(n_fresh):
            r = fresh[i]
            a = adapter[r]
            if produced[r] < output[r]:
                produced[r] += 1
                if np.isnan(first[r]):
                    first[r] = end
            if produced[r] < output[r]:
                # Decodes from the next step on; its remaining tokens tell when it ends.
                entry_step[r] = step
                decoding[r] = True
                decodes += 1
                residues[(need[r] - step - 1) % block] += 1
                slot = (step + output[r] - produced[r]) % ring
                _prepend(slot, r, bucket, bucket_end, bprev, bnext)
                continue
            left = True
            finish[r] = end
            state[r] = FINISHED_STATE
            if logging:
                n_events = _log(events, n_events, step, FINISHED, r, 0)
            if limits.client_ports > 0:
                finish_order[n_finished] = end
            n_finished += 1
            kv_tokens -= computed[r]
            runs[a] -= 1
            if runs[a] == 0 and not slotless[a]:
                last_step[a] = step
                n_active = _deactivate(a, active, active_at, n_active)
                n_waiting_open -= waiting_of[a]
            if limits.async_scheduling:
                leaving[n_leaving] = r
                is_leaving[r] = True
                n_leaving += 1
            else:
                free += _blocks(computed[r], block)
                _unlink(0, r, rhead, rtail, rprev, rnext)
                n_running -= 1
        if left:
            scan_state = SCAN

    n[N_UPCOMING], n[N_STEP] = upcoming, step
    n[N_WAITING], n[N_OPEN], n[N_FRONT], n[FRONT_KEY] = n_waiting, n_waiting_open, n_front, front_key
    n[N_RUNNING], n[N_ACTIVE], n[N_DECODES] = n_running, n_active, decodes
    n[KV_TOKENS], n[FREE], n[PARTIAL], n[PAUSED] = kv_tokens, free, partial, paused
    n[N_RESIDENT], n[N_HOSTED], n[N_LEAVING], n[IN_FLIGHT] = residents, hosts, n_leaving, in_flight
    n[SCAN_STATE], n[STOPPED_SKIPS] = scan_state, stopped_skips
    n[N_EVENTS], n[N_TRACED], n[N_FINISHED], n[N_RELEASED] = n_events, traced, n_finished, n_released
    n[MAX_WAITING] = max_waiting
    x[NOW], x[GPU_END] = t, gpu_end
