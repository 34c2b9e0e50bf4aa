"""Which adapters a server gets."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from twin.errors import InputError
from twin.sources.synthetic import discrete_rates, power_law
from twin.workload.selection import How, Selection, select
from twin.workload.workload import Workload

WORKLOAD = power_law(60, 12.0, 1.0, [8, 16], base_model_share=0.25, seed=3)
LORA_RATE = sum(a.rate_req_per_s for a in WORKLOAD.adapters if a.rank)


def rate(workload: Workload, *, base: bool) -> float:
    return sum(a.rate_req_per_s for a in workload.adapters if (a.rank == 0) == base)


def test_nothing_asked_is_the_workload_itself() -> None:
    assert select(WORKLOAD, Selection(), seed=0) is WORKLOAD


@given(take=st.integers(1, 60), by=st.sampled_from(["first", "busiest", "even", "random"]), seed=st.integers(0, 9))
def test_as_many_as_asked_and_the_same_share_of_the_base_model(take: int, by: How, seed: int) -> None:
    chosen = select(WORKLOAD, Selection(take=take, by=by), seed=seed)
    assert sum(a.rank > 0 for a in chosen.adapters) == take
    assert len({a.adapter_id for a in chosen.adapters}) == len(chosen.adapters)
    # LoRA adapters come as they are, in the workload's order; the base model is cut like the adapters' requests.
    loras = [a for a in chosen.adapters if a.rank > 0]
    assert loras == [a for a in WORKLOAD.adapters if a in loras]
    assert rate(chosen, base=True) / rate(WORKLOAD, base=True) == pytest.approx(rate(chosen, base=False) / LORA_RATE)
    assert select(WORKLOAD, Selection(take=take, by=by), seed=seed) == chosen


@pytest.mark.parametrize("take", [0.1, 0.25, 0.5])
def test_an_even_selection_keeps_the_mix(take: float) -> None:
    workload = discrete_rates(120, [0.4, 0.2, 0.1], [8, 16, 32], seed=1)
    chosen = select(workload, Selection(take=take), seed=0)
    assert rate(chosen, base=False) == pytest.approx(take * rate(workload, base=False), rel=0.02)


def test_busiest_first_and_named() -> None:
    busiest = select(WORKLOAD, Selection(take=3, by="busiest", base_model=0.0), seed=0)
    rates = sorted((a.rate_req_per_s for a in WORKLOAD.adapters if a.rank), reverse=True)
    assert sorted((a.rate_req_per_s for a in busiest.adapters), reverse=True) == rates[:3]
    first = select(WORKLOAD, Selection(take=2, by="first", base_model=0.0), seed=0)
    assert first.adapters == tuple(a for a in WORKLOAD.adapters if a.rank)[:2]
    named = select(WORKLOAD, Selection(ids=("adapter-007", "base-model")), seed=0)
    assert [a.adapter_id for a in named.adapters] == ["adapter-007", "base-model"]
    assert rate(named, base=True) == rate(WORKLOAD, base=True)
    assert len(select(WORKLOAD, Selection(ids=("adapter-007",)), seed=0).adapters) == 1


def test_notes_say_what_was_left_out() -> None:
    note = select(WORKLOAD, Selection(take=20), seed=0).notes[-1]
    assert "20 of 60 adapters" in note
    assert "base model" in note
    assert "base model" not in select(discrete_rates(9, [0.1], [8]), Selection(take=3), seed=0).notes[-1]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(take=61), "more than the 60 adapters"),
        (Selection(ids=("adapter-99",)), "'adapter-99'"),
        (Selection(ids=()), "leaves no requests"),
    ],
)
def test_impossible_selections_are_refused(selection: Selection, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        select(WORKLOAD, selection, seed=0)
