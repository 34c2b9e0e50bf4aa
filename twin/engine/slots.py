"""Adapter slots and host memory: two caches, the least recently touched adapter goes first.

`set_active_adapters` of vLLM walks the batch's adapters in set order, touching both caches, and evicts the least
recently *touched* adapter, which may be one of the batch that the walk has not reached yet: it is then loaded again,
and so on (the reload cascade). An adapter in a slot is in host memory too, and an eviction there frees the slot.

When an adapter was last touched need not be written down in every step: those that stayed in the batch were touched in
the previous step, in set order, and the others (idle) when they last were in a batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import inlined
from twin.engine.record import log
from twin.engine.state import EVICTED, HOST, LOADED, NONE, SLOT, EngineState


@inlined
def load_adapters(engine: EngineState) -> None:
    """Loads what the batch needs: disk -> host memory -> slot. Only a batch that gained an adapter can need it."""
    engine.batch[0].loads, engine.batch[0].load_s = 0, 0.0
    if engine.batch[0].new_adapter:
        walk_batch(engine)


@inlined
def walk_batch(engine: EngineState) -> None:
    """Touches the batch's adapters in set order and loads those that are missing. Loads block the step."""
    limits, scheduler, adapters, walk = engine.limits, engine.scheduler[0], engine.adapters, engine.walk
    totals, batch = engine.figures.totals[0], engine.batch[0]
    idle_in_slots, idle_in_host = list_idle(engine)
    ahead_in_slots, ahead_in_host = 0, 0
    disk_loads, slot_s, disk_s = 0, 0.0, 0.0
    for place in range(len(walk)):
        a = walk[place]
        adapter = adapters[a]
        if adapter.scheduled == 0 or adapter.base_model:
            continue
        if not adapter.in_host:
            if scheduler.in_host >= limits.max_cpu_loras:
                victim = least_recently_touched_idle(engine, engine.idle_in_host, idle_in_host, HOST)
                victim, ahead_in_host = least_recently_touched(engine, victim, place, ahead_in_host, HOST)
                evict_from_host(engine, victim)
            adapter.in_host = True
            scheduler.in_host += 1
            disk_loads += 1
            disk_s += adapter.disk_s
            log(engine, LOADED, a, HOST)
        if not adapter.in_slot:
            if scheduler.in_slots >= limits.max_loras:
                victim = least_recently_touched_idle(engine, engine.idle_in_slots, idle_in_slots, SLOT)
                victim, ahead_in_slots = least_recently_touched(engine, victim, place, ahead_in_slots, SLOT)
                evict_from_slot(engine, victim)
            adapter.in_slot = True
            scheduler.in_slots += 1
            batch.loads += 1
            slot_s += adapter.load_s
            log(engine, LOADED, a, SLOT)
        adapter.touched_step = scheduler.step
    batch.load_s = slot_s + disk_s
    totals.loads += batch.loads
    totals.disk_loads += disk_loads
    totals.load_s += slot_s
    totals.disk_s += disk_s


@inlined
def list_idle(engine: EngineState) -> tuple[int, int]:
    """Fills `idle_in_slots` and `idle_in_host` with the adapters that were not in the previous batch; how many each."""
    in_slots, in_host, step = 0, 0, engine.scheduler[0].step
    bounded = engine.limits.max_cpu_loras < len(engine.adapters)
    for a in range(len(engine.adapters)):
        adapter = engine.adapters[a]
        if adapter.scheduled == 0 or adapter.joined_step == step:
            if adapter.in_slot:
                engine.idle_in_slots[in_slots] = a
                in_slots += 1
            if bounded and adapter.in_host:
                engine.idle_in_host[in_host] = a
                in_host += 1
    return in_slots, in_host


@inlined
def is_in(engine: EngineState, a: int, cache: int) -> bool:
    """Whether an adapter is in a cache, `SLOT` or `HOST`."""
    found: bool = engine.adapters[a].in_slot if cache == SLOT else engine.adapters[a].in_host
    return found


@inlined
def least_recently_touched_idle(engine: EngineState, idle: NDArray[np.int32], count: int, cache: int) -> int:
    """Of the adapters in `idle` that are still in the cache and that the walk has not touched; or `NONE`."""
    victim = NONE
    for i in range(count):
        a = idle[i]
        adapter = engine.adapters[a]
        if not is_in(engine, a, cache) or adapter.touched_step >= engine.scheduler[0].step:
            continue
        if adapter.scheduled > 0 and not engine.limits.reload_cascade:
            continue
        if (
            victim == NONE
            or adapter.touched_step < engine.adapters[victim].touched_step
            or (
                adapter.touched_step == engine.adapters[victim].touched_step
                and adapter.place < engine.adapters[victim].place
            )
        ):
            victim = a
    return victim


@inlined
def least_recently_touched(engine: EngineState, idle: int, place: int, ahead: int, cache: int) -> tuple[int, int]:
    """The adapter to evict while the walk is at `place`: the idle one, or one that the walk has yet to reach.

    Args:
        idle: the least recently touched of the idle ones, or `NONE`.
        ahead: place up to which the walk has been searched for victims.

    Returns:
        The adapter, and the new `ahead`.
    """
    adapters, walk, step = engine.adapters, engine.walk, engine.scheduler[0].step
    victim = idle
    if engine.limits.reload_cascade and (victim == NONE or adapters[victim].touched_step == step - 1):
        ahead = max(ahead, place + 1)
        while ahead < len(walk):
            adapter = adapters[walk[ahead]]
            if is_in(engine, walk[ahead], cache) and adapter.scheduled > 0 and adapter.joined_step < step:
                break
            ahead += 1
        if ahead < len(walk) and (victim == NONE or ahead < adapters[victim].place):
            victim = walk[ahead]
    return victim, ahead


@inlined
def evict_from_host(engine: EngineState, a: int) -> None:
    """An adapter leaves host memory, and with it its slot."""
    engine.adapters[a].in_host = False
    engine.scheduler[0].in_host -= 1
    log(engine, EVICTED, a, HOST)
    if engine.adapters[a].in_slot:
        evict_from_slot(engine, a)


@inlined
def evict_from_slot(engine: EngineState, a: int) -> None:
    """An adapter leaves its slot."""
    engine.adapters[a].in_slot = False
    engine.scheduler[0].in_slots -= 1
    log(engine, EVICTED, a, SLOT)
