"""The shipped step-time laws behave at settings that no run had: what a solver may ask for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from twin.server.calibration import load_calibration
from twin.server.laws import StepTimeLaw

SHIPPED = ("llama-3.1-8b-h100-64gb", "qwen2.5-7b-h100-64gb")


def step_ms(law: StepTimeLaw, tokens: float, adapters: float, slots: float, rank: float) -> float:
    """A step of `tokens` decodes of 300 resident tokens each, nobody waiting; the formula of `StepTimeLaw`."""
    past = tokens > law.graph_tokens
    ms = law.base + law.seq * tokens + law.kv * 0.3 * tokens
    ms += past * (law.cliff + law.past_graph * (tokens - law.graph_tokens))
    if adapters:
        ms += law.lora + law.adapter * adapters + law.adapter_rank * adapters * rank / 16 + law.slot * slots
        ms += law.slot_square * slots * slots / 1000 + law.lora_rank * rank / 16
        ms += tokens / 1000 * (law.slot_token * slots + law.adapter_token * adapters) + law.lora_token * tokens
        ms += law.adapter_small * adapters * (tokens < 128) + law.adapter_large * adapters * past
    return ms


point = st.tuples(st.integers(1, 2048), st.integers(0, 384), st.integers(8, 384), st.sampled_from([8, 16, 32, 64]))


@pytest.mark.parametrize("name", SHIPPED)
@given(at=point, more=st.integers(1, 200))
def test_more_adapters_slots_and_rank_never_cost_less(name: str, at: tuple[int, int, int, int], more: int) -> None:
    law, (tokens, adapters, slots, rank) = load_calibration(name).step, at
    here = step_ms(law, tokens, adapters, slots, rank)
    assert step_ms(law, tokens, adapters + more, slots, rank) >= here
    assert step_ms(law, tokens, adapters, slots + more, rank) >= here
    assert step_ms(law, tokens, adapters, slots, rank + more) >= here


@pytest.mark.parametrize("name", SHIPPED)
@given(at=point, more=st.integers(1, 500))
def test_more_tokens_cost_more_but_for_the_measured_step_at_128(
    name: str, at: tuple[int, int, int, int], more: int
) -> None:
    """Below 128 tokens vLLM's LoRA kernels split their work more finely, and each adapter costs more."""
    law, (tokens, adapters, slots, rank) = load_calibration(name).step, at
    crossing = law.adapter_small * adapters if tokens < 128 <= tokens + more else 0.0
    assert step_ms(law, tokens + more, adapters, slots, rank) > step_ms(law, tokens, adapters, slots, rank) - crossing


@pytest.mark.parametrize("name", SHIPPED)
def test_settings_far_from_the_runs_stay_within_what_was_measured(name: str) -> None:
    """No run took more than 400 ms a step on average; corners of the grid must not explode or fall below the base."""
    law = load_calibration(name).step
    for tokens in (1, 32, 127, 129, 512, 513, 2048):
        for adapters, slots in ((1, 384), (8, 384), (8, 8), (384, 384)):
            for rank in (8, 32):
                if adapters <= tokens:
                    assert law.base < step_ms(law, tokens, adapters, slots, rank) < 620.0
    # 384 slots for 8 adapters: empty slots cost, but less than 384 adapters in them would.
    assert step_ms(law, 384, 8, 8, 16) < step_ms(law, 384, 8, 384, 16) < step_ms(law, 384, 384, 384, 16)
    assert step_ms(law, 64, 8, 384, 16) < 3 * step_ms(law, 64, 8, 8, 16)
    # Rank 32 against 8 with 8 adapters: a small difference, not a factor.
    assert 1.0 < step_ms(law, 64, 8, 8, 32) / step_ms(law, 64, 8, 8, 8) < 1.15


@pytest.mark.parametrize("name", SHIPPED)
def test_load_times_from_disk_grow_with_the_rank(name: str) -> None:
    load = load_calibration(name).load
    times = [load.disk_ms(r) for r in (8, 16, 32)]
    assert load.equal_rank_ms < times[0] < times[1] < times[2] < 200
    assert np.allclose(np.diff(times), [8 * load.disk_rank_ms, 16 * load.disk_rank_ms])
