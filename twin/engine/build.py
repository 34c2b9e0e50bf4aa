"""An engine is made, and sent requests."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from twin.engine import state
from twin.engine.state import NONE, EngineState, Figures, Limits, Lists, Queue, Sent, Served
from twin.server.laws import StepTimeLaw
from twin.workload.requests import Requests

Array = NDArray[np.float64]
Scalar = TypeVar("Scalar", np.float64, np.int32)


def new_engine(
    requests: Requests,
    limits: Limits,
    *,
    slotless: NDArray[np.bool_],
    walk: NDArray[np.int32],
    load_s: Array,
    disk_s: Array,
    law: StepTimeLaw,
    bins: int,
    longest_output: int | None = None,
    capacity: int | None = None,
    hosted: bool = True,
    start_s: float = 0.0,
    trace_steps: int = 0,
    events: int = 0,
) -> EngineState:
    """An idle engine that knows these requests.

    Args:
        slotless: adapters that are the base model, (A,).
        walk: set order of the adapters, a permutation, (A,).
        load_s, disk_s: seconds to copy each adapter into a slot and from disk, (A,).
        bins: of the series over the window.
        longest_output: most output tokens of any request to come; None = of those given.
        capacity: most requests that will ever be added; None = those given.
        hosted: adapters were loaded in order at the start, as vLLM does with those of its command line: the last
            `max_cpu_loras` are in host memory and the last `max_loras` in slots; False = none.
        start_s: when it starts to serve.
        trace_steps, events: most rows to record of either.
    """
    adapters, known = len(slotless), len(requests)
    size = max(capacity or 0, known)
    longest = max(longest_output or 0, int(requests.output.max()) if known else 0, 1)
    most_running = limits.max_num_seqs + 1

    def room(values: NDArray[Scalar]) -> NDArray[Scalar]:
        # Strided or read-only arrays would be another type to numba, which would compile the engine once more for them.
        if len(values) < size:
            values = np.concatenate((values, np.zeros(size - len(values), values.dtype)))
        return np.require(values, requirements=("C", "W"))

    def integers(length: int) -> NDArray[np.int32]:
        return np.zeros(length, np.int32)

    def lists(count: int) -> Lists:
        ends = np.full(2 * count, NONE, np.int32).view(state.ENDS)
        return Lists(ends, np.empty(size, state.LINK))

    by_adapter = _adapters(slotless, walk, load_s, disk_s, limits, hosted=hosted)
    scheduler = np.zeros(1, state.SCHEDULER)
    scheduler["known"], scheduler["free_blocks"], scheduler["partial"] = known, limits.total_blocks, NONE
    scheduler["front_key"] = -1
    scheduler["in_host"], scheduler["in_slots"] = by_adapter["in_host"].sum(), by_adapter["in_slot"].sum()
    scheduler["base_models"] = slotless.sum()
    gate_possible = bool((~slotless).sum() > limits.max_loras)
    scheduler["gate_possible"] = gate_possible
    return EngineState(
        limits=limits,
        law=law.as_array().view(state.LAW),
        sent=Sent(
            room(requests.arrival_s), room(requests.adapter), room(requests.prompt), room(requests.cached),
            room(requests.output),
        ),
        served=Served(np.full(size, np.nan), np.full(size, np.nan), np.zeros(size, np.int8)),
        requests=np.zeros(size, state.REQUEST),
        adapters=by_adapter,
        scheduler=scheduler,
        batch=np.zeros(1, state.BATCH),
        clock=np.full(2, start_s).view(state.CLOCK),
        queue=Queue(lists(1), lists(adapters), integers(size + 1 if gate_possible else 1)),
        running=lists(1),
        finishing=lists(longest + 2),
        growing=integers(limits.block_size),
        prefilled=integers(most_running),
        leaving=integers(most_running),
        active=integers(adapters),
        walk=walk,
        idle_in_slots=integers(adapters),
        idle_in_host=integers(adapters),
        figures=Figures(
            totals=np.zeros(1, state.TOTALS), running_bins=np.zeros(bins), waiting_bins=np.zeros(bins),
            itl_histogram=np.zeros(state.ITL_BINS), features=np.zeros(1, state.TERMS), blocked_s=np.zeros(4),
            finish_s=np.zeros(size if limits.client_ports > 0 else 1), trace=np.zeros(trace_steps, state.TRACE_ROW),
            events=np.zeros(events, state.EVENT),
        ),
    )  # fmt: skip


def _adapters(
    slotless: NDArray[np.bool_], walk: NDArray[np.int32], load_s: Array, disk_s: Array, limits: Limits, *, hosted: bool
) -> state.Records:
    """The adapters of an idle engine, (A,)."""
    adapters = np.zeros(len(slotless), state.ADAPTER)
    adapters["base_model"], adapters["load_s"], adapters["disk_s"] = slotless, load_s, disk_s
    adapters["place"][walk] = np.arange(len(walk))
    adapters["active_at"] = NONE
    # Touched in order before the first step: the first ones least recently.
    adapters["touched_step"] = np.arange(-len(slotless) - 1, -1)
    if hosted:
        adapters["in_host"][np.flatnonzero(~slotless)[-limits.max_cpu_loras :]] = True
        adapters["in_slot"][np.flatnonzero(~slotless)[-limits.max_loras :]] = True
    return adapters


def add_request(engine: EngineState, *, arrival_s: float, adapter: int, prompt: int, cached: int, output: int) -> int:
    """Sends a request to an engine that has room for it (`capacity`); returns its index.

    Requests are added in order of arrival, none before a time that the engine has been advanced to.
    """
    r, sent = int(engine.scheduler[0]["known"]), engine.sent
    sent.arrival_s[r], sent.adapter[r], sent.prompt[r] = arrival_s, adapter, prompt
    sent.cached[r], sent.output[r] = cached, output
    engine.scheduler["known"] = r + 1
    return r
