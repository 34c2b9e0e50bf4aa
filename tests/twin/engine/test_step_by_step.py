"""One engine, always step by step: recording changes nothing, and what is recorded adds up to the figures.

There are no macro-steps to compare with a step-by-step mode; the engine that skips nothing and is compared with the
compiled one request by request is `twin.engine.reference` (`test_reference.py`).
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from tests.twin.columns import LLAMA, column
from twin.engine.engine import advance
from twin.engine.state import TRACE_COLUMNS
from twin.figures.result import SimulationResult
from twin.server.laws import STEP_TERMS
from twin.server.rules import VLLM_0_8, VLLM_0_32, EngineRules
from twin.simulation import simulate
from twin.traffic.arrivals import draw_requests
from twin.workload.requests import Requests

BUSY = column(40, (0.6, 0.2, 0.05), 16)
SECONDS = 240.0


def bare(result: SimulationResult) -> dict[str, object]:
    """Everything but what was recorded, arrays as bytes."""
    values = {name: getattr(result, name) for name in result.__slots__ if name not in ("trace", "events")}
    return {name: v.tobytes() if isinstance(v, np.ndarray) else v for name, v in values.items()}


@pytest.mark.parametrize("rules", [VLLM_0_8, VLLM_0_32], ids=lambda r: r.name)
def test_recording_every_step_changes_no_figure(rules: EngineRules) -> None:
    plain = simulate(BUSY, LLAMA, horizon_s=SECONDS, rules=rules)
    traced = simulate(BUSY, LLAMA, horizon_s=SECONDS, rules=rules, trace_steps=30_000)
    logged = simulate(BUSY, LLAMA, horizon_s=SECONDS, rules=rules, trace_steps=30_000, events=9_000_000)
    assert len(plain.trace) == len(plain.events) == 0
    assert len(traced.trace) == traced.steps > 1000 and len(logged.events) > traced.steps
    assert bare(plain) == bare(traced) == bare(logged)


def test_requests_of_any_memory_layout_are_served_by_the_same_compiled_code() -> None:
    """Replicas deal requests by slices, logs come read-only; compiling the engine again takes a quarter of a minute."""
    requests = draw_requests(BUSY.adapters, horizon_s=SECONDS, seed=0, max_model_len=4096)
    columns = {f.name: getattr(requests, f.name) for f in fields(Requests)}
    plain = simulate(BUSY, LLAMA, horizon_s=SECONDS, requests=requests)
    compiled = len(advance.signatures)  # type: ignore[attr-defined]
    for array in columns.values():
        array.flags.writeable = False
    assert bare(simulate(BUSY, LLAMA, horizon_s=SECONDS, requests=requests)) == bare(plain)
    twice = Requests(**{name: np.repeat(array, 2)[::2] for name, array in columns.items()})
    assert bare(simulate(BUSY, LLAMA, horizon_s=SECONDS, requests=twice)) == bare(plain)
    assert len(advance.signatures) == compiled  # type: ignore[attr-defined]


@pytest.mark.parametrize("rules", [VLLM_0_8, VLLM_0_32], ids=lambda r: r.name)
def test_steps_add_up_to_the_figures(rules: EngineRules) -> None:
    result = simulate(BUSY, LLAMA, horizon_s=SECONDS, rules=rules, trace_steps=30_000)
    columns = {name: result.trace[:, i] for i, name in enumerate(TRACE_COLUMNS)}
    assert columns["duration_s"].sum() == pytest.approx(result.busy_s)
    assert columns["loads"].sum() == result.loads
    assert columns["decodes"].sum() == pytest.approx(result.step_features[STEP_TERMS.index("seq")])
    assert columns["prompt_tokens"].sum() == pytest.approx(result.step_features[STEP_TERMS.index("prompt")])
    for name in ("running", "waiting"):
        mean = columns[name] @ columns["duration_s"] / SECONDS
        assert mean == pytest.approx(result.row[name]) == pytest.approx(getattr(result, f"{name}_series").mean())
