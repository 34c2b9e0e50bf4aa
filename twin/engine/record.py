"""The event log and the step trace: written where there is room, and read by nothing in the engine."""

from __future__ import annotations

from twin.compiled import inlined
from twin.engine.state import NONE, SCHEDULED, SKIPPED, EngineState


@inlined
def log(engine: EngineState, kind: int, index: int, value: int) -> None:
    """Writes one event; counts it even where there is no room left."""
    events, totals = engine.figures.events, engine.figures.totals[0]
    if len(events) > 0:
        if totals.events < len(events):
            event = events[totals.events]
            event.step, event.kind, event.index, event.value = engine.scheduler[0].step, kind, index, value
        totals.events += 1


@inlined
def log_schedule(engine: EngineState) -> None:
    """The requests of the batch in order, with their tokens, and those skipped at the LoRA gate in queue order."""
    if len(engine.figures.events) == 0:
        return
    r = engine.running.ends[0].first
    while r != NONE:
        request = engine.requests[r]
        if request.decoding:
            log(engine, SCHEDULED, r, 1)
        elif request.granted > 0:
            log(engine, SCHEDULED, r, request.granted)
            request.granted = 0
        r = engine.running.links[r].after
    r = engine.queue.everyone.ends[0].first
    for _ in range(engine.batch[0].skipped):
        log(engine, SKIPPED, r, 0)
        r = engine.queue.everyone.links[r].after


@inlined
def trace_step(engine: EngineState, start_s: float, duration_s: float) -> None:
    """One row a step, `TRACE_COLUMNS`."""
    scheduler, batch, totals = engine.scheduler[0], engine.batch[0], engine.figures.totals[0]
    if totals.traced < len(engine.figures.trace):
        row = engine.figures.trace[totals.traced]
        row.start_s, row.duration_s, row.step = start_s, duration_s, scheduler.step
        row.decodes, row.prompt_tokens, row.kv_tokens = scheduler.decodes, batch.prompt_tokens, scheduler.kv_tokens
        row.adapters, row.running, row.waiting = scheduler.active, batch.running, scheduler.waiting
        row.skipped, row.free_blocks, row.loads = batch.skipped, batch.free_blocks, batch.loads
        row.preemptions = batch.preempted
        totals.traced += 1
