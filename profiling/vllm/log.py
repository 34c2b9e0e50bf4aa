"""What a scheduler did, step by step, in one form for the twin and for vLLM, and the first place where two differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiling.vllm.scenario import Scenario
from twin.engine.build import new_engine
from twin.engine.engine import advance
from twin.engine.outcome import outcome, ran_out_of_room
from twin.engine.state import EVICTED, FINISHED, LOADED, PREEMPTED, SCHEDULED, SKIPPED, TRACE_COLUMNS, Limits
from twin.server.laws import STEP_TERMS, StepTimeLaw

Rows = NDArray[np.int64]
Array = NDArray[np.float64]

#: State of a step that is compared besides its events, as far as the trace of the twin has it.
STATE_COLUMNS = ("start_s", "duration_s", "decodes", "prompt_tokens", "running", "free_blocks")
#: Order of the kinds within a step; loads and evictions keep theirs, finished requests have none.
_PHASE = np.zeros(6, np.int64)
_PHASE[[PREEMPTED, SCHEDULED, SKIPPED, LOADED, EVICTED, FINISHED]] = 0, 1, 2, 3, 3, 4


@dataclass(frozen=True, slots=True)
class ScheduleLog:
    """Everything that two schedulers are compared by.

    Args:
        events: rows (step, kind, request or adapter, value) as in `twin.engine.state`, steps from 1, (E, 4).
        state: one row a step, columns `STATE_COLUMNS`, (S, 6).
        first_s, finish_s: first-token and finish times of the requests, NaN where they have none, (N,).
    """

    events: Rows
    state: Array
    first_s: Array
    finish_s: Array

    def ordered(self) -> Rows:
        """Events by step and phase; within a phase as they happened, finished requests by index."""
        step, kind = self.events[:, 0], self.events[:, 1]
        within = np.where(kind == FINISHED, self.events[:, 2], np.arange(len(step)))
        rows: Rows = self.events[np.lexsort((within, _PHASE[kind], step))]
        return rows

    def count(self, kind: int, value: int | None = None) -> int:
        """How many events of a kind (and value) there are."""
        chosen = self.events[:, 1] == kind
        return int((chosen if value is None else chosen & (self.events[:, 3] == value)).sum())


def twin_log(scenario: Scenario) -> ScheduleLog:
    """Runs a scenario in the twin's engine, from an idle engine, until all is served."""
    requests = scenario.requests
    limits = Limits(
        max_loras=scenario.max_loras,
        max_lora_rank=16,
        max_num_seqs=scenario.max_num_seqs,
        max_num_batched_tokens=scenario.token_budget,
        block_size=scenario.block,
        total_blocks=scenario.blocks,
        max_cpu_loras=scenario.max_cpu_loras,
        client_ports=0,
        horizon_s=1.0,
        time_scale=1.0,
        async_scheduling=scenario.async_scheduling,
        whole_sequence_must_fit=scenario.reserve_full_sequence,
        skip_past=True,
        reload_cascade=True,
    )
    base, seq, prompt = scenario.step_ms
    terms = dict.fromkeys(STEP_TERMS, 0.0) | {"base": base, "seq": seq, "prompt": prompt}
    law = StepTimeLaw(**terms, graph_tokens=1e9)
    room = 1 << 10
    while True:
        engine = new_engine(
            requests,
            limits,
            slotless=np.array(scenario.slotless),
            walk=np.array(scenario.walk, np.int32),
            load_s=np.array(scenario.load_ms) / 1000.0,
            disk_s=np.array(scenario.disk_ms) / 1000.0,
            law=law,
            bins=1,
            hosted=scenario.preloaded,
            trace_steps=room,
            events=8 * room,
        )
        advance(engine, 1e9)
        if not ran_out_of_room(engine):
            break
        room *= 4
    out = outcome(engine)
    columns = [TRACE_COLUMNS.index(name) for name in STATE_COLUMNS]
    return ScheduleLog(out.events, out.trace[:, columns], out.first_token_s, out.finish_s)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first step in which two logs differ."""

    step: int
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.what}\n  expected: {self.expected}\n  found:    {self.found}"


def first_difference(expected: ScheduleLog, found: ScheduleLog) -> Difference | None:
    """Where the second log leaves the first, or None if they are equal in every event, time and block count."""
    a, b = expected.ordered(), found.ordered()
    if not np.array_equal(a, b):
        n = min(len(a), len(b))
        unequal = (a[:n] != b[:n]).any(axis=1)
        at = int(np.argmax(unequal)) if unequal.any() else n
        step = int(min(rows[at, 0] for rows in (a, b) if at < len(rows)))
        return Difference(step, "events", _readable(a[a[:, 0] == step]), _readable(b[b[:, 0] == step]))
    if not np.array_equal(expected.state, found.state):
        if len(expected.state) != len(found.state):
            return Difference(
                min(len(expected.state), len(found.state)) + 1, "steps", str(len(expected.state)), str(len(found.state))
            )
        at = int(np.argmax((expected.state != found.state).any(axis=1)))
        one, other = expected.state[at], found.state[at]
        what = ", ".join(name for name, x, y in zip(STATE_COLUMNS, one, other, strict=True) if x != y)
        return Difference(at + 1, what, _named(one), _named(other))
    for what, one, other in (
        ("first-token time", expected.first_s, found.first_s),
        ("finish time", expected.finish_s, found.finish_s),
    ):
        if not np.array_equal(one, other, equal_nan=True):
            r = int(np.argmax(~((one == other) | (np.isnan(one) & np.isnan(other)))))
            return Difference(0, f"{what} of request {r}", f"{one[r]!r} s", f"{other[r]!r} s")
    return None


def _named(row: Array) -> str:
    return ", ".join(f"{name} {value:.9g}" for name, value in zip(STATE_COLUMNS, row, strict=True))


def _readable(rows: Rows) -> str:
    """`scheduled r3:1 r5:16; skipped r7; host -> slot a2; ...`."""
    names = {
        (SCHEDULED, None): "scheduled", (SKIPPED, None): "skipped", (PREEMPTED, None): "preempted",
        (FINISHED, None): "finished", (LOADED, 0): "host->slot", (LOADED, 1): "disk->host",
        (EVICTED, 0): "evicted from slot", (EVICTED, 1): "evicted from host",
    }  # fmt: skip
    parts: list[str] = []
    previous = ""
    for _, kind, index, value in rows.tolist():
        of_adapter = kind in (LOADED, EVICTED)
        name = names[kind, value if of_adapter else None]
        item = f"a{index}" if of_adapter else f"r{index}" + (f":{value}" if kind == SCHEDULED else "")
        if name == previous:
            parts[-1] += f" {item}"
        else:
            parts.append(f"{name} {item}")
        previous = name
    return "; ".join(parts) or "nothing"
