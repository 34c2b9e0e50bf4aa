"""Scheduling the waiting requests: first come, first served, past those whose adapter finds no slot (skip-past)."""

from __future__ import annotations

from twin.compiled import inlined
from twin.engine.batch import join_batch
from twin.engine.blocks import blocks
from twin.engine.lists import append
from twin.engine.queue import leave_queue, waiting_before
from twin.engine.state import GATED, KV_FULL, NONE, REJECTED, RUNNING, SCAN, SEQS_FULL, EngineState


@inlined
def schedule_waiting(engine: EngineState) -> None:
    """Admits requests while token budget, `max_num_seqs`, KV blocks and slots last; nobody in a step that preempted.

    Why the scan ended is kept in `scan_state`: until something changes that could let more in, the queue is not
    looked at again.
    """
    scheduler, batch = engine.scheduler[0], engine.batch[0]
    batch.skipped = 0
    if batch.preempted > 0 or scheduler.waiting == 0 or scheduler.partial != NONE or batch.budget <= 0:
        return
    if scheduler.scan_state == SCAN:
        scan_queue(engine)
    elif scheduler.scan_state == GATED:
        batch.skipped = scheduler.waiting
    elif scheduler.scan_state == KV_FULL:
        batch.skipped = scheduler.stopped_skips
    if not engine.limits.skip_past:
        batch.skipped = 0
    engine.figures.totals[0].skips += batch.skipped


@inlined
def scan_queue(engine: EngineState) -> None:
    """Looks through the waiting queue, in order."""
    limits, scheduler, batch = engine.limits, engine.scheduler[0], engine.batch[0]
    admitted = NONE
    while scheduler.waiting > 0:
        if batch.budget <= 0 or scheduler.running >= limits.max_num_seqs:
            # The budget ends the scan of this step only.
            if batch.budget > 0:
                scheduler.scan_state = SEQS_FULL
            if scheduler.gate_possible and admitted != NONE:
                batch.skipped = waiting_before(engine, admitted)
            break
        r = next_past_gate(engine)
        if r == NONE:
            scheduler.scan_state = GATED
            batch.skipped = scheduler.waiting
            break
        request = engine.requests[r]
        tokens = min(request.prefill - request.cached, batch.budget)
        wanted = blocks(request.cached + tokens, limits.block_size)
        must_fit = blocks(request.prefill, limits.block_size) if limits.whole_sequence_must_fit else wanted
        if must_fit <= scheduler.free_blocks:
            leave_queue(engine, r)
            admit(engine, r, tokens, wanted)
            admitted = r
        elif scheduler.running == 0 and scheduler.free_blocks == limits.total_blocks:
            # It can never fit: vLLM would wait for ever.
            leave_queue(engine, r)
            engine.served.state[r] = REJECTED
        else:
            scheduler.scan_state = KV_FULL
            scheduler.stopped_skips = waiting_before(engine, r) if scheduler.gate_possible else 0
            batch.skipped = scheduler.stopped_skips
            break


@inlined
def next_past_gate(engine: EngineState) -> int:
    """The first waiting request whose adapter is in the batch or finds a slot, or `NONE`.

    Only the first request of each adapter is looked at: those behind it wait for the same slot.
    """
    limits, scheduler, requests = engine.limits, engine.scheduler[0], engine.requests
    first_of_adapter = engine.queue.of_adapter.ends
    first: int = engine.queue.everyone.ends[0].first
    if not scheduler.gate_possible or scheduler.active < limits.max_loras:
        return first
    if not limits.skip_past:
        adapter = engine.adapters[requests[first].adapter]
        return first if adapter.base_model or adapter.scheduled > 0 else NONE
    found = NONE
    if scheduler.waiting_open > 0:
        for i in range(scheduler.active):
            r = first_of_adapter[engine.active[i]].first
            if r != NONE and (found == NONE or requests[r].key < requests[found].key):
                found = r
        if scheduler.base_models > 0:
            for a in range(len(engine.adapters)):
                if engine.adapters[a].base_model:
                    r = first_of_adapter[a].first
                    if r != NONE and (found == NONE or requests[r].key < requests[found].key):
                        found = r
    return found


@inlined
def admit(engine: EngineState, r: int, tokens: int, wanted: int) -> None:
    """A request joins the end of the running list with its first chunk of `tokens`, and takes `wanted` blocks."""
    scheduler, batch, request = engine.scheduler[0], engine.batch[0], engine.requests[r]
    engine.served.state[r] = RUNNING
    append(engine.running, 0, r)
    scheduler.running += 1
    join_batch(engine, request.adapter)
    scheduler.free_blocks -= wanted
    request.computed, request.granted = request.cached + tokens, tokens
    scheduler.kv_tokens += request.computed
    batch.budget -= tokens
    batch.prompt_tokens += tokens
    if request.computed == request.prefill:
        engine.prefilled[batch.prefilled] = r
        batch.prefilled += 1
    else:
        scheduler.partial = r
