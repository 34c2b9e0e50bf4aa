"""What limits a server is told from the run itself, for servers of which the limit is known by construction."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.twin.columns import LLAMA, column
from twin.engine.play import play
from twin.figures.advice import advice, alternatives
from twin.figures.bottleneck import Bottleneck, bottleneck, explained, mean_bottleneck
from twin.figures.warmup import steps_to_trace
from twin.server.column import Column
from twin.server.memory import kv_cache_tokens, memory_error
from twin.simulation import simulate
from twin.wording import percent
from twin.workload.adapter import Lengths

HORIZON_S = 900.0
TRACE = steps_to_trace(HORIZON_S, LLAMA.step.base)


def with_setting(original: Column, **flags: int) -> Column:
    return Column(original.adapters, replace(original.setting, **flags))


LIGHT = column(8, (0.05,), 8)
CASES = {
    "none": LIGHT,
    "adapter_slots": column(40, (0.25,), 4),
    "max_num_seqs": with_setting(column(8, (0.4,), 8), max_num_seqs=8),
    # Long answers in a cache that holds a single longest request.
    "kv_cache": Column(
        tuple(replace(a, output_tokens=Lengths(3000, 0.2)) for a in column(8, (0.4,), 8).adapters),
        replace(column(8, (0.4,), 8).setting, max_model_len=8192, gpu_memory_utilization=0.4),
    ),
    # Long prompts and short answers.
    "token_budget": with_setting(
        Column(
            tuple(replace(a, prompt_tokens=Lengths(4000, 0.1), output_tokens=Lengths(2, 0)) for a in
                  column(8, (0.8,), 8).adapters),
            LIGHT.setting,
        ),
        max_num_batched_tokens=512, max_num_seqs=256,
    ),
}  # fmt: skip


def facts_of(case: Column, seed: int = 0) -> Bottleneck:
    result = simulate(case, LLAMA, horizon_s=HORIZON_S, seed=seed, trace_steps=TRACE)
    blocks = kv_cache_tokens(case.setting, LLAMA) // case.setting.block_size - 1
    return bottleneck(result, case, LLAMA, blocks)


def advice_for(case: Column) -> str:
    """As `python -m twin` gives it."""

    def figures(column: Column) -> dict[str, float]:
        return simulate(column, LLAMA, horizon_s=HORIZON_S).row

    return advice(facts_of(case), case, LLAMA, figures(case), figures)


@pytest.mark.parametrize("limit", CASES)
def test_the_limit_is_found(limit: str) -> None:
    case = CASES[limit]
    facts = facts_of(case)
    assert facts.limit == limit
    text = explained(facts, case.setting)
    words = {
        "none": "Nothing", "adapter_slots": "4 adapter slots", "max_num_seqs": "8 requests", "kv_cache": "KV cache",
        "token_budget": "512 tokens",
    }  # fmt: skip
    assert words[limit] in text
    assert bool(advice_for(case)) == (limit != "none")


@pytest.mark.parametrize("limit", CASES)
def test_shares_and_step_times_add_up(limit: str) -> None:
    facts = facts_of(CASES[limit])
    assert facts.waiting == pytest.approx(sum(share for _, share in facts.reasons()))
    assert 0 <= facts.waiting <= facts.busy <= 1 + 1e-3
    assert 0 <= facts.slots_held <= facts.busy
    assert 0 < facts.kv_peak <= 1
    parts = ("fixed_ms", "decode_ms", "prompt_ms", "kv_ms", "lora_ms", "loads_ms", "scheduler_ms")
    assert sum(getattr(facts, p) for p in parts) == pytest.approx(facts.step_ms, rel=1e-3)


def test_preemption_is_a_matter_of_memory_and_not_of_the_token_budget() -> None:
    """A step that preempted admits nobody; the kernel counts it with those that ended at the budget."""
    case = CASES["kv_cache"]
    result = simulate(case, LLAMA, horizon_s=HORIZON_S, trace_steps=TRACE)
    assert result.preemptions > 0
    facts = facts_of(case)
    assert facts.kv_cache > result.blocked_s[2] / HORIZON_S
    assert facts.token_budget < result.blocked_s[0] / HORIZON_S


def test_advice_is_tested_before_it_is_told() -> None:
    """What it claims is what the named setting does in the same window."""
    case = CASES["adapter_slots"]
    text = advice_for(case)
    slots = int(re.search(r"engine\.max_loras=(\d+)", text)[1])  # type: ignore[index]
    better = with_setting(case, max_loras=slots)
    assert memory_error(better.setting, LLAMA) is None
    before, after = (simulate(c, LLAMA, horizon_s=HORIZON_S).row["served_fraction"] for c in (case, better))
    assert after > before + 0.04
    assert f"{percent(after)} of the tokens are served instead of {percent(before)}" in text


def test_advice_that_does_not_help_is_not_given() -> None:
    case = CASES["kv_cache"]
    now = simulate(case, LLAMA, horizon_s=HORIZON_S).row
    text = advice(facts_of(case), case, LLAMA, now, lambda _: now)
    assert text.startswith("fewer requests") and "no setting that was tried helps (engine." in text


def test_unused_rank_and_slots_may_go_to_the_cache() -> None:
    case = CASES["kv_cache"]
    facts = facts_of(case)
    assert 16 in [s.max_lora_rank for s in alternatives(facts, with_setting(case, max_lora_rank=32), LLAMA)]
    assert 8 in [s.max_loras for s in alternatives(facts, with_setting(case, max_loras=16), LLAMA)]


def test_alternatives_keep_the_host_cache_possible() -> None:
    case = with_setting(CASES["adapter_slots"], max_cpu_loras=5)
    found = alternatives(facts_of(case), case, LLAMA)
    assert found
    assert all(s.max_cpu_loras is not None and s.max_cpu_loras >= s.max_loras for s in found)
    assert "engine.max_cpu_loras" in advice_for(case)


def test_means_over_simulations() -> None:
    one, two = facts_of(LIGHT, 0), facts_of(LIGHT, 1)
    assert mean_bottleneck([one, two]).kv_peak == pytest.approx((one.kv_peak + two.kv_peak) / 2)


def test_a_simulation_in_detail_is_the_simulation() -> None:
    case = CASES["adapter_slots"]
    result = simulate(case, LLAMA, horizon_s=HORIZON_S, seed=4, trace_steps=TRACE)
    detail = play(case, LLAMA, horizon_s=HORIZON_S, seed=4, trace_steps=TRACE)
    assert len(detail.requests) == result.arrivals
    assert detail.out.loads == result.loads
    assert (detail.out.trace == result.trace).all()
    assert detail.total_blocks == kv_cache_tokens(case.setting, LLAMA) // case.setting.block_size - 1
