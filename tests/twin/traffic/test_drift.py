"""Models of changing rates: mean rates stay, and what changes is what was asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from twin.errors import InputError
from twin.sources.synthetic import power_law
from twin.traffic.arrivals import draw_requests
from twin.traffic.drift import Drift, Peaks, Reshuffled, Switching, Unpredictable, apply_drift
from twin.workload.adapter import Adapter
from twin.workload.rates import OnOff, RateProfile, even_profile

MODELS: list[Drift] = [
    Unpredictable(),
    Unpredictable(common_share=1.0, persistence=0.9),
    Switching(),
    Peaks(),
    Reshuffled(),
]


def adapters(n: int = 40, **options: Any) -> tuple[Adapter, ...]:
    return power_law(n, 20.0, 1.0, [8, 16], base_model_share=0.1, **options).adapters


def levels(changed: tuple[Adapter, ...]) -> np.ndarray:
    """Factors of adapters with profiles, mean 1, (A, W)."""
    rows = np.array([a.rate_process.factors for a in changed if isinstance(a.rate_process, RateProfile)])
    return np.asarray(rows / rows.mean(axis=1, keepdims=True))


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_the_total_rate_stays_and_so_does_everything_else(model: Drift) -> None:
    before = adapters()
    after, note = model.applied(before)
    assert note
    assert sum(a.mean_rate_req_per_s for a in after) == pytest.approx(20.0)
    assert [(a.adapter_id, a.rank, a.prompt_tokens) for a in after] == [
        (a.adapter_id, a.rank, a.prompt_tokens) for a in before
    ]
    if not isinstance(model, Reshuffled):
        assert [a.rate_req_per_s for a in after] == [a.rate_req_per_s for a in before]
    quarter = [a.scaled(0.25) for a in after]
    drawn = [len(draw_requests(quarter, horizon_s=3600.0, seed=seed, max_model_len=4096)) for seed in range(16)]
    # Peaks of 4 times the rate in a tenth of the time make the hour's total vary by about a fifth.
    assert np.mean(drawn) == pytest.approx(18_000, rel=0.2 if isinstance(model, Peaks) else 0.05)


@pytest.mark.parametrize("model", [Unpredictable, Reshuffled])
def test_levels_follow_from_the_seed(model: type[Any]) -> None:
    assert model(seed=3).applied(adapters()) == model(seed=3).applied(adapters())
    assert model(seed=3).applied(adapters())[0] != model(seed=4).applied(adapters())[0]


def test_levels_have_the_spread_and_the_common_part_asked_for() -> None:
    many = adapters(400)
    alone = np.log(levels(Unpredictable(change_s=10, spread_cv=0.8).applied(many)[0]))
    assert np.exp(alone).std() == pytest.approx(0.8, rel=0.05)
    assert np.abs(np.corrcoef(alone)[np.triu_indices(20, 1)]).mean() < 0.06
    half = np.log(levels(Unpredictable(change_s=10, spread_cv=0.8, common_share=0.5).applied(many)[0]))
    assert np.corrcoef(half)[np.triu_indices(400, 1)].mean() == pytest.approx(0.5, abs=0.06)
    alike = levels(Unpredictable(change_s=300, common_share=1.0).applied(many)[0])
    assert alike == pytest.approx(np.tile(alike[0], (len(alike), 1)))
    slow = np.log(levels(Unpredictable(change_s=10, persistence=0.8).applied(many)[0]))
    near = np.mean([np.corrcoef(row[1:], row[:-1])[0, 1] for row in slow])
    assert near == pytest.approx(0.8, abs=0.05)


def test_reshuffling_keeps_the_rates_and_moves_the_adapters() -> None:
    before = adapters()
    after, _ = Reshuffled(change_s=600, span_s=3600, turnover=0.5, seed=1).applied(before)
    rates = np.array([a.rate_process.factors for a in after if isinstance(a.rate_process, RateProfile)])
    assert after[-1] == before[-1], "requests to the base model keep their rate"
    assert rates.shape == (40, 6)
    for w in range(6):
        assert sorted(rates[:, w]) == pytest.approx(sorted(rates[:, 0]))
    assert 0.2 < (rates[:, 1] != rates[:, 0]).mean() <= 0.5
    still, _ = Reshuffled(turnover=0.0).applied(before)
    assert [a.rate_req_per_s for a in still] == pytest.approx([a.rate_req_per_s for a in before])


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(1, 5))
def test_a_share_of_the_adapters_takes_part(share: float, groups: int) -> None:
    before = adapters()
    peaking = Peaks(share=share, groups=groups).applied(before)[0]
    taking_part = [a.rate_process for a in peaking if isinstance(a.rate_process, OnOff)]
    assert len(taking_part) == (max(1, round(share * 41)) if share > 0 else 0)
    assert len({p.group for p in taking_part}) == min(groups, len(taking_part))
    assert sum(a.rate_process is not None for a in Switching(share=share).applied(before)[0]) == len(taking_part)


def test_peaks_are_as_high_and_as_frequent_as_asked_for() -> None:
    process = Peaks(height=5.0, peak_s=60, every_s=600).applied(adapters())[0][0].rate_process
    assert process == OnOff(60, 540, 0.2, group="peak-1")


def test_a_process_of_its_own_is_kept() -> None:
    own = even_profile([1.0, 3.0], 600.0)
    first, *rest = adapters()
    changing = Adapter(
        first.adapter_id, first.rank, first.rate_req_per_s, first.prompt_tokens, first.output_tokens, rate_process=own
    )
    for model in MODELS:
        changed = model.applied([changing, *rest])[0]
        assert changed[0] == changing
        assert changed[1].rate_process is not None


def test_the_planned_rate_can_be_the_peak_or_a_quantile() -> None:
    before = adapters()
    mean, no_note = apply_drift(before, Unpredictable(), "mean")
    peak, notes = apply_drift(before, Unpredictable(), "peak")
    high, _ = apply_drift(before, Unpredictable(), 0.9)
    rates = [np.array([a.rate_req_per_s for a in w]) for w in (mean, high, peak)]
    assert (rates[0] < rates[1]).all()
    assert (rates[1] <= rates[2] * (1 + 1e-12)).all()
    assert rates[2] == pytest.approx(rates[0] * levels(mean).max(axis=1))
    assert [a.mean_rate_req_per_s for a in peak] == pytest.approx(rates[0].tolist())
    assert len(no_note) == 1
    assert "against 20 req/s on average" in notes[1]
    assert apply_drift(before, None, "peak") == (before, ()), "constant rates are their own peak"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Unpredictable(change_s=0.0), "0.0"),
        (lambda: Unpredictable(change_s=700.0), "3600 s are not"),
        (lambda: Unpredictable(change_s=1e-3, span_s=3600.0), "3600 s are not"),
        (lambda: Unpredictable(spread_cv=-1.0), "-1.0"),
        (lambda: Unpredictable(spread_cv=math.nan), "nan"),
        (lambda: Unpredictable(common_share=1.5), "1.5"),
        (lambda: Unpredictable(persistence=1.0), "1.0"),
        (lambda: Unpredictable(seed=-1), "-1"),
        (lambda: Reshuffled(turnover=2.0), "2.0"),
        (lambda: Switching(on_s=0.0), "on_s = 0.0"),
        (lambda: Switching(share=-0.1), "-0.1"),
        (lambda: Peaks(height=1.0), "1.0"),
        (lambda: Peaks(peak_s=600.0, every_s=600.0), "600.0"),
        (lambda: Peaks(groups=0), "0"),
        (lambda: Peaks(phases="daily"), "'daily'"),
        (lambda: apply_drift(adapters(2), "daily", "mean"), "'daily'"),
        (lambda: apply_drift(adapters(2), None, "most"), "'most'"),
        (lambda: apply_drift(adapters(2), None, 0.0), "0.0"),
        (lambda: apply_drift(adapters(2), None, True), "True"),
    ],
)
def test_wrong_options_are_named(make: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert said in error.value.problem
    assert error.value.remedy
