"""The engine loop: vLLM V1's scheduler, KV cache and adapter slots, one step at a time.

A step is: enqueue arrivals; schedule the running requests (decodes, then the one partial prefill), preempting
from the end of the list where KV blocks run out; admit waiting requests past the LoRA gate while token budget,
`max_num_seqs` and blocks last; load adapters; let the clock run for the law's step time; hand out tokens.

Nothing in a step looks at every request. All decoding requests advance together, so that finish times are known
on admission (buckets by step), block needs are counted by residue class, and waiting requests sit in one list per
adapter. A step without events costs a few additions.

Rules: vLLM V1 (docs/twin.md lists them). State changes at one point of a step each. The helpers live in this file
because numba's on-disk cache watches the file of the compiled function only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

I32, I64, F64 = np.int32, np.int64, np.float64
NONE = -1
#: Why the last scan of the waiting queue ended.
SCAN, GATED, KV_FULL, SEQS_FULL = 0, 1, 2, 3
TIME_WAIT_S = 60.0
#: Step durations are counted in bins of 1/4 ms, the last one open.
ITL_BINS, ITL_BINS_PER_MS = 4096, 4.0
FEATURES = 17
TRACE_COLUMNS = (
    "start_s", "duration_s", "decodes", "prompt_tokens", "kv_tokens", "adapters", "running", "waiting", "skipped",
    "free_blocks", "loads", "preemptions",
)  # fmt: skip


class KernelOutput(NamedTuple):
    """Arrays of one simulation; times in seconds, NaN where something did not happen."""

    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    state: NDArray[np.int8]
    """0 waiting (or not yet arrived), 1 running, 2 finished, 3 rejected by the engine, 4 refused by the client."""
    running_bins: NDArray[np.float64]
    waiting_bins: NDArray[np.float64]
    kv_integral: float
    itl_histogram: NDArray[np.float64]
    features: NDArray[np.float64]
    steps: int
    busy_s: float
    loads: int
    load_s: float
    preemptions: int
    skips: int
    max_waiting: int
    free_blocks_end: int
    trace: NDArray[np.float64]


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
    """Takes an adapter without running requests out of the active ones; returns how many are left."""
    n_active -= 1
    moved = active[n_active]
    active[active_at[a]] = moved
    active_at[moved] = active_at[a]
    active_at[a] = NONE
    return n_active


@nb.njit(cache=True, nogil=True)
def _evict_and_load(
    walk: Any, place: Any, runs: Any, since: Any, resident: Any, last_step: Any, load_s: Any, step: Any, slots: Any,
    residents: Any, old: Any, slotless: Any,
) -> Any:  # fmt: skip
    """Activates the batch's adapters in set order with LRU slots; returns (residents, loads, seconds).

    `set_active_adapters` walks the batch and evicts the least recently *touched* adapter, which may be one of the
    batch that the walk has not reached yet: it is then loaded again, and so on (the reload cascade). Adapters that
    stayed in the batch were touched in the previous step, in walk order; the others when they last were in one.
    """
    loads, seconds = 0, 0.0
    n_old, ahead = 0, 0
    for b in range(len(walk)):
        if resident[b] and (runs[b] == 0 or since[b] == step):
            old[n_old] = b
            n_old += 1
    for p in range(len(walk)):
        a = walk[p]
        if runs[a] == 0 or slotless[a]:
            continue
        if not resident[a]:
            if residents >= slots:
                victim = NONE
                for i in range(n_old):
                    b = old[i]
                    if resident[b] and last_step[b] < step and (
                        victim == NONE
                        or last_step[b] < last_step[victim]
                        or (last_step[b] == last_step[victim] and place[b] < place[victim])
                    ):  # fmt: skip
                        victim = b
                if victim == NONE or last_step[victim] == step - 1:
                    ahead = max(ahead, p + 1)
                    while ahead < len(walk):
                        b = walk[ahead]
                        if resident[b] and runs[b] > 0 and since[b] < step:
                            break
                        ahead += 1
                    if ahead < len(walk) and (victim == NONE or ahead < place[victim]):
                        victim = walk[ahead]
                resident[victim] = False
                residents -= 1
            resident[a] = True
            residents += 1
            loads += 1
            seconds += load_s[a]
        last_step[a] = step
    return residents, loads, seconds


@nb.njit(cache=True, nogil=True)
def run_engine(
    arrival: Any, adapter: Any, prompt: Any, cached: Any, output: Any, slotless: Any, walk: Any, load_s: Any,
    law: Any, max_loras: Any, max_lora_rank: Any, max_num_seqs: Any, token_budget: Any, block: Any, total_blocks: Any,
    horizon_s: Any, bins: Any, time_scale: Any, client_ports: Any, whole_sequence_must_fit: Any, trace_steps: Any,
) -> Any:  # fmt: skip
    """Simulates one engine over `[0, horizon_s)`; arguments as in `twin.simulate`. Returns a `KernelOutput`."""
    n_requests, n_adapters = len(arrival), len(slotless)
    first, finish = np.full(n_requests, np.nan), np.full(n_requests, np.nan)
    state = np.zeros(n_requests, np.int8)
    n_lora_adapters = 0
    for a in range(n_adapters):
        if not slotless[a]:
            n_lora_adapters += 1
    gate_possible = n_lora_adapters > max_loras
    # Waiting: one doubly linked list in queue order, and one per adapter; `key` orders them.
    key = np.zeros(n_requests, I64)
    gprev, gnext = np.empty(n_requests, I32), np.empty(n_requests, I32)
    aprev, anext = np.empty(n_requests, I32), np.empty(n_requests, I32)
    ghead, gtail = np.full(1, NONE, I32), np.full(1, NONE, I32)
    ahead, atail = np.full(n_adapters, NONE, I32), np.full(n_adapters, NONE, I32)
    waiting_of = np.zeros(n_adapters, I32)
    # Arrivals still waiting, to count those ahead of a request; nobody is skipped if every adapter has a slot.
    tree = np.zeros(n_requests + 1 if gate_possible else 1, I32)
    n_waiting, n_waiting_open, n_front, front_key = 0, 0, 0, -1
    # Running: a doubly linked list in vLLM's order.
    rprev, rnext = np.empty(n_requests, I32), np.empty(n_requests, I32)
    rhead, rtail, n_running = np.full(1, NONE, I32), np.full(1, NONE, I32), 0
    runs = np.zeros(n_adapters, I32)
    active, active_at, n_active = np.empty(n_adapters, I32), np.full(n_adapters, NONE, I32), 0
    # Decoding requests: computed tokens before step s are entry_tokens + (s - 1 - entry_step).
    produced, need, computed = np.zeros(n_requests, I32), np.zeros(n_requests, I32), np.zeros(n_requests, I32)
    entry_step, decoding = np.zeros(n_requests, I64), np.zeros(n_requests, np.bool_)
    ring = 2
    for r in range(n_requests):
        need[r] = prompt[r]
        ring = max(ring, output[r] + 2)
    # Requests that finish after the same step, in a ring of lists.
    bucket, bucket_end = np.full(ring, NONE, I32), np.full(ring, NONE, I32)
    bprev, bnext = np.empty(n_requests, I32), np.empty(n_requests, I32)
    residues = np.zeros(block, I32)
    decodes, kv_tokens, free = 0, 0, total_blocks
    partial = NONE
    fresh = np.empty(max_num_seqs + 1, I32)
    # Slots.
    resident, last_step = np.zeros(n_adapters, np.bool_), np.full(n_adapters, NONE, I64)
    since, old = np.zeros(n_adapters, I64), np.empty(n_adapters, I32)
    place, residents = np.empty(n_adapters, I32), 0
    for position in range(n_adapters):
        place[walk[position]] = position
    # Figures.
    running_bins, waiting_bins = np.zeros(bins), np.zeros(bins)
    histogram, features = np.zeros(ITL_BINS), np.zeros(FEATURES)
    trace = np.zeros((trace_steps, 12))
    traced = 0
    kv_integral, busy_s, total_load_s = 0.0, 0.0, 0.0
    total_loads, total_preemptions, total_skips, max_waiting = 0, 0, 0, 0
    finish_order = np.empty(n_requests if client_ports > 0 else 1, F64)
    n_finished, n_released = 0, 0
    graph_tokens = law[17]

    t, step, upcoming = 0.0, 0, 0
    scan_state, stopped_skips = SCAN, 0
    while t < horizon_s:
        # 1. Arrivals up to now join the end of the queue.
        while upcoming < n_requests and arrival[upcoming] <= t:
            r = upcoming
            upcoming += 1
            if client_ports > 0:
                while n_released < n_finished and finish_order[n_released] <= arrival[r] - TIME_WAIT_S:
                    n_released += 1
                if n_running + n_waiting + (n_finished - n_released) >= client_ports:
                    state[r] = 4
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
        if partial != NONE:
            chunk = min(need[partial] - computed[partial], token_budget - decodes)
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
                elif chunk > 0:
                    wanted = blocks_chunk
                else:
                    wanted = 0
                gone = False
                while free < wanted:
                    # Preemption: the last running request gives up its blocks and is computed again later.
                    v = rtail[0]
                    a = adapter[v]
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
                        partial, chunk = NONE, 0
                    free += _blocks(have, block)
                    kv_tokens -= have
                    need[v] = prompt[v] + produced[v]
                    computed[v] = 0
                    state[v] = 0
                    _unlink(0, v, rhead, rtail, rprev, rnext)
                    n_running -= 1
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
                    preempted += 1
                    if v == r:
                        gone = True
                        break
                if gone:
                    break
                free -= wanted
                r = rnext[r]
            scan_state = SCAN
            total_preemptions += preempted

        budget = token_budget - decodes - chunk
        prompt_tokens = chunk
        n_fresh = 0
        if partial != NONE and chunk > 0:
            computed[partial] += chunk
            kv_tokens += chunk
            if computed[partial] == need[partial]:
                fresh[n_fresh] = partial
                n_fresh += 1
                partial = NONE

        # 3. Admission: first come, first served, past requests whose adapter finds no slot (skip-past).
        skipped = 0
        new_adapter = False
        if preempted == 0 and n_waiting > 0 and partial == NONE:
            if scan_state == GATED:
                skipped = n_waiting
            elif scan_state == KV_FULL:
                skipped = stopped_skips
            elif scan_state == SCAN:
                last = NONE
                while True:
                    if n_waiting == 0:
                        break
                    if budget <= 0:
                        # The budget ends the scan; it starts again in the next step.
                        if gate_possible and last != NONE and key[last] >= 0:
                            skipped = n_front + _fenwick_before(tree, last)
                        break
                    if n_running >= max_num_seqs:
                        scan_state = SEQS_FULL
                        if gate_possible and last != NONE and key[last] >= 0:
                            skipped = n_front + _fenwick_before(tree, last)
                        break
                    r = NONE
                    if not gate_possible or n_active < max_loras:
                        r = ghead[0]
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
                    room = _blocks(need[r], block) if whole_sequence_must_fit else wanted
                    if room > free:
                        if n_running == 0 and free == total_blocks:
                            # It can never fit: vLLM would wait for ever.
                            state[r] = 3
                        else:
                            scan_state = KV_FULL
                            stopped_skips = n_front + _fenwick_before(tree, r) if gate_possible and key[r] >= 0 else 0
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
                    if state[r] == 3:
                        continue
                    # Into the running list.
                    last = r
                    state[r] = 1
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
                    if computed[r] == need[r]:
                        fresh[n_fresh] = r
                        n_fresh += 1
                    else:
                        partial = r
            total_skips += skipped

        # Nothing to do: sleep until the next arrival.
        if decodes + prompt_tokens == 0:
            if n_running == 0 and n_waiting == 0:
                if upcoming >= n_requests:
                    break
                t = max(t, arrival[upcoming])
            continue

        # 4. Adapter slots, then the clock.
        loads: Any = 0
        load_time = 0.0
        if new_adapter:
            residents, loads, load_time = _evict_and_load(
                walk, place, runs, since, resident, last_step, load_s, step, max_loras, residents, old, slotless
            )
            total_loads += loads
            total_load_s += load_time
        b, p, n = float(decodes), float(prompt_tokens), float(n_active)
        tokens_f = b + p
        x = kv_tokens / 1000.0
        past = tokens_f > graph_tokens
        over = tokens_f - graph_tokens if past else 0.0
        queue = b * n_waiting / 1e6
        skip = skipped / 1000.0
        ms = law[0] + law[1] * b + law[2] * p + law[3] * x + law[15] * skip + law[16] * queue
        if past:
            ms += law[4] + law[5] * over
        if n > 0:
            ms += law[6] + n * (law[7] + law[8] * max_lora_rank / 16.0 + law[12] * tokens_f / 1000.0)
            ms += max_loras * (law[9] + law[10] * tokens_f / 1000.0) + law[11] * tokens_f
            if tokens_f < 128.0:
                ms += law[13] * n
            if past:
                ms += law[14] * n
            features[6] += 1.0
            features[7] += n
            features[8] += n * max_lora_rank / 16.0
            features[9] += max_loras
            features[10] += max_loras * tokens_f / 1000.0
            features[11] += tokens_f
            features[12] += n * tokens_f / 1000.0
            if tokens_f < 128.0:
                features[13] += n
            if past:
                features[14] += n
        features[0] += 1.0
        features[1] += b
        features[2] += p
        features[3] += x
        if past:
            features[4] += 1.0
            features[5] += over
        features[15] += skip
        features[16] += queue
        dt = time_scale * (ms / 1000.0 + load_time)
        used = total_blocks - free
        where = min(int(t / horizon_s * bins), bins - 1)
        running_bins[where] += n_running * dt
        waiting_bins[where] += n_waiting * dt
        kv_integral += used * dt
        histogram[min(int(dt * 1000.0 * ITL_BINS_PER_MS), ITL_BINS - 1)] += b
        if traced < trace_steps:
            trace[traced, 0], trace[traced, 1], trace[traced, 2] = t, dt, b
            trace[traced, 3], trace[traced, 4], trace[traced, 5] = p, kv_tokens, n
            trace[traced, 6], trace[traced, 7], trace[traced, 8] = n_running, n_waiting, skipped
            trace[traced, 9], trace[traced, 10], trace[traced, 11] = free, loads, preempted
            traced += 1
        busy_s += dt
        t += dt

        # 5. Tokens: finished decodes leave, fresh prefills hand out their first token and start to decode.
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
                    first[r] = t
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
            finish[r] = t
            state[r] = 2
            if client_ports > 0:
                finish_order[n_finished] = t
            n_finished += 1
            free += _blocks(computed[r], block)
            kv_tokens -= computed[r]
            _unlink(0, r, rhead, rtail, rprev, rnext)
            n_running -= 1
            runs[a] -= 1
            if runs[a] == 0 and not slotless[a]:
                last_step[a] = step
                n_active = _deactivate(a, active, active_at, n_active)
                n_waiting_open -= waiting_of[a]
        if left:
            scan_state = SCAN

    return KernelOutput(
        first, finish, state, running_bins, waiting_bins, kv_integral, histogram, features, step, busy_s, total_loads,
        total_load_s, total_preemptions, total_skips, max_waiting, free, trace[:traced],
    )  # fmt: skip
