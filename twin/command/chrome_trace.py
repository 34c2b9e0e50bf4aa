"""A part of a simulation as a trace-event file, for chrome://tracing and Perfetto (ui.perfetto.dev).

Format: the JSON object form of the Trace Event Format: `{"traceEvents": [...]}`, times in microseconds.
* process "engine": one complete slice (`X`) a step with what it computed; counters (`C`) of requests, free KV blocks
  and adapters; instants (`i`) for preemptions and adapter loads.
* process "requests": one async slice (`b`, `e`) a request from its arrival to its last token, named by its adapter,
  and inside it one up to the first token and one while it decodes. Requests that get no token in the part, as the
  thousands in the queue of an overloaded server, are left to the counter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.engine.outcome import KernelOutput
from twin.engine.state import TRACE_COLUMNS
from twin.errors import InputError
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests

Event = dict[str, Any]
ENGINE, REQUESTS = 1, 2
#: More steps than this make files that viewers load slowly.
MOST_STEPS = 50_000


def chrome_trace(
    requests: Requests, out: KernelOutput, adapters: Sequence[Adapter], *, from_s: float, for_s: float, title: str
) -> dict[str, Any]:
    """The events of `[from_s, from_s + for_s)`.

    Args:
        out: of a run whose trace holds every step of that part (`trace_steps`).
        title: shown as the name of the engine's process.

    Raises:
        InputError: no step lies in that part, or too many do.
    """
    to_s = from_s + for_s
    column = {name: out.trace[:, i] for i, name in enumerate(TRACE_COLUMNS)}
    start, duration = column["start_s"], column["duration_s"]
    steps = np.flatnonzero((start < to_s) & (start + duration > from_s))
    if not len(steps):
        raise InputError(
            f"the engine makes no step between {from_s:g} and {to_s:g} s",
            where="trace_from_s, trace_for_s",
            remedy="choose a part of the window with requests",
        )
    if len(steps) > MOST_STEPS:
        raise InputError(
            f"{len(steps):,} steps between {from_s:g} and {to_s:g} s make too large a file",
            where="trace_for_s",
            remedy=f"shorten it: {MOST_STEPS:,} steps are the most",
        )
    events: list[Event] = [
        _name("process_name", ENGINE, title),
        _name("thread_name", ENGINE, "steps"),
        _name("process_name", REQUESTS, "requests"),
        *_steps(column, steps),
        *_requests(requests, out, adapters, from_s, to_s),
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"from_s": from_s, "to_s": to_s}}


def _name(kind: str, process: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": process, "tid": 0, "ts": 0, "args": {"name": name}}


def _us(time_s: float) -> float:
    """Microseconds, to the nanosecond."""
    return round(1e6 * float(time_s), 3)


def _steps(column: dict[str, NDArray[np.float64]], steps: NDArray[np.int64]) -> Iterator[Event]:
    for i in steps.tolist():
        row = {name: int(column[name][i]) for name in TRACE_COLUMNS if not name.endswith("_s")}
        ts = _us(column["start_s"][i])
        here = {"pid": ENGINE, "tid": 0, "ts": ts}
        args = {k: row[k] for k in ("step", "decodes", "prompt_tokens", "adapters", "loads", "skipped", "kv_tokens")}
        kind = "prefill + decode" if row["prompt_tokens"] and row["decodes"] else (
            "prefill" if row["prompt_tokens"] else "decode"
        )  # fmt: skip
        # The end is rounded, not the duration: slices of one thread must not overlap.
        end = _us(column["start_s"][i] + column["duration_s"][i])
        yield {"ph": "X", "cat": "step", "name": kind, "dur": round(end - ts, 3), "args": args, **here}
        yield {"ph": "C", "name": "requests", "args": {k: row[k] for k in ("running", "waiting")}, **here}
        yield {"ph": "C", "name": "free KV blocks", "args": {"free": row["free_blocks"]}, **here}
        yield {"ph": "C", "name": "adapters", "args": {"in the batch": row["adapters"]}, **here}
        if row["preemptions"]:
            name = f"{row['preemptions']} preempted"
            yield {
                "ph": "i",
                "cat": "preemption",
                "name": name,
                "s": "p",
                "args": {"requests": row["preemptions"]},
                **here,
            }
        if row["loads"]:
            name = f"{row['loads']} adapters loaded"
            yield {"ph": "i", "cat": "load", "name": name, "s": "t", "args": {"adapters": row["loads"]}, **here}


def _requests(
    requests: Requests, out: KernelOutput, adapters: Sequence[Adapter], from_s: float, to_s: float
) -> Iterator[Event]:
    arrival, first, finish = requests.arrival_s, out.first_token_s, out.finish_s
    end = np.where(np.isnan(finish), np.inf, finish)
    for r in np.flatnonzero((first < to_s) & (end > from_s)).tolist():
        name = adapters[int(requests.adapter[r])].adapter_id
        args: dict[str, Any] = {
            "request": r,
            "rank": adapters[int(requests.adapter[r])].rank,
            "prompt_tokens": int(requests.prompt[r]),
            "output_tokens": int(requests.output[r]),
        }
        args["ttft_ms"] = round(1000 * float(first[r] - arrival[r]), 3)
        # What has no end by now is shown to the end of the part.
        last = to_s if np.isnan(finish[r]) else float(finish[r])
        yield from _span(r, name, float(arrival[r]), last, args)
        yield from _span(r, "to first token", float(arrival[r]), float(first[r]), {})
        if last > first[r]:
            yield from _span(r, "decode", float(first[r]), last, {})


def _span(request: int, name: str, begin_s: float, end_s: float, args: dict[str, Any]) -> Iterator[Event]:
    here = {"cat": "request", "name": name, "id": request, "pid": REQUESTS, "tid": 0}
    yield {"ph": "b", "ts": _us(begin_s), "args": args, **here}
    yield {"ph": "e", "ts": _us(end_s), **here}
