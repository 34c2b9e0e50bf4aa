"""The step-time fit recovers laws it was shown, never bends their signs, and finds its rows in the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from profiling.__main__ import main
from profiling.fit.calibration import held_out_error, law_of
from profiling.fit.capacity import fit_capacity, fit_loads
from profiling.fit.micro import TERMS, Row, features, read_micro
from profiling.fit.regression import Recipe, regress, relative_errors
from profiling.published.models import MEASURED_MODELS
from twin.server.laws import StepTimeLaw

TRUE = np.array(
    [12.0, 0.02, 0.017, 0.07, 3.0, 0.003, 1.4, 0.26, 0.09, 0.02, 0.12, 0.015, 0.02, 0.04, 0.08, 0.25, 0.6, 1.0, 0.05,
     0.7, 1.5]
)  # fmt: skip
#: No pull towards zero and no preference among kinds of rows.
PLAIN = Recipe(micro_weight=1.0, ridge=0.0, zero=())


def synthetic_rows(rng: np.random.Generator, count: int, noise: float = 0.0) -> list[Row]:
    """Rows of the known law `TRUE` with batches, slots and ranks varied independently."""
    rows = []
    for i in range(count):
        batch, slots = float(rng.integers(1, 900)), float(rng.choice([8, 32, 128, 384]))
        x = features(
            batch, float(rng.integers(0, 1500)) * (rng.random() < 0.6), batch * rng.uniform(50, 500),
            float(rng.integers(0, int(slots) + 1)), slots=slots, rank=float(rng.choice([8, 16, 32])),
            skipped=float(rng.integers(0, 20000)), waiting=float(rng.integers(0, 20000)),
        )  # fmt: skip
        target = float(x @ TRUE) * (1.0 + noise * rng.standard_normal())
        rows.append(Row("run", f"workload{i % 4}", x, target))
    return rows


def test_a_known_law_is_recovered_term_by_term() -> None:
    fitted = regress(synthetic_rows(np.random.default_rng(1), 600), PLAIN)
    np.testing.assert_allclose(fitted, TRUE, rtol=1e-4)


def test_outliers_do_not_move_the_law() -> None:
    rows = synthetic_rows(np.random.default_rng(2), 400, noise=0.01)
    spoilt = [Row(r.kind, r.group, r.features, r.target_ms * (1.6 if i % 20 == 0 else 1.0)) for i, r in enumerate(rows)]
    error = np.abs(relative_errors(rows, regress(spoilt, PLAIN)))
    assert float(np.median(error)) < 0.012
    # Without robust weights, 5 % of the rows at +60 % would lift everything by about 3 %.
    assert abs(float(np.median(relative_errors(rows, regress(spoilt, PLAIN))))) < 0.006


@given(st.integers(0, 10_000))
def test_coefficients_are_never_negative_even_on_noise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [Row(r.kind, r.group, r.features, float(rng.uniform(5, 500))) for r in synthetic_rows(rng, 30)]
    law = law_of(regress(rows, Recipe()))
    assert isinstance(law, StepTimeLaw)
    assert (law.as_array() >= 0).all()


def test_the_ridge_shares_what_collinear_terms_explain() -> None:
    """Saturated runs have as many adapters in the step as slots: all in one term would be arbitrary."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(200):
        n = float(rng.choice([8, 32, 128]))
        x = features(float(rng.integers(50, 400)), 100.0, 30000.0, n, slots=n, rank=16)
        rows.append(Row("run", "w", x, float(x @ TRUE)))
    fitted = regress(rows, Recipe(ridge=1e-3))
    shares = {name: fitted[TERMS.index(name)] for name in ("adapter", "adapter_rank", "slot")}
    assert min(shares.values()) > 0.2 * max(shares.values())
    assert float(np.abs(relative_errors(rows, fitted)).max()) < 0.02


def test_terms_left_out_stay_out() -> None:
    fitted = regress(synthetic_rows(np.random.default_rng(4), 200), Recipe(zero=("cliff", "queue")))
    assert fitted[TERMS.index("cliff")] == fitted[TERMS.index("queue")] == 0.0
    assert fitted[TERMS.index("adapter")] > 0


def test_held_out_error_is_that_of_workloads_not_seen() -> None:
    """One workload follows another law: seen, the fit bends to it; held out, the error shows."""
    rows = synthetic_rows(np.random.default_rng(5), 200)
    odd = [Row(r.kind, r.group, r.features, r.target_ms * 1.3) if r.group == "workload3" else r for r in rows]
    assert held_out_error(rows, [], PLAIN) < 0.1
    assert held_out_error(odd, [], PLAIN) > 5.0


def test_features_are_the_terms_of_the_law() -> None:
    """The kernel sums the same terms; here against the formula in the law's docstring."""
    law = law_of(TRUE)
    x = features(300, 400, 90000, 20, slots=64, rank=32, skipped=5000, waiting=2000)
    expected = (
        law.base + law.seq * 300 + law.prompt * 400 + law.kv * 90 + law.cliff + law.past_graph * (700 - 512)
        + law.lora + 20 * (law.adapter + law.adapter_rank * 2 + law.adapter_token * 0.7 + law.adapter_large)
        + 64 * (law.slot + law.slot_square * 0.064 + law.slot_token * 0.7) + law.lora_rank * 2 + law.lora_token * 700
        + law.skipped * 5 + law.skipped_seq * 300 * 5000 / 1e6 + law.queue * 300 * 2000 / 1e6
    )  # fmt: skip
    assert float(x @ TRUE) == pytest.approx(expected)


@pytest.mark.parametrize("model", MEASURED_MODELS, ids=lambda m: m.calibration)
def test_measured_rows_are_found_and_sensible(measured_data: Path, model: object) -> None:
    name = model.spec.name  # type: ignore[attr-defined]
    rows = read_micro(measured_data / "adapter_serving", name)
    assert sum(r.kind == "base" for r in rows) >= 20
    assert sum(r.kind == "lora" for r in rows) >= 40
    assert all(np.isfinite(r.features).all() and (r.features >= 0).all() and 5 < r.target_ms < 400 for r in rows)
    error = np.abs(relative_errors(rows, regress(rows, Recipe(micro_weight=1.0))))
    assert float(error.mean()) < 0.06


@pytest.mark.parametrize("model", MEASURED_MODELS, ids=lambda m: m.calibration)
def test_capacity_law_reproduces_every_measured_row(measured_data: Path, model: object) -> None:
    fit = fit_capacity(measured_data / "adapter_serving", model)  # type: ignore[arg-type]
    assert fit.rows == 42
    assert fit.worst_pct < 0.15
    assert fit.memory_errors_right == 1.0
    loads = fit_loads(measured_data / "adapter_serving", model)  # type: ignore[arg-type]
    assert 1.0 < loads.equal_rank_ms < loads.lower_rank_ms < 20.0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["fit"], "data is missing"),
        (["fit", "data=/nowhere"], "twin_validation_real.csv"),
        (["fit", "data=/nowhere", "speed=fast"], "speed"),
        (["guess"], "guess"),
    ],
)
def test_bad_command_lines_exit_with_2_and_name_the_culprit(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert named in capsys.readouterr().err
