"""The engine loop: vLLM V1's scheduler, KV cache and adapter slots, one step at a time.

`advance` is the loop. Its phases are those of `twin.engine.reference`, which says the same slowly and in plain Python:
read that first. What differs is that nothing here looks at every request in every step, so that a step without events
costs some forty nanoseconds:

* all decoding requests advance together, so that the step in which one finishes is known when it starts to decode
  (`finishing`), and those that need another KV block are counted by the remainder of their length (`growing`);
* waiting requests are also listed by adapter, and a scan looks at the first of each (`admission`);
* a scan that admits nobody is not repeated until something changes (`scheduler.scan_state`).

Rules: docs/twin.md lists them, docs/scheduler.md says how they are tested against vLLM's own code.
"""

from __future__ import annotations

from twin.compiled import compiled
from twin.engine.admission import schedule_waiting
from twin.engine.clock import run_step, wait_for_work
from twin.engine.output import update_from_output, update_from_step_before
from twin.engine.queue import add_arrivals
from twin.engine.record import log_schedule
from twin.engine.running import schedule_running
from twin.engine.slots import load_adapters
from twin.engine.state import EngineState


@compiled
def advance(engine: EngineState, until_s: float) -> None:
    """Runs the engine until the next step would be scheduled at `until_s` or later, or nothing is left to do.

    All that the engine knows lies in its arrays: it may be run on from there, with the same result as without the stop,
    and be sent more requests in between (`twin.engine.build.add_request`).
    """
    clock, scheduler, batch = engine.clock[0], engine.scheduler[0], engine.batch[0]
    while clock.now_s < until_s:
        add_arrivals(engine)
        schedule_running(engine)
        schedule_waiting(engine)
        update_from_step_before(engine)
        if scheduler.decodes + batch.prompt_tokens > 0:
            log_schedule(engine)
            load_adapters(engine)
            run_step(engine)
            update_from_output(engine)
        elif not wait_for_work(engine):
            break
