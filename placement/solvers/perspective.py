r"""The aggregate perspective model: GPUs per setting, adapters of each class on them, no GPU identity.

.. math::
    \min\ & \sum_o \big(v_o^\top z_o + q_o^\top\Psi^\top a_o + r_o y_o\big) \\
    \text{s.t.}\ & \textstyle\sum_o a_{ko} - \theta d_k = d_k & \text{every member of class } k \text{ is placed} \\
    & H_o \Psi^\top a_o + h_o y_o \le 0 & (\mu_o)\ \text{facets, hull rows, adapters per GPU} \\
    & W_o \Psi^\top a_o + b_o y_o - z_o \le 0,\ z_o \ge 0 & (\lambda_o)\ \text{load epigraph} \\
    & a_{ko} - u_k y_o \le 0 & (\nu_{ko}) \\
    & \textstyle\sum_{o: t(o)=t} y_o \le S_t,\quad \sum_o y_o \le G & (\sigma_t, \sigma_0) \\
    & \textstyle\sum_o y_o \ge L,\quad \sum_o r_o y_o \ge R & \text{left out of bounds; used by retries}

:math:`y_o` GPUs hold columns of a convex set with sum :math:`a_o`; their average :math:`a_o / y_o` lies in the set,
so every placement gives a feasible point, and at integer y the even split is optimal up to adapter integrality.
:math:`\theta` is 0 for the bound, fixed to spare room for packing, or maximised (headroom).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyomo.environ as pyo
from numpy.typing import NDArray
from pyomo.core.expr.numeric_expr import LinearExpression

from placement.problem.classes import ItemClasses
from placement.problem.prices import fleet_limits
from placement.problem.problem import PlacementProblem
from placement.problem.rows import PAD, ColumnRows
from placement.solvers.certificate import Certificate
from placement.solvers.highs import LinearModel, RowBuilder

# Ctrl-C while a component is built is an exception like any other: Pyomo prints it before it passes it on.
logging.getLogger("pyomo.core").setLevel(logging.CRITICAL)

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Most headroom that is looked for: beyond twice the demand nothing is gained.
MOST_HEADROOM = 1.0


@dataclass(frozen=True, slots=True)
class PerspectiveModel:
    """The model in matrix form and where its parts are; -1 marks a part that does not exist.

    Args:
        linear: the matrix form, y continuous, theta fixed to 0.
        y: columns, (O,).
        a: columns, (K, O).
        theta: column.
        rule: rows of mu, (O, J).
        epigraph: rows of lambda, (O, E).
        cap: rows of nu, (K, O).
        stock: rows of sigma, (T,).
        total: row of sigma_0.
        fewest: row of L.
        cheapest: row of R.
    """

    linear: LinearModel
    y: Indices
    a: Indices
    theta: int
    rule: Indices
    epigraph: Indices
    cap: Indices
    stock: Indices
    total: int
    fewest: int
    cheapest: int

    def for_cost(self, *, whole: bool, spare: float = 0.0, fewest: int = 0, cheapest: float = -np.inf) -> LinearModel:
        """Least objective for (1 + spare) times the demand on at least so many GPUs, or GPUs of that price."""
        model = self._at_least(fewest, cheapest)
        lower, upper = model.lower.copy(), model.upper.copy()
        lower[self.theta] = upper[self.theta] = spare
        return replace(model, lower=lower, upper=upper, integer=self._integer(whole))

    def for_headroom(self, budget: float, *, fewest: int = 0) -> LinearModel:
        """Most headroom theta with whole GPUs whose opening costs stay within a budget."""
        model = self._at_least(fewest, -np.inf)
        cost, upper, row_upper = np.zeros_like(model.cost), model.upper.copy(), model.row_upper.copy()
        cost[self.theta], upper[self.theta] = -1.0, MOST_HEADROOM
        row_upper[self.cheapest] = budget
        # caps stay per GPU: with (1 + theta) times the members they would have to grow as well
        value = model.value.copy()
        caps = self.cap[self.cap >= 0]
        value[model.start[caps] + 1] *= 1 + MOST_HEADROOM
        return replace(
            model, cost=cost, upper=upper, row_upper=row_upper, value=value, integer=self._integer(whole=True)
        )

    def for_share(self) -> LinearModel:
        """Largest share 1 + theta of the demand that the allowed GPUs carry, y continuous; below 1 = infeasible."""
        cost, lower, upper = np.zeros_like(self.linear.cost), self.linear.lower.copy(), self.linear.upper.copy()
        cost[self.theta], lower[self.theta], upper[self.theta] = -1.0, -1.0, MOST_HEADROOM
        return replace(self.linear, cost=cost, lower=lower, upper=upper)

    def _at_least(self, fewest: int, cheapest: float) -> LinearModel:
        row_lower = self.linear.row_lower.copy()
        row_lower[self.fewest], row_lower[self.cheapest] = fewest, cheapest
        return replace(self.linear, row_lower=row_lower)

    def _integer(self, whole: bool) -> NDArray[np.bool_]:
        integer = np.zeros(len(self.linear.cost), dtype=bool)
        integer[self.y] = whole
        return integer

    def certificate(self, row_dual: Array, classes: ItemClasses) -> Certificate:
        """Multipliers from the duals of the LP; HiGHS counts duals of <= rows as <= 0."""

        def multipliers(rows: Indices) -> Array:
            return np.where(rows >= 0, -row_dual[rows], 0.0)

        return Certificate(
            mu=multipliers(self.rule),
            lam=multipliers(self.epigraph),
            nu=multipliers(self.cap),
            sigma=multipliers(self.stock),
            sigma_total=float(multipliers(np.array([self.total]))[0]),
            class_of=classes.class_of,
        )


def pyomo_model(problem: PlacementProblem, rows: ColumnRows, classes: ItemClasses) -> Any:
    """The model above as a Pyomo `ConcreteModel`, y continuous and theta fixed to 0."""
    psi = classes.mean(rows.psi)
    stock, total = fleet_limits(problem)
    K, O = classes.allowed.shape
    D = psi.shape[1]
    pairs = [(k, o) for k in range(K) for o in range(O) if classes.allowed[k, o]]
    rules = [(o, j) for o in range(O) for j in np.flatnonzero(rows.kind[o] != PAD).tolist()]
    hinges = [(o, e) for o in range(O) for e in np.flatnonzero(rows.v[o] > 0).tolist()]

    m = pyo.ConcreteModel()
    m.y = pyo.Var(range(O), domain=pyo.NonNegativeReals)
    m.a = pyo.Var(pairs, domain=pyo.NonNegativeReals)
    m.phi = pyo.Var(range(O), range(D), domain=pyo.Reals)
    m.z = pyo.Var(hinges, domain=pyo.NonNegativeReals)
    m.theta = pyo.Var(bounds=(0.0, 0.0))

    def linear(coefficients: list[float], variables: list[Any]) -> Any:
        return LinearExpression(constant=0.0, linear_coefs=coefficients, linear_vars=variables)

    y, phi = [m.y[o] for o in range(O)], [[m.phi[o, f] for f in range(D)] for o in range(O)]
    on_option = [[k for k in range(K) if classes.allowed[k, o]] for o in range(O)]
    placed = [[o for o in range(O) if classes.allowed[k, o]] for k in range(K)]
    size = classes.size.astype(float).tolist()
    cap = classes.most_per_gpu.astype(float).tolist()

    m.demand = pyo.Constraint(
        range(K),
        rule=lambda m, k: (
            linear([1.0] * len(placed[k]) + [-size[k]], [*(m.a[k, o] for o in placed[k]), m.theta]) == size[k]
        ),
    )
    m.features = pyo.Constraint(
        range(O),
        range(D),
        rule=lambda m, o, f: (
            linear([*psi[on_option[o], f].tolist(), -1.0], [*(m.a[k, o] for k in on_option[o]), phi[o][f]]) == 0.0
        ),
    )
    m.rule = pyo.Constraint(
        rules, rule=lambda m, o, j: linear([*rows.H[o, j].tolist(), float(rows.h[o, j])], [*phi[o], y[o]]) <= 0.0
    )
    m.epigraph = pyo.Constraint(
        hinges,
        rule=lambda m, o, e: (
            linear([*rows.W[o, e].tolist(), float(rows.b[o, e]), -1.0], [*phi[o], y[o], m.z[o, e]]) <= 0.0
        ),
    )
    m.cap = pyo.Constraint(pairs, rule=lambda m, k, o: linear([1.0, -cap[k]], [m.a[k, o], y[o]]) <= 0.0)
    m.stock = pyo.Constraint(
        range(len(stock)),
        rule=lambda m, t: (
            linear(
                [1.0] * int((problem.option_type == t).sum()), [y[o] for o in np.flatnonzero(problem.option_type == t)]
            )
            <= float(stock[t])
        ),
    )
    m.total = pyo.Constraint(expr=linear([1.0] * O, y) <= float(total))
    m.fewest = pyo.Constraint(expr=linear([1.0] * O, y) >= 0.0)
    m.cheapest = pyo.Constraint(expr=linear(rows.r.tolist(), y) >= -1e30)
    m.cost = pyo.Objective(
        expr=linear(
            [*(float(rows.v[o, e]) for o, e in hinges), *rows.q.ravel().tolist(), *rows.r.tolist()],
            [*(m.z[i] for i in hinges), *(phi[o][f] for o in range(O) for f in range(D)), *y],
        )
    )
    return m


def _stated_model(problem: PlacementProblem, rows: ColumnRows, classes: ItemClasses) -> PerspectiveModel:
    """The matrix form of the Pyomo model, read from it element by element."""
    m = pyomo_model(problem, rows, classes)
    column: dict[int, int] = {}
    lower, upper = [], []
    for variable in m.component_data_objects(pyo.Var):
        column[id(variable)] = len(column)
        lower.append(-np.inf if variable.lb is None else variable.lb)
        upper.append(np.inf if variable.ub is None else variable.ub)
    builder = RowBuilder()
    row: dict[int, int] = {}
    for constraint in m.component_data_objects(pyo.Constraint):
        body = constraint.body
        low, high = constraint.lower, constraint.upper
        row[id(constraint)] = builder.add(
            [column[id(v)] for v in body.linear_vars],
            body.linear_coefs,
            -np.inf if low is None else float(low),
            np.inf if high is None else float(high),
        )
    cost = np.zeros(len(column))
    for variable, coefficient in zip(m.cost.expr.linear_vars, m.cost.expr.linear_coefs, strict=True):
        cost[column[id(variable)]] += coefficient

    def places(component: Any, shape: tuple[int, ...], position: dict[int, int]) -> Indices:
        found = np.full(shape, -1, dtype=np.int64)
        for index in component:
            found[index] = position[id(component[index])]
        return found

    K, O = classes.allowed.shape
    return PerspectiveModel(
        linear=builder.model(cost, np.array(lower), np.array(upper), np.zeros(len(column), dtype=bool)),
        y=places(m.y, (O,), column),
        a=places(m.a, (K, O), column),
        theta=column[id(m.theta)],
        rule=places(m.rule, rows.h.shape, row),
        epigraph=places(m.epigraph, rows.v.shape, row),
        cap=places(m.cap, (K, O), row),
        stock=places(m.stock, (len(problem.stock),), row),
        total=row[id(m.total)],
        fewest=row[id(m.fewest)],
        cheapest=row[id(m.cheapest)],
    )


def perspective_model(
    problem: PlacementProblem, rows: ColumnRows, classes: ItemClasses, *, stated: bool = False
) -> PerspectiveModel:
    """The matrix form of the model.

    Solvers and bounds make several models a run, and building one by Pyomo takes longer than solving its relaxation.

    Args:
        stated: read from Pyomo, which states the model, instead of the same made directly.
    """
    if stated:
        return _stated_model(problem, rows, classes)
    psi, (stock, total) = classes.mean(rows.psi), fleet_limits(problem)
    (K, O), D = classes.allowed.shape, rows.psi.shape[1]
    y = np.arange(O)
    pairs = np.argwhere(classes.allowed)
    a = np.full((K, O), -1, dtype=np.int64)
    a[tuple(pairs.T)] = O + np.arange(len(pairs))
    phi = O + len(pairs) + np.arange(O * D).reshape(O, D)
    hinges = np.argwhere(rows.v > 0)
    z = np.full(rows.v.shape, -1, dtype=np.int64)
    z[tuple(hinges.T)] = O + len(pairs) + O * D + np.arange(len(hinges))
    theta = O + len(pairs) + O * D + len(hinges)
    lower, upper = np.zeros(theta + 1), np.full(theta + 1, np.inf)
    lower[phi.ravel()], upper[theta] = -np.inf, 0.0
    size, most = classes.size.astype(float), classes.most_per_gpu.astype(float)
    builder = RowBuilder()
    for k in range(K):
        own = a[k][a[k] >= 0]
        builder.add([*own, theta], [*np.ones(len(own)), -size[k]], size[k], size[k])
    for o in range(O):
        own = np.flatnonzero(a[:, o] >= 0)
        for f in range(D):
            builder.add([*a[own, o], phi[o, f]], [*psi[own, f], -1.0], 0.0, 0.0)
    rule, epigraph = np.full(rows.h.shape, -1, dtype=np.int64), np.full(rows.v.shape, -1, dtype=np.int64)
    for o, j in np.argwhere(rows.kind != PAD).tolist():
        rule[o, j] = builder.add([*phi[o], y[o]], [*rows.H[o, j], rows.h[o, j]], -np.inf, 0.0)
    for o, e in hinges.tolist():
        epigraph[o, e] = builder.add([*phi[o], y[o], z[o, e]], [*rows.W[o, e], rows.b[o, e], -1.0], -np.inf, 0.0)
    cap = np.full((K, O), -1, dtype=np.int64)
    for k, o in pairs.tolist():
        cap[k, o] = builder.add([a[k, o], y[o]], [1.0, -most[k]], -np.inf, 0.0)
    types = [np.flatnonzero(problem.option_type == t) for t in range(len(stock))]
    stocks = [builder.add(y[own], np.ones(len(own)), -np.inf, float(stock[t])) for t, own in enumerate(types)]
    in_all = builder.add(y, np.ones(O), -np.inf, float(total))
    fewest = builder.add(y, np.ones(O), 0.0, np.inf)
    cheapest = builder.add(y, rows.r, -1e30, np.inf)
    cost = np.zeros(theta + 1)
    cost[z[tuple(hinges.T)]] = rows.v[tuple(hinges.T)]
    cost[phi.ravel()], cost[y] = rows.q.ravel(), rows.r
    return PerspectiveModel(
        linear=builder.model(cost, lower, upper, np.zeros(theta + 1, dtype=bool)), y=y, a=a, theta=theta, rule=rule,
        epigraph=epigraph, cap=cap, stock=np.array(stocks, dtype=np.int64), total=in_all, fewest=fewest,
        cheapest=cheapest,
    )  # fmt: skip
