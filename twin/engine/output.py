"""What a step produces: tokens, finished requests, and the blocks and places that they give back."""

from __future__ import annotations

import numpy as np

from twin.compiled import inlined
from twin.engine.batch import leave_batch
from twin.engine.blocks import blocks, start_decoding, stop_decoding, tokens_computed
from twin.engine.lists import unlink
from twin.engine.record import log
from twin.engine.state import FINISHED, FINISHED_STATE, NONE, SCAN, EngineState


@inlined
def update_from_step_before(engine: EngineState) -> None:
    """Async: only now, with this step scheduled, is the output of the one before processed: what it finished leaves."""
    scheduler, batch = engine.scheduler[0], engine.batch[0]
    batch.reason, batch.free_blocks, batch.running = scheduler.scan_state, scheduler.free_blocks, scheduler.running
    if scheduler.leaving > 0:
        for i in range(scheduler.leaving):
            if engine.requests[engine.leaving[i]].leaving:  # not preempted meanwhile
                engine.requests[engine.leaving[i]].leaving = False
                leave(engine, engine.leaving[i])
        scheduler.leaving = 0
        scheduler.scan_state = SCAN


@inlined
def leave(engine: EngineState, r: int) -> None:
    """A finished request gives back its KV blocks and its place among the running ones."""
    scheduler = engine.scheduler[0]
    scheduler.free_blocks += blocks(engine.requests[r].computed, engine.limits.block_size)
    unlink(engine.running, 0, r)
    scheduler.running -= 1


@inlined
def update_from_output(engine: EngineState) -> None:
    """A request whose prefill is complete gets its first token and decodes from the next step on.

    A decode gets a token a step, which nobody has to write down: only those with their last token are looked at.
    """
    scheduler, batch = engine.scheduler[0], engine.batch[0]
    scheduler.kv_tokens += scheduler.decodes
    for i in range(batch.prefilled):
        r = engine.prefilled[i]
        request = engine.requests[r]
        request.produced += 1
        if np.isnan(engine.served.first_token_s[r]):
            engine.served.first_token_s[r] = engine.clock[0].gpu_end_s
        if request.produced < request.output:
            start_decoding(engine, r)
        else:
            finish(engine, r)
    ends = engine.finishing.ends[scheduler.step % len(engine.finishing.ends)]
    while ends.first != NONE:
        r = ends.first
        request = engine.requests[r]
        request.computed = tokens_computed(engine, r) + 1
        request.produced = request.output
        stop_decoding(engine, r)
        ends.first = engine.finishing.links[r].after
        finish(engine, r)
    ends.last = NONE


@inlined
def finish(engine: EngineState, r: int) -> None:
    """A request has its last token."""
    scheduler, request = engine.scheduler[0], engine.requests[r]
    engine.served.finish_s[r] = engine.clock[0].gpu_end_s
    engine.served.state[r] = FINISHED_STATE
    log(engine, FINISHED, r, 0)
    if engine.limits.client_ports > 0:
        engine.figures.finish_s[scheduler.finished] = engine.clock[0].gpu_end_s
    scheduler.finished += 1
    scheduler.kv_tokens -= request.computed
    leave_batch(engine, request.adapter, scheduler.step)
    if engine.limits.async_scheduling:
        engine.leaving[scheduler.leaving] = r
        request.leaving = True
        scheduler.leaving += 1
    else:
        leave(engine, r)
    scheduler.scan_state = SCAN
