"""`trace.json` is a valid trace-event file that shows what happened."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tests.twin.columns import LLAMA, column
from twin.command.chrome_trace import ENGINE, REQUESTS, chrome_trace
from twin.engine.play import Played, play
from twin.engine.state import TRACE_COLUMNS
from twin.errors import InputError
from twin.figures.warmup import steps_to_trace
from twin.server.column import Column
from twin.workload.adapter import Lengths

HORIZON_S = 300.0
#: A small KV cache and long answers, so that requests are preempted; more adapters than slots, so that they load.
BASE = column(12, (0.3,), 4)
COLUMN = Column(
    tuple(replace(a, output_tokens=Lengths(3000, 0.2)) for a in BASE.adapters),
    replace(BASE.setting, max_model_len=8192, gpu_memory_utilization=0.34),
)


@pytest.fixture(scope="module")
def detail() -> Played:
    return play(COLUMN, LLAMA, horizon_s=HORIZON_S, trace_steps=steps_to_trace(HORIZON_S, LLAMA.step.base))


def trace(detail: Played, from_s: float, for_s: float) -> dict[str, Any]:
    return chrome_trace(
        detail.requests, detail.out, COLUMN.adapters, from_s=from_s, for_s=for_s, title="engine"
    )  # fmt: skip


def test_every_event_has_what_the_format_asks_of_its_kind(detail: Played) -> None:
    data = json.loads(json.dumps(trace(detail, 60, 30), allow_nan=False))
    assert data["displayTimeUnit"] == "ms"
    needed = {
        "X": {"dur", "args"},
        "C": {"args"},
        "i": {"s", "args"},
        "b": {"id", "cat"},
        "e": {"id", "cat"},
        "M": {"args"},
    }
    kinds = set()
    for event in data["traceEvents"]:
        kinds.add(event["ph"])
        assert {"ph", "name", "pid", "tid", "ts"} | needed[event["ph"]] <= set(event)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] > 0
        if event["ph"] == "C":
            assert all(isinstance(v, int) and v >= 0 for v in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
    assert kinds == set(needed)


def test_steps_are_those_of_the_simulation_and_do_not_overlap(detail: Played) -> None:
    events = trace(detail, 60, 30)["traceEvents"]
    steps = [e for e in events if e["ph"] == "X"]
    rows = detail.out.trace
    column_of = {name: rows[:, i] for i, name in enumerate(TRACE_COLUMNS)}
    inside = (column_of["start_s"] < 90) & (column_of["start_s"] + column_of["duration_s"] > 60)
    assert [s["args"]["step"] for s in steps] == column_of["step"][inside].astype(int).tolist()
    assert [s["args"]["decodes"] for s in steps] == column_of["decodes"][inside].astype(int).tolist()
    for one, two in pairwise(steps):
        assert one["ts"] + one["dur"] <= two["ts"] + 1e-3
    waiting = [e["args"]["waiting"] for e in events if e["ph"] == "C" and e["name"] == "requests"]
    assert waiting == column_of["waiting"][inside].astype(int).tolist()


def test_preemptions_and_loads_are_marked(detail: Played) -> None:
    events = trace(detail, 0, HORIZON_S)["traceEvents"]
    preempted = sum(e["args"]["requests"] for e in events if e.get("cat") == "preemption")
    loaded = sum(e["args"]["adapters"] for e in events if e.get("cat") == "load")
    assert preempted == detail.out.preemptions > 0
    assert loaded == detail.out.loads > 0


def test_slices_of_a_request_begin_and_end_in_pairs(detail: Played) -> None:
    open_at: dict[tuple[int, str], float] = {}
    spans: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
    for event in trace(detail, 60, 30)["traceEvents"]:
        if event["pid"] != REQUESTS or event["ph"] not in "be":
            continue
        key = (event["id"], event["name"])
        if event["ph"] == "b":
            assert key not in open_at
            open_at[key] = event["ts"]
        else:
            begin = open_at.pop(key)
            assert begin <= event["ts"]
            spans[event["id"]][event["name"]] = (begin / 1e6, event["ts"] / 1e6)
    assert not open_at
    assert spans
    for r, parts in spans.items():
        whole = parts[COLUMN.adapters[int(detail.requests.adapter[r])].adapter_id]
        assert whole[0] == pytest.approx(detail.requests.arrival_s[r], abs=1e-6)
        assert parts["to first token"] == (whole[0], pytest.approx(detail.out.first_token_s[r], abs=1e-6))
        assert detail.out.first_token_s[r] < 90
        assert whole[1] > 60
        if "decode" in parts:
            assert parts["decode"] == (parts["to first token"][1], whole[1])


def test_a_part_without_steps_or_with_too_many_is_refused(detail: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no step between"):
        trace(detail, 1000, 10)
    monkeypatch.setattr("twin.command.chrome_trace.MOST_STEPS", 5)
    with pytest.raises(InputError, match="too large"):
        trace(detail, 60, 30)
    assert {e["pid"] for e in trace(detail, 60, 0.01)["traceEvents"]} == {ENGINE, REQUESTS}
