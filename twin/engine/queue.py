"""The waiting queue: requests arrive at its end, preempted ones return to its front."""

from __future__ import annotations

from typing import Any

from twin.compiled import inlined
from twin.engine.lists import append, prepend, unlink
from twin.engine.state import GATED, NONE, REFUSED, SCAN, TIME_WAIT_S, EngineState


@inlined
def add_arrivals(engine: EngineState) -> None:
    """Requests that have arrived by now join the end of the queue."""
    scheduler, totals, sent = engine.scheduler[0], engine.figures.totals[0], engine.sent
    now_s = engine.clock[0].now_s
    while scheduler.upcoming < scheduler.known and sent.arrival_s[scheduler.upcoming] <= now_s:
        r = scheduler.upcoming
        scheduler.upcoming += 1
        if engine.limits.client_ports > 0 and not client_has_port(engine, sent.arrival_s[r]):
            engine.served.state[r] = REFUSED
            continue
        request = engine.requests[r]
        request.adapter, request.prompt, request.cached = sent.adapter[r], sent.prompt[r], sent.cached[r]
        request.output, request.prefill, request.key = sent.output[r], sent.prompt[r], r
        append(engine.queue.everyone, 0, r)
        append(engine.queue.of_adapter, request.adapter, r)
        if scheduler.gate_possible:
            count(engine.queue.arrived, r, 1)
        note_waiting(engine, request.adapter)
        adapter = engine.adapters[request.adapter]
        passes_gate = adapter.base_model or adapter.scheduled > 0
        if scheduler.scan_state == GATED and (passes_gate or scheduler.active < engine.limits.max_loras):
            scheduler.scan_state = SCAN
    totals.max_waiting = max(totals.max_waiting, scheduler.waiting)


@inlined
def client_has_port(engine: EngineState, arrival_s: float) -> bool:
    """Whether the measuring client can open a connection; a closed one keeps its port for `TIME_WAIT_S`."""
    scheduler, finish_s = engine.scheduler[0], engine.figures.finish_s
    while scheduler.released < scheduler.finished and finish_s[scheduler.released] <= arrival_s - TIME_WAIT_S:
        scheduler.released += 1
    open_ports: int = scheduler.running + scheduler.waiting + (scheduler.finished - scheduler.released)
    return open_ports < engine.limits.client_ports


@inlined
def return_to_front(engine: EngineState, r: int) -> None:
    """A preempted request leads the queue."""
    scheduler, request = engine.scheduler[0], engine.requests[r]
    request.key = scheduler.front_key
    scheduler.front_key -= 1
    scheduler.waiting_preempted += 1
    prepend(engine.queue.everyone, 0, r)
    prepend(engine.queue.of_adapter, request.adapter, r)
    note_waiting(engine, request.adapter)


@inlined
def note_waiting(engine: EngineState, a: int) -> None:
    """One more request waits for adapter `a`."""
    scheduler, adapter = engine.scheduler[0], engine.adapters[a]
    adapter.waiting += 1
    scheduler.waiting += 1
    if adapter.base_model or adapter.scheduled > 0:
        scheduler.waiting_open += 1


@inlined
def leave_queue(engine: EngineState, r: int) -> None:
    """A request is admitted, or rejected."""
    scheduler, request = engine.scheduler[0], engine.requests[r]
    adapter = engine.adapters[request.adapter]
    unlink(engine.queue.everyone, 0, r)
    unlink(engine.queue.of_adapter, request.adapter, r)
    adapter.waiting -= 1
    scheduler.waiting -= 1
    if request.key < 0:
        scheduler.waiting_preempted -= 1
    elif scheduler.gate_possible:
        count(engine.queue.arrived, r, -1)
    if adapter.base_model or adapter.scheduled > 0:
        scheduler.waiting_open -= 1


@inlined
def waiting_before(engine: EngineState, r: int) -> int:
    """Waiting requests ahead of `r`'s place in the queue: those that a scan up to `r` has gone past."""
    key = engine.requests[r].key
    preempted: int = engine.scheduler[0].waiting_preempted
    if key >= 0:
        return preempted + counted_before(engine.queue.arrived, r)
    ahead, other = 0, engine.queue.everyone.ends[0].first
    while other != NONE and engine.requests[other].key < key:
        ahead += 1
        other = engine.queue.everyone.links[other].after
    return ahead


@inlined
def count(tree: Any, r: int, value: int) -> None:
    """Adds to the number at place `r` of a Fenwick tree (Fenwick 1994), which gives sums in logarithmic time."""
    i = r + 1
    while i < len(tree):
        tree[i] += value
        i += i & (-i)


@inlined
def counted_before(tree: Any, r: int) -> int:
    """Sum of the numbers before place `r` of a Fenwick tree."""
    total = 0
    i = r
    while i > 0:
        total += tree[i]
        i -= i & (-i)
    return total
