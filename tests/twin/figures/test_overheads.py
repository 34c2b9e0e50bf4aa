"""Overheads: every term of the law has one cause, and the causes add up to the time that the engine computed."""

from __future__ import annotations

import pytest

from tests.twin.columns import LLAMA, column
from twin.figures.overheads import CAUSES, overheads
from twin.server.laws import STEP_TERMS
from twin.simulation import simulate


def test_every_term_has_one_cause() -> None:
    named = [term for terms in CAUSES.values() for term in terms]
    assert sorted(named) == sorted(STEP_TERMS)


def test_causes_add_up_to_the_busy_time() -> None:
    served = column(40, (0.2, 0.05), max_loras=8)
    results = [simulate(served, LLAMA, seed=seed) for seed in (0, 1)]
    found = overheads(results, served.setting, LLAMA)
    busy = sum(r.busy_s for r in results) / sum(r.horizon_s for r in results)
    assert 1 - found.share["idle"] == pytest.approx(busy, rel=1e-6)
    assert found.share["loading"] > 0
    assert found.kv_tokens_lost > 0
