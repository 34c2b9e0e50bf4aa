"""An engine's state: made, fed with requests, read out. The loop itself is `twin.engine.kernel.advance`."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from twin.engine import kernel
from twin.engine.kernel import EngineState, KernelOutput, Limits
from twin.errors import InputError
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
    law: Array,
    bins: int,
    longest_output: int | None = None,
    capacity: int | None = None,
    hosted: bool = True,
    trace_steps: int = 0,
    events: int = 0,
) -> EngineState:
    """An idle engine at time 0 that knows these requests.

    Args:
        slotless: adapters that are the base model, (A,).
        walk: set order of the adapters, a permutation, (A,).
        load_s, disk_s: seconds to copy each adapter into a slot and from disk, (A,).
        law: step-time coefficients, (18,).
        longest_output: most output tokens of any request to come; None = of those given.
        capacity: most requests that will ever be added; None = those given.
        hosted: adapters were loaded in order at the start, as vLLM does with those of its command line: the last
            `host_adapters` are in host memory and the last `max_loras` in slots; False = none.
        trace_steps, events: most rows to record of either.
    """
    adapters, known = len(slotless), len(requests)
    size = max(capacity or 0, known)
    longest = max(longest_output or 0, int(requests.output.max()) if known else 0, 1)
    loras = int((~slotless).sum())

    def room(values: NDArray[Scalar]) -> NDArray[Scalar]:
        return values if len(values) == size else np.concatenate((values, np.zeros(size - len(values), values.dtype)))

    def links(length: int) -> NDArray[np.int32]:
        return np.full(length, kernel.NONE, np.int32)

    place = np.empty(adapters, np.int32)
    place[walk] = np.arange(adapters, dtype=np.int32)
    in_host, in_slots = np.zeros(adapters, np.bool_), np.zeros(adapters, np.bool_)
    if hosted:
        in_host[np.flatnonzero(~slotless)[-limits.host_adapters :]] = True
        in_slots[np.flatnonzero(~slotless)[-limits.max_loras :]] = True
    n = np.zeros(kernel.INTEGERS, np.int64)
    n[kernel.N_KNOWN], n[kernel.FREE], n[kernel.PARTIAL] = known, limits.total_blocks, kernel.NONE
    n[kernel.FRONT_KEY], n[kernel.N_HOSTED] = -1, int(in_host.sum())
    n[kernel.N_RESIDENT] = int(in_slots.sum())
    prompt = room(requests.prompt)
    return EngineState(
        arrival=room(requests.arrival_s), adapter=room(requests.adapter), prompt=prompt, cached=room(requests.cached),
        output=room(requests.output), slotless=slotless, walk=walk, place=place, load_s=load_s, disk_s=disk_s, law=law,
        first=np.full(size, np.nan), finish=np.full(size, np.nan), state=np.zeros(size, np.int8),
        key=np.zeros(size, np.int64), gprev=links(size), gnext=links(size), aprev=links(size), anext=links(size),
        ghead=links(1), gtail=links(1), ahead=links(adapters), atail=links(adapters),
        waiting_of=np.zeros(adapters, np.int32),
        # Nobody is skipped if every adapter has a slot.
        tree=np.zeros(size + 1 if loras > limits.max_loras else 1, np.int32),
        rprev=links(size), rnext=links(size), rhead=links(1), rtail=links(1), runs=np.zeros(adapters, np.int32),
        active=np.zeros(adapters, np.int32), active_at=links(adapters), produced=np.zeros(size, np.int32),
        need=prompt.astype(np.int32), computed=np.zeros(size, np.int32), entry_step=np.zeros(size, np.int64),
        decoding=np.zeros(size, np.bool_), bucket=links(longest + 2), bucket_end=links(longest + 2), bprev=links(size),
        bnext=links(size), residues=np.zeros(limits.block, np.int32),
        fresh=np.zeros(limits.max_num_seqs + 1, np.int32), leaving=np.zeros(limits.max_num_seqs + 1, np.int32),
        is_leaving=np.zeros(size, np.bool_), granted=np.zeros(size if events else 1, np.int32),
        resident=in_slots, hosted=in_host,
        # Touched in order: the first ones least recently.
        last_step=np.arange(-adapters - 1, -1, dtype=np.int64), since=np.zeros(adapters, np.int64),
        old=np.zeros(adapters, np.int32), old_host=np.zeros(adapters, np.int32), running_bins=np.zeros(bins),
        waiting_bins=np.zeros(bins), itl_histogram=np.zeros(kernel.ITL_BINS), features=np.zeros(kernel.FEATURES),
        blocked_s=np.zeros(4), finish_order=np.zeros(size if limits.client_ports > 0 else 1),
        trace=np.zeros((trace_steps, len(kernel.TRACE_COLUMNS))), events=np.zeros((events, 4), np.int64), n=n,
        x=np.zeros(kernel.FLOATS),
    )  # fmt: skip


def add_request(state: EngineState, *, arrival_s: float, adapter: int, prompt: int, cached: int, output: int) -> int:
    """Sends a request to an engine that has room for it (`capacity`); returns its index.

    Requests are added in order of arrival, none before a time that the engine has been advanced to.
    """
    r = int(state.n[kernel.N_KNOWN])
    state.arrival[r], state.adapter[r], state.prompt[r] = arrival_s, adapter, prompt
    state.cached[r], state.output[r], state.need[r] = cached, output, prompt
    state.n[kernel.N_KNOWN] = r + 1
    return r


def outcome(state: EngineState) -> KernelOutput:
    """What an engine has done so far.

    Raises:
        InputError: more events happened than there was room for.
    """
    n, x = state.n, state.x
    if len(state.events) and n[kernel.N_EVENTS] > len(state.events):
        raise InputError(
            f"{int(n[kernel.N_EVENTS])} events do not fit into events={len(state.events)}",
            remedy="raise events, or simulate a shorter window",
        )
    known = int(n[kernel.N_KNOWN])
    return KernelOutput(
        first_token_s=state.first[:known], finish_s=state.finish[:known], state=state.state[:known],
        running_bins=state.running_bins, waiting_bins=state.waiting_bins, kv_integral=float(x[kernel.KV_INTEGRAL]),
        itl_histogram=state.itl_histogram, features=state.features, blocked_s=state.blocked_s,
        steps=int(n[kernel.N_STEP]), busy_s=float(x[kernel.BUSY_S]), loads=int(n[kernel.LOADS]),
        load_s=float(x[kernel.LOAD_S]), disk_loads=int(n[kernel.DISK_LOADS]), disk_s=float(x[kernel.DISK_S]),
        preemptions=int(n[kernel.PREEMPTIONS]), skips=int(n[kernel.SKIPS]), max_waiting=int(n[kernel.MAX_WAITING]),
        free_blocks_end=int(n[kernel.FREE]), trace=state.trace[: int(n[kernel.N_TRACED])],
        events=state.events[: int(n[kernel.N_EVENTS])],
    )  # fmt: skip
