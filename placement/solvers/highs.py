"""Linear and mixed-integer models as arrays, solved by HiGHS. The only module that imports highspy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import highspy
import numpy as np
from numpy.typing import NDArray

from placement.problem import timing
from twin.interrupts import held

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

log = logging.getLogger(__name__)

#: HiGHS keeps one thread pool per process and refuses another number of threads after the first run.
THREADS = 1
#: What presolve may say of a model that has a solution (docs/highs_presolve.md).
DOUBTED = (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible)


@dataclass(frozen=True, slots=True)
class LinearModel:
    """`min cost x` subject to `row_lower <= A x <= row_upper`, `lower <= x <= upper`; A (R, C) in CSR form.

    Args:
        start: first nonzero of each row, (R + 1,).
        index: column of each nonzero.
        value: of each nonzero.
        integer: column must be whole, (C,).
    """

    cost: Array
    lower: Array
    upper: Array
    integer: NDArray[np.bool_]
    start: Indices
    index: Indices
    value: Array
    row_lower: Array
    row_upper: Array


@dataclass(frozen=True, slots=True)
class LinearResult:
    """Answer to a `LinearModel`.

    Args:
        status: `optimal` (within the gap), `feasible` (stopped early), `infeasible`, `unknown` (stopped, no point).
        x: column values, (C,), or None.
        row_dual: change of the optimum per unit of a row's right-hand side, (R,); LP only.
        value: cost of x; NaN without one. Never a bound.
        bound: proven lower bound on the cost (MIP dual bound, or the optimum of an LP); -inf if none.
        interrupted: Ctrl-C arrived while solving.
    """

    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    x: Array | None
    row_dual: Array | None
    value: float
    bound: float
    interrupted: bool


@dataclass(slots=True)
class RowBuilder:
    """Collects sparse rows one block at a time."""

    lengths: list[int] = field(default_factory=list)
    indices: list[Indices] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)

    def add(self, index: Any, value: Any, lower: float, upper: float) -> int:
        """Appends a row without its zeros and returns its position."""
        columns, coefficients = np.asarray(index, dtype=np.int64), np.asarray(value, dtype=np.float64)
        keep = coefficients != 0
        self.lengths.append(int(keep.sum()))
        self.indices.append(columns[keep])
        self.values.append(coefficients[keep])
        self.lower.append(lower)
        self.upper.append(upper)
        return len(self.lengths) - 1

    def model(self, cost: Array, lower: Array, upper: Array, integer: NDArray[np.bool_]) -> LinearModel:
        return LinearModel(
            cost=cost,
            lower=lower,
            upper=upper,
            integer=integer,
            start=np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64),
            index=np.concatenate([np.zeros(0, dtype=np.int64), *self.indices]),
            value=np.concatenate([np.zeros(0), *self.values]),
            row_lower=np.array(self.lower),
            row_upper=np.array(self.upper),
        )


class _QuietHighs(highspy.Highs):  # type: ignore[misc]
    """HiGHS prints a banner while its constructor enables callbacks, before any option can be set."""

    def enableCallbacks(self) -> None:
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()


def solve_linear(
    model: LinearModel,
    *,
    time_limit_s: float,
    relative_gap: float = 1e-6,
    stop_at_value: float | None = None,
    seed: int = 0,
    crossover: bool = True,
) -> LinearResult:
    """Solves a model; Ctrl-C stops the solver and is reported, not raised.

    Presolve of some releases of HiGHS calls feasible models infeasible (docs/highs_presolve.md). So `infeasible` is
    what the solver says without presolve, and `unknown` where there is no time to ask it.

    Args:
        relative_gap: a MIP stops at this gap.
        stop_at_value: a MIP stops as soon as it has a point with at most this cost.
        crossover: an LP ends at a vertex; False = inside the optimal face, sooner.
    """
    if time_limit_s <= 0:
        timing.cut("HiGHS")
        return LinearResult("unknown", None, None, float("nan"), -np.inf, False)
    options: dict[str, Any] = {
        "threads": THREADS,
        "random_seed": seed,
        "mip_rel_gap": relative_gap,
        "mip_feasibility_tolerance": 1e-7,
    }
    if not model.integer.any():
        # the perspective LPs are wide and degenerate: interior point with crossover takes 0.6 of the simplex's time
        options["solver"] = "ipm"
        if not crossover:
            options["run_crossover"] = "off"
    if stop_at_value is not None:
        options["objective_target"] = stop_at_value
    began = timing.now()
    highs, interrupted = _solved(model, {**options, "time_limit": float(time_limit_s)})
    doubted = highs.getModelStatus()
    if doubted not in DOUBTED:
        return replace(_result(highs, model), interrupted=interrupted)
    left_s = time_limit_s - (timing.now() - began)
    if left_s <= 0:
        timing.cut("HiGHS")
    if interrupted or left_s <= 0:
        return LinearResult("unknown", None, None, float("nan"), -np.inf, interrupted)
    highs, interrupted = _solved(model, {**options, "time_limit": left_s, "presolve": "off"})
    if highs.getModelStatus() not in DOUBTED:
        log.warning(
            "HiGHS %s: %s with presolve, %s without, which counts (%d columns, %d rows)",
            highs.version(), doubted.name, highs.getModelStatus().name, len(model.cost), len(model.row_lower),
        )  # fmt: skip
    return replace(_result(highs, model), interrupted=interrupted)


def _solved(model: LinearModel, options: Mapping[str, Any]) -> tuple[highspy.Highs, bool]:
    """HiGHS after it ran with these options, and whether Ctrl-C stopped it."""
    highs = _QuietHighs()
    for name, value in options.items():
        if highs.setOptionValue(name, value) == highspy.HighsStatus.kError:
            raise RuntimeError(f"HiGHS refuses the option {name}={value!r}")
    if highs.passModel(_lp(model)) == highspy.HighsStatus.kError:
        raise RuntimeError("HiGHS refuses the model: it holds a coefficient that is not finite, or too large")
    return highs, _run(highs)


def _lp(model: LinearModel) -> highspy.HighsLp:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(model.cost), len(model.row_lower)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = model.cost, model.lower, model.upper
    lp.row_lower_, lp.row_upper_ = model.row_lower, model.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = model.start
    lp.a_matrix_.index_ = model.index
    lp.a_matrix_.value_ = model.value
    if model.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(i)] for i in model.integer]
    return lp


def _run(highs: highspy.Highs) -> bool:
    """Runs in a second thread, so that Ctrl-C is seen at once; True if it came.

    An exception would leave that thread behind with a solver that is gone, so Ctrl-C is not one here.
    """
    highs.HandleUserInterrupt = True
    with held() as pressed:
        thread = highs.startSolve()
        while thread.is_alive():
            thread.join(0.05)
            if pressed():
                highs.cancelSolve()
        if highs.getModelStatus() == highspy.HighsModelStatus.kTimeLimit:
            timing.cut("HiGHS")
        return pressed()


def _result(highs: highspy.Highs, model: LinearModel) -> LinearResult:
    info, status = highs.getInfo(), highs.getModelStatus()
    is_mip = bool(model.integer.any())
    # values may be read only if HiGHS says that they are a feasible point
    has_point = info.primal_solution_status == 2
    solution = highs.getSolution()
    x = np.array(solution.col_value) if has_point else None
    optimal = status == highspy.HighsModelStatus.kOptimal
    bound = float(info.mip_dual_bound) if is_mip else (float(info.objective_function_value) if optimal else -np.inf)
    if status in DOUBTED:
        name: Literal["optimal", "feasible", "infeasible", "unknown"] = "infeasible"
    elif x is None:
        name = "unknown"
    else:
        name = "optimal" if optimal else "feasible"
    dual = np.array(solution.row_dual) if optimal and not is_mip else None
    value = float(info.objective_function_value) if x is not None else float("nan")
    return LinearResult(name, x, dual, value, bound, False)
