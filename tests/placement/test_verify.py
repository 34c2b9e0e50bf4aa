"""Verification: when a column is accepted, refuted, or gets more seeds; and what is learned from a refusal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import t as student_t

from placement.problem.problem import GpuAssignment, Placement, violations
from placement.problem.refuted import tighten
from placement.verify import TwinVerifier, decide, judge, mean_metrics
from tests.placement.synthetic import adapter, problem
from twin.confidence.sequential import mean_limit
from twin.errors import InputError
from twin.figures.health import Published, Requirement, Stable
from twin.server.column import Column
from twin.server.settings import EngineSetting

COLUMN = Column((adapter("a", 1.0),), EngineSetting("gpu", 8, 8))
ALPHA = 0.001 / 3


def result(late: float = 0.0, served: float = 1.0, drift: float = 0.0, per_adapter: tuple[int, int] = (1000, 0)) -> Any:
    row = {
        "late_fraction": late,
        "adapter_late_fraction": late,
        "waiting_drift_per_s": drift,
        "served_fraction": served,
        "ttft_p99_s": float("nan"),
    }
    return SimpleNamespace(
        row=row,
        prediction_row=lambda: row,
        counts=np.array([per_adapter[0]]),
        late_counts=np.array([per_adapter[1]]),
        adapters=COLUMN.adapters,
        adapter_sums=np.zeros((3, 6, 1)),
        arrivals=1000,
        horizon_s=3600.0,
    )


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=12), st.floats(1e-4, 0.2))
def test_limit_is_students(values: list[float], alpha: float) -> None:
    array = np.array(values)
    spread = array.std(ddof=1)
    expected = array.mean() + student_t.ppf(1 - alpha, len(array) - 1) * spread / np.sqrt(len(array))
    assert mean_limit(array, alpha, upper=True) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert mean_limit(array, alpha, upper=False) == pytest.approx(2 * array.mean() - expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0, 0.0], "accepted"),  # no seed with a late request: nothing to estimate
        ([0.0100, 0.0100, 0.0100], "accepted"),  # on the limit
        ([0.02, 0.03, 0.05], "refuted"),  # broken under every seed
        ([0.001, 0.004, 0.002], "open"),  # good mean, but three seeds do not prove it
        ([0.0010, 0.0011, 0.0010], "accepted"),
        ([0.001, float("nan"), 0.001], "refuted"),  # a missing figure is not good news
    ],
)
def test_decision_on_a_share_of_late_requests(values: list[float], expected: str) -> None:
    assert decide(Requirement("late", np.array(values), 0.01, at_most=True), ALPHA) == expected


def test_decision_on_a_lower_limit_mirrors_the_upper_one() -> None:
    for values in ([0.95, 0.951, 0.95], [0.5, 0.6, 0.7], [0.92, 0.97, 0.89]):
        low = decide(Requirement("served", np.array(values), 0.9, at_most=False), ALPHA)
        mirrored = decide(Requirement("served", -np.array(values), -0.9, at_most=True), ALPHA)
        assert low == mirrored


def test_healthy_column_is_accepted_with_the_first_seeds() -> None:
    seen: list[int] = []

    def run(column: Column, seed: int) -> Any:
        seen.append(seed)
        return result()

    checked = TwinVerifier(threads=1).judged([COLUMN], Stable(), run, first_seed=7)
    assert checked.passed
    assert checked.gpus[0].seeds == (7, 8, 9)
    assert sorted(seen) == [7, 8, 9]


def test_close_case_gets_more_seeds_and_is_refuted_if_it_stays_open() -> None:
    def run(column: Column, seed: int) -> Any:
        return result(late=0.018 if seed % 2 else 0.0)

    checked = TwinVerifier(threads=1).judged([COLUMN], Stable(), run, first_seed=0)
    assert not checked.passed
    assert len(checked.gpus[0].seeds) == 12
    assert "late requests" in checked.gpus[0].reason


def test_lucky_first_seeds_do_not_save_a_bad_column() -> None:
    """Three good seeds with spread are no proof; the later ones decide."""

    def run(column: Column, seed: int) -> Any:
        return result(late=0.001 * seed if seed < 3 else 0.05)

    checked = TwinVerifier(threads=1).judged([COLUMN], Stable(), run, first_seed=0)
    assert checked.refuted == [0]


def test_only_open_columns_are_simulated_again() -> None:
    bad = Column((adapter("b", 1.0),), COLUMN.setting)

    def run(column: Column, seed: int) -> Any:
        return result(late=0.0 if column is COLUMN else 0.018 * (seed % 2))

    checked = TwinVerifier(threads=2).judged([COLUMN, bad], Stable(), run, first_seed=0)
    assert [len(g.seeds) for g in checked.gpus] == [3, 12]
    assert checked.refuted == [1]


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"late": 0.2}, "late requests"),
        ({"served": 0.5}, "throughput"),
        ({"drift": 1.0}, "queue growth"),
        ({"per_adapter": (200, 60)}, "starve"),
    ],
)
def test_every_part_of_the_stable_rule_can_refute(bad: dict[str, Any], text: str) -> None:
    decision, reason = judge([result(**bad) for _ in range(3)], Stable(), ALPHA)
    assert decision == "refuted"
    assert text in reason


def test_few_requests_of_an_adapter_are_judged_by_confidence() -> None:
    assert judge([result(per_adapter=(2, 1)), result(), result()], Stable(), ALPHA)[0] == "accepted"


def test_published_rule_tolerates_late_requests() -> None:
    late = [result(late=0.9, served=0.95, drift=1.0) for _ in range(3)]
    assert judge(late, Published(), ALPHA)[0] == "accepted"
    assert judge([result(served=0.8)] * 3, Published(), ALPHA)[0] == "refuted"


def test_mean_metrics_skip_missing_values() -> None:
    means = mean_metrics([result(late=0.0), result(late=0.2)])
    assert means["late_fraction"] == pytest.approx(0.1)
    assert np.isnan(means["ttft_p99_s"])


def test_looks_share_the_error_probability() -> None:
    assert TwinVerifier(min_seeds=3, max_seeds=12).looks() == [3, 6, 12]
    assert TwinVerifier(min_seeds=3, max_seeds=3).looks() == [3]
    assert TwinVerifier(min_seeds=4, max_seeds=10).looks() == [4, 8, 10]


@pytest.mark.parametrize(
    "bad",
    [{"min_seeds": 2}, {"max_seeds": 2}, {"confidence": 1.0}, {"horizon_s": 0.0}, {"threads": 0}, {"max_rounds": -1}],
)
def test_verifier_refuses(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        TwinVerifier(**bad)


def test_tightening_excludes_the_refuted_column_and_little_else() -> None:
    whole = problem([adapter(f"a{i}", 1.0) for i in range(12)])
    load = GpuAssignment(0, tuple(range(8)))
    while whole.options[0].violation(whole.phi[list(load.items)].sum(axis=0)[None])[0] > 0:
        load = GpuAssignment(0, load.items[:-1])
    tightened = tighten(whole, [load], 1)
    phi = whole.phi[list(load.items)].sum(axis=0)[None]
    assert (0, frozenset(load.items)) in tightened.banned
    # A column of the same load is excluded too if the refuted one was near the boundary; half of it is not.
    assert tightened.options[0].violation(0.5 * phi)[0] <= 0
    rest = tuple(i for i in range(12) if i not in load.items)
    found = violations(tightened, Placement((load, GpuAssignment(1, rest))))
    assert any("refuted" in text for text in found)
    for before, after in zip(whole.options[1:], tightened.options[1:], strict=True):
        assert after is before


def test_later_rounds_tighten_every_setting() -> None:
    whole = problem([adapter(f"a{i}", 1.0) for i in range(12)])
    gpu = GpuAssignment(0, (0, 1, 2))
    second, third = tighten(whole, [gpu], 2), tighten(whole, [gpu], 3)
    phi = whole.phi[:6].sum(axis=0)[None]
    for option in range(1, len(whole.options)):
        slack = [-float(p.options[option].feasible.violation(phi)[0]) for p in (whole, second, third)]
        assert slack[0] > slack[1] > slack[2]


def test_the_share_that_the_constraint_allows_decides_which_adapters_starve() -> None:
    late = result(per_adapter=(400, 40))
    assert "starve" in Stable().broken([late])
    assert Stable(late_share=0.2, adapter_late_share=0.3).broken([late]) == ""
