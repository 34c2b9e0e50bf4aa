"""The shipped step-time laws behave on settings that a solver would choose, far from the measured diagonal."""

from __future__ import annotations

from itertools import pairwise

import pytest

from profiling.fit.micro import TERMS, features
from twin.server.calibration import load_calibration
from twin.server.laws import StepTimeLaw

SHIPPED = ("llama-3.1-8b-h100-64gb", "qwen2.5-7b-h100-64gb")
BATCHES = (1, 8, 32, 100, 127, 128, 220, 400, 512, 800)


def step_ms(law: StepTimeLaw, batch: int, adapters: int, slots: int, rank: int) -> float:
    """A decode step of `batch` requests with 300 tokens of context each."""
    terms = features(batch, 0, 300 * batch, adapters, slots=slots, rank=rank)
    return float(terms @ law.as_array()[: len(TERMS)])


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("batch", BATCHES)
def test_more_adapters_slots_or_rank_never_make_a_step_shorter(name: str, batch: int) -> None:
    law = load_calibration(name).step
    counts = [n for n in (1, 2, 8, 32, 96, 192, 384) if n <= batch] or [1]
    for slots in (8, 32, 96, 192, 384):
        for rank in (8, 16, 32, 64):
            times = [step_ms(law, batch, n, slots, rank) for n in counts]
            assert all(a < b for a, b in pairwise(times)), (slots, rank)
    for n in counts:
        assert all(a < b for a, b in pairwise(step_ms(law, batch, n, m, 16) for m in (8, 32, 96, 192, 384)))
        assert all(a <= b for a, b in pairwise(step_ms(law, batch, n, 96, r) for r in (8, 16, 32, 64)))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_larger_batch_takes_longer_but_for_the_small_kernels(name: str) -> None:
    """Only below 128 tokens an adapter costs something more, so the time may fall there, by at most that term."""
    law = load_calibration(name).step
    for n, slots in ((1, 384), (8, 8), (8, 384)):
        for a, b in pairwise(b for b in BATCHES if b >= n):
            drop = step_ms(law, a, n, slots, 16) - step_ms(law, b, n, slots, 16)
            assert drop < (law.adapter_small * n if a < 128 <= b else 0.0) + 1e-9, (a, b, n, slots)


@pytest.mark.parametrize("name", SHIPPED)
def test_slots_cost_what_they_were_measured_to_cost(name: str) -> None:
    """Against a step without adapters: about twice the time with 300 slots and one adapter, 1.2 to 1.5 with 8 and 8."""
    law = load_calibration(name).step
    assert 1.7 < step_ms(law, 220, 1, 300, 8) / step_ms(law, 220, 0, 300, 8) < 2.2
    assert 1.2 < step_ms(law, 32, 8, 8, 16) / step_ms(law, 32, 0, 8, 16) < 1.5


@pytest.mark.parametrize("name", SHIPPED)
def test_extrapolation_stays_bounded(name: str) -> None:
    """Nothing a solver can choose costs more than what was measured next to it in proportion to slots and adapters."""
    law = load_calibration(name).step
    for batch in BATCHES:
        measured = step_ms(law, batch, min(batch, 192), 192, 32)
        assert step_ms(law, batch, min(batch, 384), 384, 64) < 3.0 * measured
        assert step_ms(law, batch, min(batch, 8), 384, 8) < 1.6 * step_ms(law, batch, min(batch, 192), 384, 8)
