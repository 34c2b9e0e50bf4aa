"""What holds whatever is served: conservation of requests, tokens, blocks and slots, and a clock that only advances.

Random columns, settings and rules, simulated for seconds; the event log is replayed by counting
(`tests.twin.engine_log`). `HYPOTHESIS_PROFILE=thorough` draws 10,000 examples of each property.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from tests.twin.columns import LLAMA
from tests.twin.engine.cases import MOST_STEPS, RANK, SEEDS, TRACE, Case, random_case
from tests.twin.engine_log import Replay
from twin.engine.state import FINISHED_STATE, REFUSED, REJECTED, RUNNING, WAITING
from twin.server.laws import KvCapacityLaw, LoadLaw
from twin.server.rules import VLLM_0_8, VLLM_0_32
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests


@given(SEEDS)
def test_every_step_keeps_within_its_limits(seed: int) -> None:
    """Budget, sequences, slots, host cache and KV blocks, step by step; trace and log tell the same story."""
    case = random_case(seed)
    out, total_blocks = case.run()
    requests, setting = case.requests, case.setting
    loras = int((~case.slotless).sum())
    host = loras if setting.max_cpu_loras is None else setting.max_cpu_loras
    # The adapters of the command line were loaded at the start: the last that fit are there.
    started = np.flatnonzero(~case.slotless).tolist()
    in_slots, in_host = set(started[-setting.max_loras :]), set(started[-host:] if host else [])
    replay = Replay(requests, case.slotless, setting.block_size, in_slots, in_host)
    trace = out.trace
    assert len(trace) == out.steps
    last = 0
    for step in replay.steps(out.events):
        if step.number > len(trace):
            # Preempted while scheduling what never became a step, at the end of the window.
            assert step.tokens == 0
            break
        last = step.number
        row = trace[step.number - 1]
        assert int(row[TRACE["step"]]) == step.number
        assert 0 < step.tokens <= setting.max_num_batched_tokens
        assert step.tokens == row[TRACE["decodes"]] + row[TRACE["prompt_tokens"]]
        assert len(step.adapters) == row[TRACE["adapters"]] <= setting.max_loras
        assert step.adapters <= replay.in_slots <= replay.in_host
        assert len(replay.in_slots) <= setting.max_loras and len(replay.in_host) <= max(host, 0)
        assert step.loads == row[TRACE["loads"]]
        used = total_blocks - int(row[TRACE["free_blocks"]])
        assert 0 <= used <= total_blocks
        running = int(row[TRACE["running"]])
        assert running <= setting.max_num_seqs
        if case.rules.async_scheduling:
            # Those that finished a step ago hold their place until that step's output is processed.
            assert used in (step.blocks, step.blocks - step.leaving_blocks)
            assert step.running <= running <= step.running + len(replay.leaving)
        else:
            assert used == step.blocks - step.leaving_blocks and running == step.running
        if case.rules.skip_past:
            assert step.skipped == row[TRACE["skipped"]] <= row[TRACE["waiting"]]
    assert last == len(trace), "every step is in the log"
    start, duration = trace[:, TRACE["start_s"]], trace[:, TRACE["duration_s"]]
    assert (duration > 0).all()
    assert (start[1:] >= start[:-1] + duration[:-1] - 1e-9).all(), "the clock only advances, one step at a time"
    assert out.busy_s == pytest.approx(duration.sum())
    assert trace[:, TRACE["preemptions"]].sum() <= out.preemptions == sum(replay.preemptions)

    # Tokens: what steps hand out is what finished and running requests have.
    produced, prefilled = np.array(replay.produced), np.array(replay.prefilled)
    finished, running_now = out.state == FINISHED_STATE, out.state == RUNNING
    assert set(np.flatnonzero(finished).tolist()) == replay.finished
    assert set(np.flatnonzero(running_now).tolist()) == replay.running
    assert (produced[finished] == requests.output[finished]).all()
    assert (produced[~finished] < requests.output[~finished]).all()
    whole = produced > 0
    assert (prefilled[whole] >= (requests.prompt - requests.cached)[whole]).all()
    untouched = whole & (np.array(replay.preemptions) == 0)
    assert (prefilled[untouched] == (requests.prompt - requests.cached)[untouched]).all()
    assert trace[:, TRACE["decodes"]].sum() + trace[:, TRACE["prompt_tokens"]].sum() == sum(
        value for _, kind, _, value in out.events.tolist() if kind == 0
    )
    # Times: in order, and there only for what happened.
    assert (np.isfinite(out.first_token_s) == whole).all()
    assert (np.isfinite(out.finish_s) == finished).all()
    assert (out.first_token_s[whole] > requests.arrival_s[whole]).all()
    assert (out.finish_s[finished] >= out.first_token_s[finished]).all()
    single = finished & (requests.output == 1)
    assert (out.finish_s[single] == out.first_token_s[single]).all()
    # Every request is in exactly one state, and nobody is refused without a client's limit.
    assert set(np.unique(out.state).tolist()) <= {WAITING, RUNNING, FINISHED_STATE, REJECTED, REFUSED}
    assert case.client_ports > 0 or not (out.state == REFUSED).any()
    assert not whole[(out.state == REFUSED)].any()


@given(SEEDS)
def test_a_queue_that_drains_leaves_nothing_behind(seed: int) -> None:
    """With time enough every request finishes and all blocks return."""
    case = random_case(seed, drains=True)
    out, total_blocks = case.run(horizon_s=1e5)
    assert (out.state == FINISHED_STATE).all()
    assert out.free_blocks_end == total_blocks
    assert np.isfinite(out.finish_s).all()
    if len(case.requests):
        assert out.steps == len(out.trace) < MOST_STEPS
        # Nothing is left to do: the last step produced the last token.
        assert out.finish_s.max() == pytest.approx(out.trace[-1, 0] + out.trace[-1, 1])


def step_ms(case: Case, decodes: int, prompt: int, kv: int, adapters: int) -> float:
    """The law as written in `StepTimeLaw`, for an empty queue."""
    law = case.calibration.step
    tokens, slots, rank = decodes + prompt, case.setting.max_loras, case.setting.max_lora_rank
    ms = law.base + law.seq * decodes + law.prompt * prompt + law.kv * kv / 1000
    past = tokens > law.graph_tokens
    if past:
        ms += law.cliff + law.past_graph * (tokens - law.graph_tokens)
    if adapters:
        ms += law.lora + law.adapter * adapters + law.adapter_rank * adapters * rank / 16 + law.slot * slots
        ms += law.slot_square * slots * slots / 1000 + law.lora_rank * rank / 16
        ms += law.slot_token * slots * tokens / 1000 + law.lora_token * tokens
        ms += law.adapter_token * adapters * tokens / 1000 + law.adapter_small * adapters * (tokens < 128)
        ms += law.adapter_large * adapters * past
    return ms


@given(SEEDS)
def test_latency_without_load_is_what_one_computes_by_hand(seed: int) -> None:
    """Requests a quarter of an hour apart: prefill in chunks of the budget, a load into a new slot, then decodes."""
    case = random_case(seed, drains=True)
    n = min(5, len(case.requests))
    pick = {name: getattr(case.requests, name)[:n] for name in ("adapter", "prompt", "cached", "output")}
    lonely = Requests(np.arange(n, dtype=np.float64) * 1000.0, **pick)
    case = replace(case, setting=replace(case.setting, max_cpu_loras=None), client_ports=0)
    out, _ = case.run(lonely, horizon_s=1e6)
    # Least recently used first; the engine starts with its last adapters loaded.
    slots = np.flatnonzero(~case.slotless).tolist()[-case.setting.max_loras :]
    for r in range(n):
        a, prompt, output = int(pick["adapter"][r]), int(pick["prompt"][r]), int(pick["output"][r])
        rank = case.adapters[a].rank
        ms, computed = 0.0, int(pick["cached"][r])
        if rank and a not in slots:
            load = case.calibration.load
            ms += load.equal_rank_ms if rank == RANK else load.lower_rank_ms
            slots = [*slots, a][-case.setting.max_loras :]
        elif rank:
            slots = [*(s for s in slots if s != a), a]
        while computed < prompt:
            chunk = min(prompt - computed, case.setting.max_num_batched_tokens)
            computed += chunk
            ms += step_ms(case, 0, chunk, computed, rank > 0)
        assert (out.first_token_s[r] - lonely.arrival_s[r]) * 1000 == pytest.approx(ms)
        for made in range(1, output):
            ms += step_ms(case, 1, 0, prompt + made - 1, rank > 0)
        assert (out.finish_s[r] - lonely.arrival_s[r]) * 1000 == pytest.approx(ms)


def test_the_draws_reach_the_rare_rules() -> None:
    """Otherwise the properties above would prove little."""
    seen: Counter[str] = Counter()

    @given(SEEDS)
    def look(seed: int) -> None:
        case = random_case(seed)
        out, _ = case.run()
        trace = out.trace
        seen["examples"] += 1
        seen["preempted"] += out.preemptions > 0
        seen["gated"] += out.skips > 0
        seen["reloaded"] += out.loads > len(set(case.requests.adapter.tolist()))
        seen["from disk"] += out.disk_loads > 0
        seen["rejected"] += bool((out.state == REJECTED).any())
        seen["refused"] += bool((out.state == REFUSED).any())
        seen["cache full"] += bool(len(trace) and trace[:, TRACE["free_blocks"]].min() == 0)
        seen["all sequences"] += bool(len(trace) and trace[:, TRACE["running"]].max() == case.setting.max_num_seqs > 1)
        seen["left waiting"] += bool((out.state == WAITING).any())
        seen["left running"] += bool((out.state == RUNNING).any())
        seen["async, preempted"] += case.rules.async_scheduling and out.preemptions > 0
        seen["base model"] += bool(case.slotless.any())
        seen["prefix hits"] += bool(case.requests.cached.any())
        seen["nothing sent"] += len(case.requests) == 0

    look()
    rare = {name: count for name, count in seen.items() if count < 3}
    assert not rare and len(seen) == 15, dict(seen)


def served_share(case: Case, requests: Requests, only: np.ndarray) -> float:
    """Share of the tokens of some requests that were served within the window."""
    out, _ = case.run(requests)
    tokens = (requests.prompt + requests.output)[only]
    return float(tokens[out.finish_s[only] <= case.horizon_s].sum() / tokens.sum()) if tokens.sum() else 1.0


def thinned(requests: Requests, kept: np.ndarray) -> Requests:
    return Requests(*(getattr(requests, n)[kept] for n in ("arrival_s", "adapter", "prompt", "cached", "output")))


def test_fewer_requests_are_served_no_worse() -> None:
    """Half of the requests sent home: the others get at least what they got, but for luck in the order.

    A single case may lose: another order of adapters holds the slots, and the last token of a lonely request may
    come just after the window instead of just before. Over many cases it must not, nor where many requests are kept.
    """
    gains: list[float] = []
    of_many: list[float] = [0.0]

    @given(SEEDS)
    def compare(seed: int) -> None:
        case = random_case(seed)
        kept = np.random.default_rng(seed).random(len(case.requests)) < 0.5
        everyone = np.ones(int(kept.sum()), bool)
        few = served_share(case, thinned(case.requests, kept), everyone)
        gains.append(few - served_share(case, case.requests, kept))
        if kept.sum() >= 10:
            of_many.append(gains[-1])

    compare()
    assert min(of_many) > -0.4
    assert np.mean(gains) > 0.02, "most cases are loaded: half the requests are served better"
    assert np.mean(np.array(gains) < -0.05) < 0.05


def digest(seed: int) -> str:
    """Fingerprint of some engines, all rules; drawn without hypothesis so that any process can repeat it."""
    rng = np.random.default_rng(seed)
    sums = hashlib.sha256()
    for rules in (VLLM_0_8, VLLM_0_32):
        n, n_adapters = 80, 12
        prompt = rng.integers(1, 90, n).astype(np.int32)
        requests = Requests(
            np.sort(rng.uniform(0.0, 3.0, n)), rng.integers(0, n_adapters, n).astype(np.int32), prompt,
            np.zeros(n, np.int32), rng.integers(1, 60, n).astype(np.int32),
        )  # fmt: skip
        adapters = tuple(Adapter(f"a{i}", RANK, 1.0, Lengths(40, 1.0), Lengths(30, 1.0)) for i in range(n_adapters))
        setting = EngineSetting(
            LLAMA.stamp.gpu_type, 4, RANK, max_num_seqs=16, max_num_batched_tokens=64, max_cpu_loras=6
        )
        tight = replace(LLAMA, kv=KvCapacityLaw(900.0, 0.0), load=LoadLaw(7.0, 9.0, 20.0, 1.0))
        walk = rng.permutation(n_adapters).astype(np.int32)
        case = Case(requests, adapters, setting, tight, rules, walk, 6.0)
        out, _ = case.run()
        assert out.preemptions and out.skips and out.disk_loads
        for values in out:
            sums.update(np.asarray(values).tobytes())
    return sums.hexdigest()


def test_same_seed_is_identical_in_threads_and_other_processes() -> None:
    alone = [digest(seed) for seed in range(8)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        assert list(pool.map(digest, range(8))) == alone
    code = "from tests.twin.engine.test_invariants import digest; print(*[digest(s) for s in range(8)])"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "NUMBA_NUM_THREADS": "1"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.split() == alone
    assert len(set(alone)) == 8
