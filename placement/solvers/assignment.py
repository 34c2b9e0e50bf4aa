r"""Class members on concrete GPUs as an integer program for CP-SAT.

Every coefficient is an integer: with scale :math:`S`, coefficients are rounded up and right sides down, so that

.. math:: \sum_k \lceil S\,(H\psi_k)_j \rceil x_{kg} \le \lfloor -S\,(h_j + \rho) \rfloor
          \;\Rightarrow\; H\Psi^\top x_g + h + \rho \le 0 .

Load costs enter by their integer epigraph :math:`z_{ge} \ge \sum_k \lceil S' v_e (W\psi_k)_e \rceil x_{kg} +
\lceil S' v_e b_e \rceil`, :math:`z \ge 0`. The rounded model is a little narrower than the real one: INFEASIBLE here
proves nothing, and no bound is ever read from it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from placement.problem import timing
from placement.problem.classes import ItemClasses
from placement.problem.problem import PlacementProblem
from placement.problem.rows import PAD, ColumnRows
from twin.interrupts import held

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: One GPU's room is about this many units: a column of 384 loses at most 0.04 % of it to rounding.
ROW_SCALE = 1_000_000
#: The whole objective is about this many units.
COST_SCALE = 10_000_000


@dataclass(frozen=True, slots=True)
class Assignment:
    """Outcome of one CP-SAT run.

    Args:
        status: `found`, `infeasible` (of the rounded model in these domains) or `unknown` (out of time).
        counts: members of class k on GPU g, (G, K); zeros unless found.
        interrupted: Ctrl-C arrived.
        branches: search effort.
    """

    status: Literal["found", "infeasible", "unknown"]
    counts: Indices
    interrupted: bool
    branches: int


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """What bounds one CP-SAT run.

    Args:
        time_limit_s: wall-clock.
        workers: search threads; with 1, a run that the clock does not cut off is reproducible.
        seed: of the search.
        effort: CP-SAT's deterministic time, about seconds of an idle processor; unlike the clock it is reproducible.
        gap: stop at this gap between incumbent and the rounded model's own bound.
    """

    time_limit_s: float
    effort: float = 10.0
    workers: int = 1
    seed: int = 0
    gap: float = 1e-3


def assign(
    problem: PlacementProblem,
    rows: ColumnRows,
    classes: ItemClasses,
    options: Indices,
    lower: Indices,
    upper: Indices,
    *,
    reserve: float,
    cost_unit: float,
    hint: Indices | None,
    limits: SearchLimits,
) -> Assignment:
    """Finds counts in `lower <= x <= upper` that satisfy all rows, at least cost where there are load costs.

    Args:
        options: option of each GPU, (G,).
        lower: least members of each class on each GPU, (G, K).
        upper: most, (G, K).
        reserve: share of each GPU kept free for class members that differ from their mean.
        cost_unit: size of the whole objective, which sets the resolution of costs.
        hint: counts to start from, (G, K), feasible or not.
    """
    began = timing.now()
    model = cp_model.CpModel()
    G, K = lower.shape
    psi = classes.mean(rows.psi)
    x = [[model.new_int_var(int(lower[g, k]), int(upper[g, k]), f"x{g}_{k}") for k in range(K)] for g in range(G)]
    for k in range(K):
        model.add(sum(x[g][k] for g in range(G)) == int(classes.size[k]))
    unit = COST_SCALE / cost_unit
    cost: list[cp_model.LinearExprT] = []
    for o in np.unique(options).tolist():
        use, limit = _rows_rounded(rows, psi, o, reserve)
        hinge, start, slope = _cost_rounded(rows, psi, o, unit)
        for g in np.flatnonzero(options == o).tolist():
            for j in range(len(limit)):
                most = np.where(use[j] > 0, use[j] * upper[g], use[j] * lower[g]).sum()
                if most > limit[j]:
                    model.add(cp_model.LinearExpr.weighted_sum(x[g], use[j].tolist()) <= int(limit[j]))
            if rows.cost_is_per_gpu:
                continue
            if slope.any():
                cost.append(cp_model.LinearExpr.weighted_sum(x[g], slope.tolist()))
            for e in range(len(start)):
                most = int(np.where(hinge[e] > 0, hinge[e] * upper[g], hinge[e] * lower[g]).sum() + start[e])
                if most > 0:
                    z = model.new_int_var(0, most, f"z{g}_{e}")
                    model.add(z >= cp_model.LinearExpr.weighted_sum(x[g], hinge[e].tolist()) + int(start[e]))
                    cost.append(z)
    _pins(model, classes, x)
    _refuted(model, problem, classes, options, x)
    if cost:
        model.minimize(sum(cost))
    if hint is not None:
        for g in range(G):
            for k in range(K):
                model.add_hint(x[g][k], int(np.clip(hint[g, k], lower[g, k], upper[g, k])))
    return _run(model, x, limits, began)


def _rows_rounded(rows: ColumnRows, psi: Array, option: int, reserve: float) -> tuple[Indices, Indices]:
    """Integer rules of one option: coefficients (J, K) rounded up, right sides (J,) down."""
    real = rows.kind[option] != PAD
    use = np.ceil(ROW_SCALE * (rows.H[option][real] @ psi.T)).astype(np.int64)
    return use, np.floor(-ROW_SCALE * (rows.h[option][real] + reserve)).astype(np.int64)


def _cost_rounded(rows: ColumnRows, psi: Array, option: int, unit: float) -> tuple[Indices, Indices, Indices]:
    """Integer hinges (E, K) with constants (E,), and linear costs (K,), all rounded up."""
    real = rows.v[option] > 0
    weight = unit * rows.v[option][real]
    hinge = np.ceil(weight[:, None] * (rows.W[option][real] @ psi.T)).astype(np.int64)
    start = np.ceil(weight * rows.b[option][real]).astype(np.int64)
    return hinge, start, np.ceil(unit * (psi @ rows.q[option])).astype(np.int64)


def _pins(model: cp_model.CpModel, classes: ItemClasses, x: list[list[cp_model.IntVar]]) -> None:
    """Classes pinned to one GPU name share a GPU; different names mean different GPUs."""
    names = sorted({p for p in classes.pinned if p is not None})
    hosts = {name: [model.new_bool_var(f"pin_{name}_{g}") for g in range(len(x))] for name in names}
    for name in names:
        model.add_exactly_one(hosts[name])
    if len(names) > 1:
        for g in range(len(x)):
            model.add_at_most_one([hosts[name][g] for name in names])
    for k, pinned in enumerate(classes.pinned):
        if pinned is not None:
            for g in range(len(x)):
                model.add(x[g][k] == int(classes.size[k])).only_enforce_if(hosts[pinned][g])


def _refuted(
    model: cp_model.CpModel,
    problem: PlacementProblem,
    classes: ItemClasses,
    options: Indices,
    x: list[list[cp_model.IntVar]],
) -> None:
    """A GPU must hold fewer members of at least one class than a column that was refuted under its option."""
    for option, items in problem.banned:
        refuted = np.bincount(classes.class_of[sorted(items)], minlength=len(classes))
        for g in np.flatnonzero(options == option).tolist():
            fewer = []
            for k in np.flatnonzero(refuted).tolist():
                switch = model.new_bool_var("")
                model.add(x[g][k] <= int(refuted[k]) - 1).only_enforce_if(switch)
                fewer.append(switch)
            model.add_bool_or(fewer)


def _run(model: cp_model.CpModel, x: list[list[cp_model.IntVar]], limits: SearchLimits, began: float) -> Assignment:
    """Solves in a thread, so that Ctrl-C reaches Python and stops the search with its incumbent."""
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.05, limits.time_limit_s - (timing.now() - began))
    solver.parameters.max_deterministic_time = limits.effort
    solver.parameters.num_workers = limits.workers
    solver.parameters.random_seed = limits.seed
    solver.parameters.relative_gap_limit = limits.gap
    solver.parameters.catch_sigint_signal = False
    outcome: list[cp_model.CpSolverStatus] = []
    thread = threading.Thread(target=lambda: outcome.append(solver.solve(model)), daemon=True)
    with held() as pressed:
        thread.start()
        while thread.is_alive():
            thread.join(0.05)
            if pressed():
                solver.stop_search()
        interrupted = pressed()
    if outcome and solver.wall_time >= solver.parameters.max_time_in_seconds:
        timing.cut("CP-SAT")
    status = outcome[0] if outcome else cp_model.UNKNOWN
    if status == cp_model.MODEL_INVALID:
        raise RuntimeError(f"CP-SAT refused its model: {model.validate()}")
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    counts = [[solver.value(v) if found else 0 for v in row] for row in x]
    return Assignment(
        status="found" if found else "infeasible" if status == cp_model.INFEASIBLE else "unknown",
        counts=np.array(counts, dtype=np.int64).reshape(len(x), -1),
        interrupted=interrupted,
        branches=int(solver.num_branches) if outcome else 0,
    )
