r"""Class members on concrete GPUs at fixed settings, near the even split.

With :math:`e_{kg} = a_{k o(g)} / y_{o(g)}` members of class k per GPU in the relaxation,

.. math::
    \min\ & \sum_g \big(v^\top z_g + q^\top\Psi^\top x_g\big) \\
    \text{s.t.}\ & \textstyle\sum_g x_{kg} = d_k,\qquad
    \lfloor e_{kg} \rfloor - w + 1 \le x_{kg} \le \lfloor e_{kg} \rfloor + w,\quad x_{kg}\ \text{integer} \\
    & H_{o(g)} \Psi^\top x_g + h_{o(g)} + \rho \le 0, \qquad W_{o(g)} \Psi^\top x_g + b_{o(g)} \le z_g,\quad z_g \ge 0 .

The reserve :math:`\rho` (in scaled rows: the share of a GPU) is kept for class members that differ from their mean.
Rows and hinges that the domains of x decide anyway are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from placement.problem.classes import ItemClasses
from placement.problem.problem import PlacementProblem
from placement.problem.rows import PAD, ColumnRows
from placement.solvers.highs import RowBuilder, solve_linear

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
#: Adds a column (cost, upper bound, integer) and returns its position.
NewColumn = Callable[[float, float, bool], int]


@dataclass(frozen=True, slots=True)
class Packing:
    """Class members on each GPU.

    Args:
        status: `packed`, `infeasible` (within the window) or `unknown` (out of time).
        counts: members of class k on GPU g, (G, K); empty unless packed.
        options: option of each GPU, (G,).
        interrupted: Ctrl-C arrived.
    """

    status: Literal["packed", "infeasible", "unknown"]
    counts: Indices
    options: Indices
    interrupted: bool


def domains(classes: ItemClasses, y: Array, a: Array, window: int | None) -> tuple[Indices, Indices, Indices]:
    """Option of each GPU (G,) and the least and most members of each class on it, both (G, K).

    Args:
        window: w of the formula; a class without members under a setting stays away from it at w = 1.
            None = anything between 0 and the most that one GPU may hold.
    """
    options = np.repeat(np.arange(len(y)), np.round(y).astype(int))
    even = (a / np.maximum(y, 1.0)).T[options]
    floor = np.floor(even + 1e-9).astype(np.int64)
    most = np.where(classes.allowed.T[options], np.minimum(classes.most_per_gpu, classes.size), 0)
    if window is None:
        return options, np.zeros_like(floor), most
    upper = floor + window
    if window == 1:
        upper = np.where(even > 1e-9, upper, 0)
    pinned = np.array([p is not None for p in classes.pinned])
    lower = np.where(pinned, 0, np.clip(floor - window + 1, 0, most))
    return options, lower, np.where(pinned, most, np.minimum(upper, most))


def pack(
    problem: PlacementProblem,
    rows: ColumnRows,
    classes: ItemClasses,
    y: Array,
    a: Array,
    *,
    window: int | None,
    reserve: float,
    time_limit_s: float,
    relative_gap: float = 1e-3,
    excess_cost: float | None = None,
) -> Packing:
    """Packs whole class members, at least cost where the objective has load costs.

    Args:
        window: w, or None for any number of members that a GPU may hold.
        reserve: rho.
        relative_gap: good enough for the load costs.
        excess_cost: None = rules hold. A number = rules may be broken at this cost per unit of a scaled row (about
            one GPU), which nearly always gives a packing that can be repaired.
    """
    options, lower, upper = domains(classes, y, a, window)
    psi = classes.mean(rows.psi)
    G, K = lower.shape
    builder = RowBuilder()
    cost: list[float] = [0.0] * (G * K)
    low: list[float] = lower.astype(float).ravel().tolist()
    high: list[float] = upper.astype(float).ravel().tolist()
    whole = [True] * (G * K)

    def new_column(objective: float, most: float, integer: bool) -> int:
        cost.append(objective)
        low.append(0)
        high.append(most)
        whole.append(integer)
        return len(cost) - 1

    for k in range(K):
        builder.add(np.arange(G) * K + k, np.ones(G), float(classes.size[k]), float(classes.size[k]))
    per_option = {o: (rows.H[o] @ psi.T, rows.W[o] @ psi.T, psi @ rows.q[o]) for o in np.unique(options).tolist()}
    for g, o in enumerate(options.tolist()):
        use, hinge, slope = per_option[o]
        x = np.arange(g * K, (g + 1) * K)
        for k in range(K):
            cost[g * K + k] += float(slope[k])
        most = np.where(use > 0, use * upper[g], use * lower[g]).sum(axis=1) + rows.h[o] + reserve
        binding = np.flatnonzero((most > 0) & (rows.kind[o] != PAD)).tolist()
        excess = [] if excess_cost is None or not binding else [new_column(excess_cost, np.inf, False)]
        for j in binding:
            builder.add([*x, *excess], [*use[j], *([-1.0] * len(excess))], -np.inf, -float(rows.h[o, j]) - reserve)
        least = np.where(hinge > 0, hinge * lower[g], hinge * upper[g]).sum(axis=1) + rows.b[o]
        most = np.where(hinge > 0, hinge * upper[g], hinge * lower[g]).sum(axis=1) + rows.b[o]
        for e in np.flatnonzero((rows.v[o] > 0) & (most > 0)).tolist():
            if least[e] >= 0:
                for k in range(K):
                    cost[g * K + k] += float(rows.v[o, e] * hinge[e, k])
            else:
                z = new_column(float(rows.v[o, e]), np.inf, False)
                builder.add(np.append(x, z), np.append(hinge[e], -1.0), -np.inf, -float(rows.b[o, e]))
    _pinned_rows(builder, classes, G, new_column)
    _refuted_rows(builder, problem, classes, options, lower, upper, new_column)

    model = builder.model(np.array(cost), np.array(low), np.array(high), np.array(whole))
    enough = 1e-6 if excess_cost is not None and rows.cost_is_per_gpu else None
    result = solve_linear(model, time_limit_s=time_limit_s, relative_gap=relative_gap, stop_at_value=enough)
    if result.x is None:
        return Packing(
            "infeasible" if result.status == "infeasible" else "unknown",
            np.zeros((0, K), dtype=np.int64),
            options,
            result.interrupted,
        )
    counts = np.round(result.x[: G * K]).astype(np.int64).reshape(G, K)
    return Packing("packed", counts, options, result.interrupted)


def _pinned_rows(builder: RowBuilder, classes: ItemClasses, G: int, new_column: NewColumn) -> None:
    """Classes pinned to one GPU name share one GPU; different names mean different GPUs."""
    K = len(classes)
    names = sorted({p for p in classes.pinned if p is not None})
    hosts = {name: [new_column(0.0, 1, True) for _ in range(G)] for name in names}
    for name in names:
        builder.add(hosts[name], np.ones(G), 1.0, 1.0)
    for g in range(G if names else 0):
        builder.add([hosts[name][g] for name in names], np.ones(len(names)), -np.inf, 1.0)
    for k, pin in enumerate(classes.pinned):
        for g in range(G if pin is not None else 0):
            builder.add([g * K + k, hosts[str(pin)][g]], [1.0, -float(classes.size[k])], -np.inf, 0.0)


def _refuted_rows(
    builder: RowBuilder,
    problem: PlacementProblem,
    classes: ItemClasses,
    options: Indices,
    lower: Indices,
    upper: Indices,
    new_column: NewColumn,
) -> None:
    """No GPU of the option holds at least as many members of every class as a refuted column: some class has fewer."""
    K = len(classes)
    for option, items in problem.banned:
        refuted = np.bincount(classes.class_of[sorted(items)], minlength=K)
        for g in np.flatnonzero(options == option).tolist():
            if (upper[g] < refuted).any():
                continue
            fewer = []
            for k in np.flatnonzero((refuted > 0) & (lower[g] < refuted)).tolist():
                switch = new_column(0.0, 1, True)
                room = float(upper[g, k] - refuted[k] + 1)
                builder.add([g * K + k, switch], [1.0, room], -np.inf, float(upper[g, k]))
                fewer.append(switch)
            # without any class that may have fewer the row reads 0 >= 1, and the window has to be widened
            builder.add(fewer, np.ones(len(fewer)), 1.0, np.inf)
