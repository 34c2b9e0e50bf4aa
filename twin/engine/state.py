"""All that an engine knows, as named records.

Arrays have one entry for each of N requests, A adapters or S steps. Most are *structured*: one entry is a record with
named fields, and `engine.requests[r].computed` in compiled code reads and writes the field `computed` of request r.
What there is only one of (`scheduler`, `batch`, `clock`, `totals`, `law`) is an array of one record, because compiled
code can write to arrays only.

Requests and adapters are known by their index; `NONE` stands for "no request".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.server.laws import STEP_TERMS

NONE = -1
#: Why the last scan of the waiting queue ended; index into `Figures.blocked_s`.
SCAN, GATED, KV_FULL, SEQS_FULL = 0, 1, 2, 3
#: What became of a request.
WAITING, RUNNING, FINISHED_STATE, REJECTED, REFUSED = 0, 1, 2, 3, 4
#: Seconds for which a client's port stays in use after its connection was closed (TIME_WAIT of Linux).
TIME_WAIT_S = 60.0
#: Step durations are counted in bins of 1/4 ms, the last one open.
ITL_BINS, ITL_BINS_PER_MS = 4096, 4.0
#: Kinds of events: (step, kind, request or adapter, value).
SCHEDULED, SKIPPED, PREEMPTED, FINISHED, LOADED, EVICTED = 0, 1, 2, 3, 4, 5
#: Value of LOADED: host memory -> slot, or disk -> host memory; of EVICTED: from a slot, or from host memory.
SLOT, HOST = 0, 1
TRACE_COLUMNS = (
    "start_s", "duration_s", "decodes", "prompt_tokens", "kv_tokens", "adapters", "running", "waiting", "skipped",
    "free_blocks", "loads", "preemptions", "step",
)  # fmt: skip


def _floats(*names: str) -> np.dtype[np.void]:
    return np.dtype([(name, np.float64) for name in names])


#: A request that has arrived.
REQUEST = np.dtype(
    [
        ("key", np.int64),  # place in the waiting queue: its index, or negative for those preempted, latest first
        ("entry_step", np.int64),  # the step that made its prefill complete; it decodes in all later ones
        ("adapter", np.int32),
        ("prompt", np.int32),  # tokens
        ("cached", np.int32),  # of the prompt, found in the prefix cache
        ("output", np.int32),  # tokens it will produce
        ("produced", np.int32),  # tokens so far; while it decodes, at `entry_step`
        ("prefill", np.int32),  # tokens to compute before it decodes: the prompt and what was lost to a preemption
        ("computed", np.int32),  # tokens in the KV cache, unless it decodes: see `tokens_computed`
        ("granted", np.int32),  # prompt tokens in this step, for the event log
        ("decoding", np.bool_),
        ("leaving", np.bool_),  # async: its last token is in flight
    ],
    align=True,
)
ADAPTER = np.dtype(
    [
        ("load_s", np.float64),  # host memory -> slot
        ("disk_s", np.float64),  # disk -> host memory
        ("touched_step", np.int64),  # when it last was in a batch that loaded adapters, or left the batch
        ("joined_step", np.int64),  # since when it has been in every batch
        ("place", np.int32),  # in set order
        ("waiting", np.int32),  # its waiting requests
        ("scheduled", np.int32),  # its requests in the batch
        ("active_at", np.int32),  # index into `active`, or NONE
        ("base_model", np.bool_),  # needs no slot
        ("in_slot", np.bool_),
        ("in_host", np.bool_),
    ],
    align=True,
)
SCHEDULER = np.dtype(
    [
        ("known", np.int64),  # requests sent so far, with those that have not arrived
        ("upcoming", np.int64),  # the next one to arrive
        ("step", np.int64),  # number of the last step, from 1
        ("waiting", np.int64),  # requests in the waiting queue, and of these:
        ("waiting_open", np.int64),  # that the LoRA gate lets pass, whatever the slots
        ("waiting_preempted", np.int64),  # that were preempted and lead the queue
        ("front_key", np.int64),  # key of the next request that is preempted
        ("running", np.int64),  # requests in the running list, and of these:
        ("decodes", np.int64),  # that decode
        ("leaving", np.int64),  # async: whose last token is in flight
        ("partial", np.int64),  # the one whose prompt is partly computed, or NONE
        ("paused", np.int64),  # 1 = the partial prefill got no token: the batch does without its adapter
        ("active", np.int64),  # adapters of the batch, without the base model
        ("in_slots", np.int64),  # adapters in slots
        ("in_host", np.int64),  # adapters in host memory
        ("free_blocks", np.int64),
        ("kv_tokens", np.int64),  # tokens in the KV cache
        ("scan_state", np.int64),  # why the last scan of the waiting queue ended; SCAN = look again
        ("stopped_skips", np.int64),  # requests that the scan skipped before it ended for want of blocks
        ("in_flight", np.int64),  # async: 1 = a step runs while the next one is scheduled
        ("finished", np.int64),  # finished requests, and of these:
        ("released", np.int64),  # whose client port is free again
        ("base_models", np.int64),  # adapters that are the base model
        ("gate_possible", np.bool_),  # there are more adapters than slots
    ],
    align=True,
)
#: The step that is being made.
BATCH = np.dtype(
    [
        ("chunk", np.int64),  # tokens of the partial prefill
        ("budget", np.int64),  # tokens left of `max_num_batched_tokens`
        ("prompt_tokens", np.int64),
        ("prefilled", np.int64),  # requests whose prefill it completes
        ("preempted", np.int64),
        ("skipped", np.int64),  # waiting requests that the scan went past
        ("loads", np.int64),
        ("load_s", np.float64),  # loading into slots and from disk
        ("running", np.int64),  # requests running, KV blocks free and why requests wait when it was scheduled
        ("free_blocks", np.int64),
        ("reason", np.int64),
        ("new_adapter", np.bool_),  # an adapter joined that is in no slot
    ],
    align=True,
)
CLOCK = _floats(
    "now_s",  # when the next step is scheduled
    "gpu_end_s",  # when the last one ends
)
TOTALS = np.dtype(
    [
        ("loads", np.int64),
        ("disk_loads", np.int64),
        ("preemptions", np.int64),
        ("skips", np.int64),
        ("max_waiting", np.int64),
        ("traced", np.int64),  # rows of the trace
        ("events", np.int64),  # events that happened, more than there are rows for if the log is too short
        ("kv_block_s", np.float64),  # used KV blocks, integrated over time
        ("busy_s", np.float64),
        ("load_s", np.float64),
        ("disk_s", np.float64),
    ],
    align=True,
)
LAW = _floats(*STEP_TERMS, "graph_tokens")
TERMS = _floats(*STEP_TERMS)
TRACE_ROW = _floats(*TRACE_COLUMNS)
EVENT = np.dtype([(name, np.int64) for name in ("step", "kind", "index", "value")])
#: A doubly linked list of requests: its two ends, and a request's neighbours.
ENDS = np.dtype([("first", np.int32), ("last", np.int32)])
LINK = np.dtype([("before", np.int32), ("after", np.int32)])

#: An array of records. `Any`: a type checker knows no fields of records.
Records = Any


class Limits(NamedTuple):
    """What bounds an engine; names are vLLM's where it has one.

    Args:
        max_cpu_loras: adapters kept in host memory; as many as there are = no disk loads.
        block_size: tokens of a KV block.
        total_blocks: KV blocks without the null block.
        client_ports: connections of a measuring client; 0 = no limit. For replays only.
        horizon_s: length of the window, for the series.
        time_scale: factor on every step's time (for fitting).
        async_scheduling: schedule a step while the one before it runs.
        whole_sequence_must_fit: admission asks for the blocks of the whole sequence, not of its first chunk.
        skip_past: go on past requests that the LoRA gate holds back; False = they block those behind them.
        reload_cascade: slots are filled in set order, evicting the least recently touched adapter even where the
            batch needs it; False = one that the batch does not need.
    """

    max_loras: int
    max_lora_rank: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    total_blocks: int
    max_cpu_loras: int
    client_ports: int
    horizon_s: float
    time_scale: float
    async_scheduling: bool
    whole_sequence_must_fit: bool
    skip_past: bool
    reload_cascade: bool


class Lists(NamedTuple):
    """Linked lists of which a request is in one at most: `ends`, one a list, and `links`, (N,)."""

    ends: Records
    links: Records


class Sent(NamedTuple):
    """The requests as they were sent, in order of arrival, (N,); the first `scheduler.known` are filled in."""

    arrival_s: NDArray[np.float64]
    adapter: NDArray[np.int32]
    prompt: NDArray[np.int32]
    cached: NDArray[np.int32]
    output: NDArray[np.int32]


class Served(NamedTuple):
    """What became of the requests, (N,); times in seconds, NaN where something did not happen."""

    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    state: NDArray[np.int8]


class Queue(NamedTuple):
    """Waiting requests: all of them in queue order, and those of each adapter.

    `arrived` is a Fenwick tree over requests, (N + 1,): it counts those waiting, but for the preempted ones, before any
    place in the queue. Without a LoRA gate nobody is skipped and it is not kept.
    """

    everyone: Lists
    of_adapter: Lists
    arrived: NDArray[np.int32]


class Figures(NamedTuple):
    """What is measured; `docs/metrics.md`.

    Args:
        running_bins, waiting_bins: requests integrated over time, in equal bins of the window.
        itl_histogram: tokens by the duration of their step.
        features: sums over steps of each term of the step-time law.
        blocked_s: time with requests waiting, by `scan_state`, (4,).
        finish_s: times at which requests finished, in order; for `client_ports`.
        trace, events: one row a step, one an event, as far as there is room.
    """

    totals: Records
    running_bins: NDArray[np.float64]
    waiting_bins: NDArray[np.float64]
    itl_histogram: NDArray[np.float64]
    features: Records
    blocked_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    trace: Records
    events: Records


class EngineState(NamedTuple):
    """An engine; `twin.engine.build.new_engine` makes one, `twin.engine.engine.advance` runs it.

    Args:
        running: one list, in vLLM's order.
        finishing: decoding requests by the step after which they finish, modulo the number of lists (longest output
            + 2): all decoding requests advance together, so that the step is known when they start.
        growing: decoding requests by the step that needs a KV block more for them, modulo its size, (block_size,).
        prefilled, leaving: requests whose prefill this step completes; whose last token is in flight.
        active: the adapters of the batch, the first `scheduler.active` are filled in, (A,).
        walk: the adapters in set order, (A,).
        idle_in_slots, idle_in_host: room for the walk's candidates for eviction, (A,).
    """

    limits: Limits
    law: Records
    sent: Sent
    served: Served
    requests: Records
    adapters: Records
    scheduler: Records
    batch: Records
    clock: Records
    queue: Queue
    running: Lists
    finishing: Lists
    growing: NDArray[np.int32]
    prefilled: NDArray[np.int32]
    leaving: NDArray[np.int32]
    active: NDArray[np.int32]
    walk: NDArray[np.int32]
    idle_in_slots: NDArray[np.int32]
    idle_in_host: NDArray[np.int32]
    figures: Figures
