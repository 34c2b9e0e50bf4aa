"""The adapters of the batch: those of the requests that this step schedules. They hold the slots (LoRA gate)."""

from __future__ import annotations

from twin.compiled import inlined
from twin.engine.state import NONE, EngineState


@inlined
def join_batch(engine: EngineState, a: int) -> None:
    """One more request of adapter `a` is scheduled."""
    scheduler, adapter = engine.scheduler[0], engine.adapters[a]
    adapter.scheduled += 1
    if adapter.scheduled == 1 and not adapter.base_model:
        engine.active[scheduler.active] = a
        adapter.active_at = scheduler.active
        scheduler.active += 1
        adapter.joined_step = scheduler.step
        scheduler.waiting_open += adapter.waiting
        if not adapter.in_slot:
            engine.batch[0].new_adapter = True


@inlined
def leave_batch(engine: EngineState, a: int, last_step: int) -> None:
    """One request of adapter `a` less is scheduled; `last_step` is the last step that had it."""
    scheduler, adapter = engine.scheduler[0], engine.adapters[a]
    adapter.scheduled -= 1
    if adapter.scheduled == 0 and not adapter.base_model:
        adapter.touched_step = last_step
        # The last one of `active` takes its place.
        scheduler.active -= 1
        moved = engine.active[scheduler.active]
        engine.active[adapter.active_at] = moved
        engine.adapters[moved].active_at = adapter.active_at
        adapter.active_at = NONE
        scheduler.waiting_open -= adapter.waiting
