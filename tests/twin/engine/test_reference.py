"""The compiled engine schedules exactly as its specification does, whatever the workload."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from twin.engine.build import new_engine
from twin.engine.engine import advance
from twin.engine.outcome import KernelOutput, outcome
from twin.engine.reference import ReferenceEngine
from twin.engine.state import EVICTED, HOST, LOADED, SCHEDULED, SLOT, Limits
from twin.server.laws import STEP_TERMS, StepTimeLaw
from twin.server.rules import VLLM_0_8, EngineRules
from twin.workload.requests import Requests

#: `base`, `seq` and `prompt` of the step-time law; the other coefficients are 0.
STEP_MS = (3.0, 0.25, 0.125)
LAW = StepTimeLaw(*STEP_MS, *np.zeros(len(STEP_TERMS) - len(STEP_MS)).tolist())
LOAD_MS, DISK_MS = 2.0, 5.0


def run_both(
    requests: Requests, base_model: list[bool], walk: list[int], *, max_loras: int, max_num_seqs: int, budget: int,
    block: int, blocks: int, horizon_s: float, host: int = 99, rules: EngineRules = VLLM_0_8, law: StepTimeLaw = LAW,
    hosted: bool = False, stops_s: tuple[float, ...] = (),
) -> tuple[KernelOutput, ReferenceEngine]:  # fmt: skip
    """Both engines; `stops_s` are times at which the compiled one is left and entered again."""
    limits = Limits(
        max_loras, 16, max_num_seqs, budget, block, blocks, host, 0, horizon_s, 1.0, rules.async_scheduling,
        rules.whole_sequence_must_fit, rules.skip_past, rules.reload_cascade,
    )  # fmt: skip
    load_s, disk_s = np.full(len(walk), LOAD_MS / 1000.0), np.full(len(walk), DISK_MS / 1000.0)
    engine = new_engine(
        requests, limits, slotless=np.array(base_model), walk=np.array(walk, np.int32), load_s=load_s, disk_s=disk_s,
        law=law, bins=10, hosted=hosted, events=200_000, trace_steps=20_000,
    )  # fmt: skip
    for stop_s in (*stops_s, horizon_s):
        advance(engine, stop_s)
    reference = ReferenceEngine(
        requests, limits, base_model=base_model, walk=walk, load_s=load_s.tolist(), disk_s=disk_s.tolist(), law=law,
        hosted=hosted,
    )  # fmt: skip
    reference.run(horizon_s)
    return outcome(engine), reference


@st.composite
def engines(draw: st.DrawFn) -> tuple[Requests, list[bool], list[int], dict[str, Any]]:
    """Small engines under stress: few slots, tiny KV caches and budgets, bursts, base-model requests, all rules."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    adapters = int(rng.integers(1, 9))
    n = int(rng.integers(1, 60))
    block = int(rng.choice([1, 4, 16]))
    longest = int(rng.choice([8, 40, 120]))
    prompt = rng.integers(1, longest + 1, n).astype(np.int32)
    output = rng.integers(1, longest + 1, n).astype(np.int32)
    cached = np.minimum(rng.integers(0, longest, n) * rng.integers(0, 2, n), prompt - 1).astype(np.int32)
    budget = int(rng.choice([8, 32, 128]))
    max_loras = int(rng.integers(1, adapters + 2))
    flags = rng.random(4) < (0.5, 0.5, 0.8, 0.8)
    config = {
        "max_loras": max_loras,
        "host": int(rng.integers(max_loras, adapters + 3)),
        "rules": EngineRules("drawn", *flags.tolist()),
        "law": StepTimeLaw(
            3.0, *(rng.random(20) * (rng.random(20) < 0.5)).tolist(), graph_tokens=rng.choice([16, 1e9])
        ),
        "hosted": bool(rng.random() < 0.5),
        "stops_s": tuple(np.cumsum(rng.exponential(0.2, int(rng.integers(0, 6)))).tolist()),
        "max_num_seqs": budget if rng.random() < 0.3 else int(rng.integers(1, min(budget, 30) + 1)),
        "budget": budget,
        "block": block,
        "blocks": int(-(-2 * longest // block) * rng.choice([1.0, 1.5, 4.0])) + 1,
    }
    gaps = rng.exponential(rng.choice([0.0, 0.01, 0.1]), n)
    requests = Requests(
        np.cumsum(gaps).astype(np.float64), rng.integers(0, adapters, n).astype(np.int32), prompt, cached, output
    )  # fmt: skip
    slotless = (rng.random(adapters) < 0.2).tolist()
    return requests, slotless, rng.permutation(adapters).tolist(), config


@settings(max_examples=300, deadline=None)
@given(engines())
def test_compiled_engine_equals_its_specification(
    engine: tuple[Requests, list[bool], list[int], dict[str, Any]],
) -> None:
    requests, base_model, walk, config = engine
    out, reference = run_both(requests, base_model, walk, **config, horizon_s=1e6)
    expected = [(r.first_token_s, r.finish_s) for r in reference.requests]
    np.testing.assert_allclose(out.first_token_s, [np.nan if t is None else t for t, _ in expected], rtol=1e-9)
    np.testing.assert_allclose(out.finish_s, [np.nan if t is None else t for _, t in expected], rtol=1e-9)
    assert (out.preemptions, out.loads, out.skips) == (reference.preemptions, reference.loads, reference.skips)
    assert (out.disk_loads, out.steps) == (reference.disk_loads, reference.steps)
    scheduled = [(step, index, value) for step, kind, index, value in out.events.tolist() if kind == SCHEDULED]
    assert scheduled == reference.schedule
    names = {(LOADED, SLOT): "load", (LOADED, HOST): "disk", (EVICTED, SLOT): "evict", (EVICTED, HOST): "host-evict"}
    moves = [(names[kind, value], index) for _, kind, index, value in out.events.tolist() if kind in (LOADED, EVICTED)]
    assert moves == reference.caches.log
    np.testing.assert_allclose(out.features, [reference.features[name] for name in STEP_TERMS], rtol=1e-9)
    # Nothing is lost: every request finished or was rejected, and all blocks came back.
    assert set(out.state.tolist()) <= {2, 3}
    assert out.free_blocks_end == config["blocks"]
    assert reference.max_adapters <= config["max_loras"]


def constant(n: int, gap_s: float, adapters: int, prompt: int, output: int) -> Requests:
    return Requests(
        np.arange(n) * gap_s, (np.arange(n) % adapters).astype(np.int32), np.full(n, prompt, np.int32),
        np.zeros(n, np.int32), np.full(n, output, np.int32),
    )  # fmt: skip


def test_lonely_request_takes_the_time_computed_by_hand() -> None:
    out, _ = run_both(
        constant(1, 1.0, 1, 100, 10), [False], [0], max_loras=1, max_num_seqs=8, budget=64, block=16, blocks=64,
        horizon_s=100.0,
    )  # fmt: skip
    # 64 + 36 prompt tokens in two chunks, one load from disk and into a slot, then nine decode steps.
    first_ms = 2 * STEP_MS[0] + 100 * STEP_MS[2] + LOAD_MS + DISK_MS
    assert out.first_token_s[0] * 1000 == pytest.approx(first_ms)
    assert out.finish_s[0] * 1000 == pytest.approx(first_ms + 9 * (STEP_MS[0] + STEP_MS[1]))


def test_a_blocked_adapter_does_not_hold_up_those_behind_it() -> None:
    requests = Requests(
        np.array([0.0, 0.001, 0.002]), np.array([0, 1, 0], np.int32), np.full(3, 4, np.int32), np.zeros(3, np.int32),
        np.full(3, 50, np.int32),
    )  # fmt: skip
    out, _ = run_both(
        requests, [False, False], [0, 1], max_loras=1, max_num_seqs=8, budget=64, block=16, blocks=64, horizon_s=100.0
    )
    assert out.first_token_s[2] < out.first_token_s[1], "skip-past: the third request overtakes the blocked second"
    assert out.first_token_s[1] > out.finish_s[0], "the second waits for the only slot"
    assert out.skips > 0


def test_stress_reaches_the_rare_rules() -> None:
    """The engines drawn above do preempt, skip and reload; otherwise the comparison would prove little."""
    preempted = skipped = reloaded = 0
    rng = np.random.default_rng(5)
    for _ in range(30):
        n = 60
        requests = Requests(
            np.cumsum(rng.exponential(0.01, n)), rng.integers(0, 8, n).astype(np.int32),
            rng.integers(1, 60, n).astype(np.int32), np.zeros(n, np.int32), rng.integers(1, 120, n).astype(np.int32),
        )  # fmt: skip
        out, _ = run_both(
            requests, [False] * 8, rng.permutation(8).tolist(), max_loras=3, max_num_seqs=20, budget=64, block=4,
            blocks=100, horizon_s=1e6,
        )  # fmt: skip
        preempted, skipped, reloaded = preempted + out.preemptions, skipped + out.skips, reloaded + out.loads - 8
    assert preempted > 100 and skipped > 1000 and reloaded > 100
