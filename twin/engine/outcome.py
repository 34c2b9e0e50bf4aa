"""What an engine has done."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.engine.state import TRACE_COLUMNS, EngineState
from twin.errors import InputError


class KernelOutput(NamedTuple):
    """Arrays of one simulation of N requests; times in seconds, NaN where something did not happen.

    Args:
        state: `WAITING` (or not yet arrived), `RUNNING`, `FINISHED_STATE`, `REJECTED` by the engine, `REFUSED` by the
            client, (N,).
        features: sums over steps of each term of the step-time law, in the order of `twin.server.laws.STEP_TERMS`.
        blocked_s: time with requests waiting, by why the last scan of the queue ended: budget or preemption, LoRA
            gate, KV blocks, `max_num_seqs`, (4,).
        loads, disk_loads: adapters copied host -> slot and disk -> host, taking `load_s` and `disk_s`.
        trace: one row a step, columns `TRACE_COLUMNS`.
        events: rows (step, kind, request or adapter, value), (E, 4).
    """

    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    state: NDArray[np.int8]
    running_bins: NDArray[np.float64]
    waiting_bins: NDArray[np.float64]
    kv_integral: float
    itl_histogram: NDArray[np.float64]
    features: NDArray[np.float64]
    blocked_s: NDArray[np.float64]
    steps: int
    busy_s: float
    loads: int
    load_s: float
    disk_loads: int
    disk_s: float
    preemptions: int
    skips: int
    max_waiting: int
    free_blocks_end: int
    trace: NDArray[np.float64]
    events: NDArray[np.int64]


def outcome(engine: EngineState) -> KernelOutput:
    """What an engine has done so far.

    Raises:
        InputError: more events happened than there was room for.
    """
    scheduler, figures, served = engine.scheduler[0], engine.figures, engine.served
    totals = figures.totals[0]
    happened, room = int(totals["events"]), len(figures.events)
    if happened > room:
        raise InputError(
            f"{happened} events do not fit into events={room}", remedy="raise events, or simulate a shorter window"
        )
    known = int(scheduler["known"])
    return KernelOutput(
        first_token_s=served.first_token_s[:known],
        finish_s=served.finish_s[:known],
        state=served.state[:known],
        running_bins=figures.running_bins,
        waiting_bins=figures.waiting_bins,
        kv_integral=float(totals["kv_block_s"]),
        itl_histogram=figures.itl_histogram,
        features=figures.features.view(np.float64),
        blocked_s=figures.blocked_s,
        steps=int(scheduler["step"]),
        busy_s=float(totals["busy_s"]),
        loads=int(totals["loads"]),
        load_s=float(totals["load_s"]),
        disk_loads=int(totals["disk_loads"]),
        disk_s=float(totals["disk_s"]),
        preemptions=int(totals["preemptions"]),
        skips=int(totals["skips"]),
        max_waiting=int(totals["max_waiting"]),
        free_blocks_end=int(scheduler["free_blocks"]),
        trace=figures.trace[: int(totals["traced"])].view(np.float64).reshape(-1, len(TRACE_COLUMNS)),
        events=figures.events[:happened].view(np.int64).reshape(-1, 4),
    )


def ran_out_of_room(engine: EngineState) -> bool:
    """Whether there were more steps or events than rows for them."""
    totals, figures = engine.figures.totals[0], engine.figures
    return bool(totals["events"] > len(figures.events) or engine.scheduler[0]["step"] > len(figures.trace))


def requests_in_system(engine: EngineState) -> int:
    """Requests that were sent and have not finished."""
    scheduler = engine.scheduler[0]
    return int(scheduler["running"] + scheduler["waiting"] + scheduler["known"] - scheduler["upcoming"])
