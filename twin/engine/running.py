"""Scheduling the running requests, with the KV blocks that they grow into, and preemption where blocks run out."""

from __future__ import annotations

from twin.compiled import inlined
from twin.engine.batch import join_batch, leave_batch
from twin.engine.blocks import (
    blocks,
    blocks_of_chunk,
    blocks_of_decodes,
    step_of_finish,
    stop_decoding,
    tokens_computed,
)
from twin.engine.lists import unlink
from twin.engine.queue import return_to_front
from twin.engine.record import log
from twin.engine.state import NONE, PREEMPTED, SCAN, WAITING, EngineState


@inlined
def schedule_running(engine: EngineState) -> None:
    """Every decode takes one token, the partial prefill what is left of the token budget."""
    limits, scheduler, batch = engine.limits, engine.scheduler[0], engine.batch[0]
    scheduler.step += 1
    batch.preempted, batch.chunk, batch.new_adapter = 0, 0, False
    if scheduler.partial != NONE:
        schedule_partial_prefill(engine)
    needed = blocks_of_decodes(engine) + blocks_of_chunk(engine)
    if needed <= scheduler.free_blocks:
        scheduler.free_blocks -= needed
    else:
        preempt_for_blocks(engine)
    batch.budget = limits.max_num_batched_tokens - scheduler.decodes - batch.chunk
    batch.prompt_tokens, batch.prefilled = batch.chunk, 0
    if batch.chunk > 0:
        compute_chunk(engine)


@inlined
def schedule_partial_prefill(engine: EngineState) -> None:
    """The request whose prompt is partly computed gets its next chunk.

    Without budget it gets no token, and the batch holds its adapter for the others only.
    """
    scheduler, batch = engine.scheduler[0], engine.batch[0]
    request = engine.requests[scheduler.partial]
    batch.chunk = min(request.prefill - request.computed, engine.limits.max_num_batched_tokens - scheduler.decodes)
    if batch.chunk == 0 and scheduler.paused == 0:
        scheduler.paused = 1
        leave_batch(engine, request.adapter, scheduler.step - 1)
    elif batch.chunk > 0 and scheduler.paused == 1:
        scheduler.paused = 0
        join_batch(engine, request.adapter)


@inlined
def compute_chunk(engine: EngineState) -> None:
    """The partial prefill has its blocks: its chunk is part of this step."""
    scheduler, batch = engine.scheduler[0], engine.batch[0]
    request = engine.requests[scheduler.partial]
    request.computed += batch.chunk
    scheduler.kv_tokens += batch.chunk
    request.granted = batch.chunk
    if request.computed == request.prefill:
        engine.prefilled[batch.prefilled] = scheduler.partial
        batch.prefilled += 1
        scheduler.partial = NONE


@inlined
def preempt_for_blocks(engine: EngineState) -> None:
    """Gives blocks to the running requests one by one, in list order, taking them from the end of the list."""
    scheduler, batch = engine.scheduler[0], engine.batch[0]
    r, itself = engine.running.ends[0].first, False
    while r != NONE and not itself:
        wanted = 0
        if engine.requests[r].decoding:
            wanted = 1 if tokens_computed(engine, r) % engine.limits.block_size == 0 else 0
        elif r == scheduler.partial:
            wanted = blocks_of_chunk(engine)
        while scheduler.free_blocks < wanted and not itself:
            victim = engine.running.ends[0].last
            preempt(engine, victim)
            itself = victim == r
        if not itself:
            scheduler.free_blocks -= wanted
            r = engine.running.links[r].after
    scheduler.scan_state = SCAN
    engine.figures.totals[0].preemptions += batch.preempted


@inlined
def preempt(engine: EngineState, r: int) -> None:
    """The last running request gives up its blocks, returns to the front of the queue and is computed again later."""
    scheduler, batch, request = engine.scheduler[0], engine.batch[0], engine.requests[r]
    unlink(engine.running, 0, r)
    scheduler.running -= 1
    batch.preempted += 1
    log(engine, PREEMPTED, r, 0)
    if request.leaving:
        # Its last token is in flight: it finishes without running again.
        request.leaving = False
        scheduler.free_blocks += blocks(request.computed, engine.limits.block_size)
        return
    computed, scheduled = request.computed, True
    if request.decoding:
        computed = tokens_computed(engine, r)
        stop_decoding(engine, r)
        unlink(engine.finishing, step_of_finish(engine, r), r)
        request.produced += scheduler.step - 1 - request.entry_step
    else:
        scheduled = scheduler.paused == 0
        scheduler.partial, scheduler.paused, batch.chunk = NONE, 0, 0
    scheduler.free_blocks += blocks(computed, engine.limits.block_size)
    scheduler.kv_tokens -= computed
    request.prefill, request.computed = request.prompt + request.produced, 0
    engine.served.state[r] = WAITING
    if scheduled:
        leave_batch(engine, request.adapter, scheduler.step - 1)
    return_to_front(engine, r)
