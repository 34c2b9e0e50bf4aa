"""No status of HiGHS' presolve is taken as it is: several releases call a feasible model infeasible."""

from __future__ import annotations

import logging
import tomllib
from importlib import metadata
from pathlib import Path

import highspy
import numpy as np
import pytest
from packaging.requirements import Requirement

from placement.solvers import highs
from placement.solvers.highs import LinearModel, solve_linear

MPS = Path(__file__).with_name("highs_presolve.mps")
PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
#: Releases whose presolve calls the model of the file infeasible, and those that are right (docs/highs_presolve.md).
WRONG = ("1.13.0", "1.13.1", "1.14.0", "1.15.0", "1.15.1", "1.16.0")
RIGHT = ("1.10.0", "1.11.0", "1.12.0")
#: Not released when this was written; entered above once it is.
NEXT = "1.17.0"
INSTALLED = metadata.version("highspy")
INFEASIBLE, OPTIMAL = highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kOptimal


def read(path: Path) -> LinearModel:
    """The arrays of an MPS file."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    assert solver.readModel(str(path)) == highspy.HighsStatus.kOk
    lp = solver.getLp()
    assert lp.a_matrix_.format_ == highspy.MatrixFormat.kColwise
    column = np.repeat(np.arange(lp.num_col_), np.diff(lp.a_matrix_.start_))
    row = np.array(lp.a_matrix_.index_)
    order = np.lexsort((column, row))
    return LinearModel(
        cost=np.array(lp.col_cost_),
        lower=np.array(lp.col_lower_),
        upper=np.array(lp.col_upper_),
        integer=np.array([kind == highspy.HighsVarType.kInteger for kind in lp.integrality_]),
        start=np.concatenate([[0], np.cumsum(np.bincount(row, minlength=lp.num_row_))]).astype(np.int64),
        index=column[order].astype(np.int64),
        value=np.array(lp.a_matrix_.value_)[order],
        row_lower=np.array(lp.row_lower_),
        row_upper=np.array(lp.row_upper_),
    )


def raw_status(presolve: str) -> highspy.HighsModelStatus:
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("presolve", presolve)
    solver.readModel(str(MPS))
    solver.run()
    return solver.getModelStatus()


def test_the_model_has_a_solution_whatever_the_release() -> None:
    """The point is checked here, by the rows and bounds of the file."""
    model = read(MPS)
    result = solve_linear(model, time_limit_s=60.0)
    assert result.status == "optimal"
    assert result.x is not None
    product = model.value * result.x[model.index]
    rows = np.array([product[a:b].sum() for a, b in zip(model.start[:-1], model.start[1:], strict=True)])
    tolerance = 1e-6
    assert np.all((rows >= model.row_lower - tolerance) & (rows <= model.row_upper + tolerance))
    assert np.all((result.x >= model.lower - tolerance) & (result.x <= model.upper + tolerance))
    assert np.allclose(result.x[model.integer], np.round(result.x[model.integer]), atol=tolerance)


def test_which_releases_are_right() -> None:
    """Fails as soon as the installed release is not what this table says, or is not in it."""
    assert raw_status("off") == OPTIMAL
    wrong = raw_status("on") == INFEASIBLE
    remedy = "enter the release in this table, in docs/highs_presolve.md and at the pin of highspy in pyproject.toml"
    if INSTALLED in RIGHT:
        assert not wrong, f"presolve of HiGHS {INSTALLED} is wrong here: {remedy}"
    elif INSTALLED in WRONG:
        assert wrong, f"presolve of HiGHS {INSTALLED} is right here: {remedy}"
    else:
        found = "still wrong" if wrong else "right: the pin can be lifted from this release on"
        pytest.fail(f"HiGHS {INSTALLED} is not known; its presolve is {found}; {remedy}")


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_pin_takes_a_right_release_where_there_is_one(python: str) -> None:
    """The right releases have no wheels for Python 3.14; there a release is taken whose fault is known."""
    if not PYPROJECT.is_file():
        pytest.skip("pyproject.toml is not installed")
    listed = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    found = [r for r in map(Requirement, listed) if r.name == "highspy"]
    (pin,) = [r for r in found if r.marker is None or r.marker.evaluate({"python_version": python})]
    taken = [v for v in (*RIGHT, *WRONG, NEXT) if pin.specifier.contains(v)]
    assert taken == list(WRONG if python == "3.14" else RIGHT)


class _Presolve:
    """`_solved` of a HiGHS whose presolve says what it likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: highspy.HighsModelStatus, interrupted: bool = False):
        self.calls: list[dict[str, object]] = []
        honest = highs._solved

        def solved(model: LinearModel, options: dict[str, object]) -> tuple[object, bool]:
            self.calls.append(dict(options))
            solver, stopped = honest(model, {**options, "presolve": "off"})
            if "presolve" in options:
                return solver, stopped
            solver.getModelStatus = lambda: status  # type: ignore[method-assign]
            return solver, interrupted

        monkeypatch.setattr(highs, "_solved", solved)


def small(least: float = 0.0) -> LinearModel:
    """min x, x whole in [0, 4], 2 x >= least."""
    return LinearModel(
        cost=np.ones(1), lower=np.zeros(1), upper=np.array([4.0]), integer=np.array([True]), start=np.array([0, 1]),
        index=np.array([0]), value=np.array([2.0]), row_lower=np.array([least]), row_upper=np.array([np.inf]),
    )  # fmt: skip


@pytest.mark.parametrize("status", highs.DOUBTED, ids=lambda s: s.name)
def test_a_false_infeasible_is_solved_again_without_presolve(
    status: highspy.HighsModelStatus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    presolve = _Presolve(monkeypatch, status)
    with caplog.at_level(logging.WARNING):
        result = solve_linear(small(3.0), time_limit_s=30.0, seed=3)
    assert (result.status, result.value) == ("optimal", 2.0)
    first, second = presolve.calls
    assert second.pop("presolve") == "off"
    assert 0 < second.pop("time_limit") <= first.pop("time_limit")  # type: ignore[operator]
    assert first == second, "the other options are the same"
    assert f"{status.name} with presolve, kOptimal without" in caplog.text


def test_a_true_infeasible_stays_one_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    presolve = _Presolve(monkeypatch, INFEASIBLE)
    with caplog.at_level(logging.WARNING):
        assert solve_linear(small(9.0), time_limit_s=30.0).status == "infeasible"
    assert len(presolve.calls) == 2
    assert not caplog.records


def test_an_optimum_is_not_solved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    presolve = _Presolve(monkeypatch, OPTIMAL)
    assert solve_linear(small(3.0), time_limit_s=30.0).status == "optimal"
    assert len(presolve.calls) == 1


def test_nothing_is_proven_by_an_interrupted_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    presolve = _Presolve(monkeypatch, INFEASIBLE, interrupted=True)
    result = solve_linear(small(3.0), time_limit_s=30.0)
    assert (result.status, result.interrupted, len(presolve.calls)) == ("unknown", True, 1)


def test_nothing_is_proven_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    presolve = _Presolve(monkeypatch, INFEASIBLE)
    times = iter([0.0, 31.0])
    monkeypatch.setattr("placement.problem.timing.now", lambda: next(times))
    result = solve_linear(small(3.0), time_limit_s=30.0)
    assert (result.status, result.bound, len(presolve.calls)) == ("unknown", -np.inf, 1)
