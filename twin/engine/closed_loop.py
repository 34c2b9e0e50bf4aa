"""Finite loads: when the last request is done, and, of a closed loop, when each one was sent.

A benchmark sends N requests, at most C at a time: the next one goes out when one comes back. Its times of arrival
follow from the server's, so the engine is run a step at a time; with these times it is a load like any other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from twin.compiled import compiled
from twin.engine.engine import advance
from twin.engine.play import engine_of, limits_of, run_requests
from twin.engine.state import EngineState
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.traffic.streams import set_order
from twin.workload.requests import Requests

#: No finite load takes longer, seconds: a year.
LONGEST_S = 31_536_000.0


@compiled
def advance_closed_loop(engine: EngineState, total: int, concurrency: int, until_s: float) -> None:
    """Runs the engine until all requests are done; a place that is free is taken by the next one at once."""
    clock, scheduler = engine.clock[0], engine.scheduler[0]
    while clock.now_s < until_s:
        inside = scheduler.running + scheduler.waiting + scheduler.known - scheduler.upcoming
        while scheduler.known < total and inside < concurrency:
            engine.sent.arrival_s[scheduler.known] = clock.now_s
            scheduler.known += 1
            inside += 1
        if inside == 0:
            break
        # One step: the next is scheduled later than now.
        advance(engine, np.nextafter(clock.now_s, np.inf))


def closed_loop(
    requests: Requests, column: Column, calibration: Calibration, *, concurrency: int, seed: int
) -> Requests:
    """The requests, in their order, with the times at which a client with so many open ones sends them.

    Raises:
        InputError: several servers share the GPU.
    """
    setting = column.setting
    limits = limits_of(setting, calibration, adapters=len(column.adapters), horizon_s=LONGEST_S)
    none = Requests(np.empty(0), *(np.empty(0, np.int32) for _ in range(4)))
    engine = engine_of(
        none, column.adapters, setting, calibration, limits, walk=_walk(column, seed), capacity=len(requests),
        longest_output=int(requests.output.max()),
    )  # fmt: skip
    for name in ("adapter", "prompt", "cached", "output"):
        getattr(engine.sent, name)[:] = getattr(requests, name)
    advance_closed_loop(engine, len(requests), concurrency, LONGEST_S)
    return replace(requests, arrival_s=engine.sent.arrival_s.copy())


def end_s(requests: Requests, column: Column, calibration: Calibration, *, seed: int) -> float:
    """When the last request is done, seconds after the start.

    Raises:
        InputError: it never is.
    """
    out, _ = run_requests(
        requests, column.adapters, column.setting, calibration, horizon_s=LONGEST_S, walk=_walk(column, seed)
    )
    undone = int(np.isnan(out.finish_s).sum())
    if undone:
        raise InputError(
            f"{undone} of {len(requests)} requests are never done",
            where="requests, trace",
            remedy="leave out requests that do not fit into the KV cache, or give the server more memory",
        )
    return float(np.nextafter(out.finish_s.max(), np.inf))


def _walk(column: Column, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return set_order([a.adapter_id for a in column.adapters], seed)
