r"""Price lists made from columns of the planning model itself.

The pieces of `PlacementProblem.below` bound every column of a polyhedron, and are as weak as they are far from the
model. What a bound needs is less: prices at which *no column that the model calls healthy is worth more than it costs*.
With features :math:`\psi_i` of item i, :math:`d_k` items of class k, :math:`S_t` GPUs of type t and at most G in all:

.. math::
    \max\ & \textstyle\sum_k d_k \pi_k - \sum_t S_t\sigma_t - G\sigma_0 \\
    \text{s.t.}\ & \pi_k \le \beta_o\cdot\psi_k & \text{class } k \text{ is allowed under option } o \\
    & \beta_o\cdot\textstyle\sum_{i\in c}\psi_i + \gamma_o \le f_o(c) & \text{every healthy column } c \text{ known} \\
    & \gamma_o + \sigma_{t(o)} + \sigma_0 \ge 0,\qquad \beta, \sigma \ge 0

This is the dual of the linear program over columns (Dantzig-Wolfe), with prices that are linear in the features.
Columns are added in rounds: at prices between the best known and those of the round (smoothing), local search
(`placement.solvers.pool`) looks for columns that are worth more than they cost, from the most valuable ones known.
Prices that are near to the optimum are audited: under every option, from known and from fresh random columns. What was
found lowers :math:`\gamma_o`, so that no column looked at is worth more than it costs. The result is a cut an option
(`placement.problem.rows.Cuts`), and a price list over these (`placement.solvers.certificate`).

The search is no proof that there is no such column. A bound of this kind says how many columns it rests on.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.problem import timing
from placement.problem.classes import ItemClasses, item_classes, split_classes
from placement.problem.prices import PriceTable, fleet_limits
from placement.problem.problem import Placement, PlacementProblem, evaluate
from placement.problem.rows import ColumnRows, Cuts, column_rows
from placement.solvers.certificate import Certificate, price_list_bound, rounded_bound
from placement.solvers.highs import RowBuilder, solve_linear
from placement.solvers.pool import RANDOM, ColumnPool

Array = NDArray[np.float64]

#: Most that a price may be, in costs of the dearest column for all items together.
BOX = 50.0
#: Columns of an option added to the linear program at once.
NEW_ROWS = 24
#: A column is worth more than it costs from this share of the bound on.
SLACK = 1e-4
#: Climbs a round and option, from the most valuable columns known; items that leave, and that enter, in a step.
CLIMBS, MOVES, AUDIT_MOVES = 2, 32, 64
#: Options searched in a round: those whose columns are worth most, and so many others.
OPTIONS, OTHERS = 8, 4
#: Weight, relative to the bound, of what all options would ask for all items, in the first round.
LEAST = 2e-2
#: Prices that are kept for when the best ones turn out too high.
KEPT = 12
#: Weight of the best prices known where columns are searched.
SMOOTHING = 0.5
#: The bound is good enough where it is this near to the value of the linear program.
NEAR = 2e-3
#: Classes are cut where that may raise the bound by this share of what is open.
SPLIT = 0.3
#: Share of the time for a last look at the prices, and of what is open beyond the linear program that may stay so.
AUDIT, ENOUGH = 0.5, 0.25
#: Options whose most valuable column is worth less than it costs by more than this share of a GPU's part of the bound
#: are audited lightly.
CLOSE = 0.1
#: Rounds after which prices are audited in any case; linear programs in a row without a look for new columns.
EARLY, RESOLVED = 4, 3
#: Fresh random columns of an audit, at least, over all options.
FRESH = 2000
#: Most classes.
MOST_CLASSES = 320


@dataclass(frozen=True, slots=True)
class Prices:
    """beta (O, D), gamma (O,), sigma (T,), sigma_total."""

    beta: Array
    gamma: Array
    sigma: Array
    sigma_total: float

    def mixed(self, other: Prices, weight: float) -> Prices:
        """With this weight of the other ones."""
        own = 1.0 - weight
        return Prices(
            own * self.beta + weight * other.beta, own * self.gamma + weight * other.gamma,
            own * self.sigma + weight * other.sigma, own * self.sigma_total + weight * other.sigma_total,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Priced:
    """A bound.

    Args:
        bound: of the price list, not rounded to GPUs.
        value: of the linear program over the columns known: what more rounds could reach.
        columns: that the planning model was asked for; none of the healthy ones is worth more than it costs.
        beyond: share of the last random columns, drawn for the final prices, that were worth more than any before.
        table: the same prices, per feature.
    """

    bound: float
    value: float
    certificate: Certificate
    cuts: Cuts
    columns: int
    beyond: float
    table: PriceTable


class PriceList:
    """The linear program, its columns, and the best prices so far.

    Args:
        problem: all terms are sums over GPUs and have a convex form.
        bounding: the problem's linear side, whose certificates are checked.
        known: placements whose columns are looked at first.
    """

    def __init__(
        self, problem: PlacementProblem, bounding: PlacementProblem, known: Sequence[Placement] = (), seed: int = 0
    ) -> None:
        self.problem, self.bounding = problem, bounding
        self.classes: ItemClasses = item_classes(problem)
        self.pool = ColumnPool(problem, np.random.default_rng(seed))
        self.pool.fill([int(m[0]) for m in self.classes.members], known)
        self.rows: ColumnRows = column_rows(bounding)
        self.active = [np.ones(len(c), np.bool_) for c in self.pool.of]
        self.value = float("nan")
        self.best: Prices | None = None
        self.offered: list[Prices] = []
        self.rounds = 0
        self.bound = -np.inf
        #: Prices, and the share of fresh random columns that were worth more at them than any before.
        self.audited: list[tuple[Prices, float]] = []
        self.goal = min([evaluate(problem, p)[0] for p in known], default=np.inf)

    def start(self, certificate: Certificate) -> None:
        """Begins with the prices of the pieces: a certificate of the linear side."""
        rows = self.rows
        slopes = np.einsum("oe,oed->od", certificate.lam, rows.W) + np.einsum("oj,ojd->od", certificate.mu, rows.H)
        beta = (slopes + rows.q) / rows.feature_scale
        gamma = rows.r + (rows.b * certificate.lam).sum(axis=1) + (rows.h * certificate.mu).sum(axis=1)
        own = self.pool.scaled_slopes(beta[:, :-1])
        self._offer(Prices(own, gamma, certificate.sigma, certificate.sigma_total))

    def improve(self, time_limit_s: float) -> None:
        """Rounds, until the bound is near to what it can be or time is up; prices that are kept are audited."""
        began = timing.now()
        deadline, solved = began + time_limit_s, 0
        while (left_s := deadline - timing.now()) > 0:
            prices = self._solved(left_s)
            if prices is None:
                return
            solved += 1
            if self._activate(prices) and solved < RESOLVED:
                continue
            self.rounds, solved = self.rounds + 1, 0
            if self._near() or left_s < AUDIT * time_limit_s or self.rounds % EARLY == 0:
                self._offer(prices)
                if self.audit(deadline) and self._near():
                    return
            else:
                at = prices if self.best is None else prices.mixed(self.best, SMOOTHING)
                self._search(at, deadline)
                self._offer(at, prices)
            self._split(prices)

    def _near(self) -> bool:
        """Whether more rounds would not be worth their time."""
        if rounded_bound(self.rows, self.bound) >= rounded_bound(self.rows, self.value) and self.rows.cost_is_count:
            return True
        open_ = max(NEAR * abs(self.value), ENOUGH * (self.goal - self.value) if np.isfinite(self.goal) else 0.0)
        return self.bound >= self.value - open_

    def audit(self, deadline: float) -> bool:
        """Looks for columns that are worth more than they cost at the best prices, from known and fresh ones, under
        every option; True if the bound hardly falls.
        """
        if self.best is None:
            return False
        audited, before, fresh, beyond = self.best, self.bound, 0, 0
        known = [len(own) for own in self.pool.of]
        most = np.full(len(known), -np.inf)
        for o, own in enumerate(self.pool.of):
            worst = float(self._worth(o, audited).max(initial=0.0))
            drawn = max(RANDOM, FRESH // len(known))
            self.pool.look(o, [*self.pool.random(o, drawn), *self.pool.near(o, drawn)])
            worth = self._worth(o, audited)
            fresh, beyond = fresh + len(own) - known[o], beyond + int((worth[known[o] :] > worst).sum())
            most[o] = worth.max(initial=-np.inf) - self._opening(audited)[o]
        close = -CLOSE * abs(self.value) / fleet_limits(self.problem)[1]
        for o in np.argsort(-most, kind="stable").tolist():
            own, price = self.pool.of[o], self.pool.psi @ audited.beta[o]
            starts = np.argsort(-self._worth(o, audited), kind="stable")[:CLIMBS].tolist()
            if most[o] > close:
                for s in [*starts, *range(known[o], min(known[o] + 1, len(own)))]:
                    self.pool.climb(o, own.members[s], price, AUDIT_MOVES)
            elif timing.now() < deadline:
                for s in starts[:1]:
                    self.pool.climb(o, own.members[s], price, MOVES)
        fall = before - self._bound(audited)
        self.audited.append((audited, beyond / max(fresh, 1)))
        # All prices cut by one factor are a list as well, and the better one where some column is worth far too much.
        self.audited.append((self._cut(audited), beyond / max(fresh, 1)))
        self._offer(self.audited[-1][0])
        return fall <= NEAR * abs(self.value)

    def result(self) -> Priced | None:
        """The best audited prices, by all that is known; None if there was no time to find and audit any."""
        if not self.audited:
            return None
        prices, beyond = max(self.audited, key=lambda a: self._bound(a[0]))
        bound, certificate, cuts = self.proven(prices)
        beta = self.pool.raw_slopes(prices.beta)
        table = PriceTable(
            beta=beta, size=np.abs(beta), gamma=cuts.constant, nu=certificate.nu, class_of=certificate.class_of,
            sigma=prices.sigma, sigma_total=prices.sigma_total, columns=self.pool.looked, reach=self.value,
        )  # fmt: skip
        return Priced(bound, self.value, certificate, cuts, self.pool.looked, beyond, table)

    def under(self, problem: PlacementProblem) -> PriceList:
        """The list of a problem under which every column known here is healthy, too, begun with all of them."""
        other = copy(self)
        other.problem, other.pool = problem, self.pool.under(problem)
        other.active, other.offered = list(self.active), list(self.offered)
        other.audited, other.rounds, other.value = [], 0, float("nan")
        return other

    def _solved(self, time_limit_s: float) -> Prices | None:
        """The best prices for the columns known."""
        problem, classes, D = self.problem, self.classes, self.pool.psi.shape[1]
        O, K, T = len(problem.options), len(classes), len(problem.stock)
        stock, total = fleet_limits(problem)
        gamma, pi, sigma = O * D, O * D + O, O * D + O + K
        size = sigma + T + 1
        dearest = max(float(c.cost.max(initial=0.0)) for c in self.pool.of)
        cost, lower, upper = np.zeros(size), np.zeros(size), np.full(size, np.inf)
        least = LEAST / (1 + self.rounds) / O
        # of prices as good, those that value unknown columns least
        cost[:gamma], cost[gamma:pi] = np.tile(least * self.pool.psi.sum(axis=0), O), least * total
        cost[pi:sigma], cost[sigma:-1], cost[-1] = -classes.size, stock, total
        upper[:gamma] = np.tile(BOX * max(dearest, 1e-9) / np.maximum(self.pool.psi.sum(axis=0), 1e-9), O)
        lower[gamma:sigma] = -np.inf
        psi = classes.mean(self.pool.psi)
        rows = RowBuilder()
        for o in range(O):
            beta = np.arange(o * D, (o + 1) * D)
            for k in np.flatnonzero(classes.allowed[:, o]).tolist():
                rows.add(np.append(beta, pi + k), np.append(-psi[k], 1.0), -np.inf, 0.0)
            rows.add([gamma + o, sigma + int(problem.option_type[o]), size - 1], np.ones(3), 0.0, np.inf)
            own = self.pool.of[o]
            for s in np.flatnonzero(self.active[o]).tolist():
                rows.add(np.append(beta, gamma + o), np.append(own.psi[s], 1.0), -np.inf, float(own.cost[s]))
        model = rows.model(cost, lower, upper, np.zeros(size, np.bool_))
        # prices from inside the optimal face change less from round to round than those of a vertex
        found = solve_linear(model, time_limit_s=time_limit_s, crossover=False)
        if found.x is None:
            return None
        x = found.x
        self.value = float(classes.size @ x[pi:sigma] - stock @ x[sigma:-1] - total * x[-1])
        free = np.maximum(x[sigma:], 0.0)
        return Prices(x[:gamma].reshape(O, D), x[gamma:pi], free[:-1], float(free[-1]))

    def _worth(self, option: int, prices: Prices) -> Array:
        """What the columns known are worth beyond their cost, (S,)."""
        own = self.pool.of[option]
        return np.asarray(own.psi @ prices.beta[option] + prices.gamma[option] - own.cost)

    def _cut(self, prices: Prices) -> Prices:
        """Prices cut by one factor, so that no column known is worth more than it costs."""
        factor = 1.0
        for o, own in enumerate(self.pool.of):
            worth = own.psi @ prices.beta[o] + prices.gamma[o]
            dear = worth > own.cost
            if dear.any():
                factor = min(factor, float((own.cost[dear] / worth[dear]).min()))
        factor = max(factor, 0.0)
        return Prices(factor * prices.beta, factor * prices.gamma, factor * prices.sigma, factor * prices.sigma_total)

    def _activate(self, prices: Prices) -> bool:
        """Adds columns to the linear program that are worth more than they cost; False if there are none."""
        found = False
        slack = SLACK * abs(self.value) / fleet_limits(self.problem)[1]
        for o, own in enumerate(self.pool.of):
            active = np.append(self.active[o], np.zeros(len(own) - len(self.active[o]), np.bool_))
            worth = np.where(active, 0.0, self._worth(o, prices))
            new = np.argsort(-worth, kind="stable")[:NEW_ROWS]
            active[new[worth[new] > slack]] = True
            found |= bool((worth[new] > slack).any())
            self.active[o] = active
        return found

    def _opening(self, prices: Prices) -> Array:
        """What opening a GPU costs beyond its columns' own cost, (O,); 0 for options in use."""
        return np.asarray(prices.gamma + prices.sigma[self.problem.option_type] + prices.sigma_total)

    def _search(self, prices: Prices, deadline: float) -> None:
        """Climbs from the most valuable columns of the options that matter most."""
        opening = self._opening(prices)
        excess = [self._worth(o, prices) - opening[o] for o in range(len(self.pool.of))]
        order = np.argsort([-e.max(initial=-np.inf) for e in excess], kind="stable")
        others = self.pool.rng.permutation(order[OPTIONS:])[:OTHERS]
        for o in [*order[:OPTIONS].tolist(), *others.tolist()]:
            own, price = self.pool.of[o], self.pool.psi @ prices.beta[o]
            for s in np.argsort(-excess[o], kind="stable")[:CLIMBS].tolist():
                if timing.now() < deadline:
                    self.pool.climb(o, own.members[s], price, MOVES)

    def _offer(self, *prices: Prices) -> None:
        """Of these prices and those before, the ones with the best bound by what is known now are the best."""
        self.offered += prices
        bounds = [self._bound(p) for p in self.offered]
        top = int(np.argmax(bounds))
        self.best, self.bound = self.offered[top], bounds[top]
        self.offered = [self.offered[k] for k in np.argsort(bounds)[-KEPT:].tolist()]

    def _lowered(self, prices: Prices) -> Array:
        """gamma such that no column known is worth more than it costs, (O,)."""
        worst = [self._worth(o, prices).max(initial=0.0) for o in range(len(prices.gamma))]
        return np.asarray(prices.gamma - np.maximum(worst, 0.0))

    def _bound(self, prices: Prices) -> float:
        """The bound of prices, with gamma lowered."""
        stock, total = fleet_limits(self.problem)
        surplus = self._opening(replace(prices, gamma=self._lowered(prices)))
        worth = np.where(self.problem.allowed, self.pool.psi @ prices.beta.T, np.inf).min(axis=1)
        fleet = stock @ prices.sigma + total * prices.sigma_total
        return float(worth.sum() - fleet - total * np.maximum(-surplus, 0.0).max())

    def _split(self, prices: Prices) -> None:
        """Cuts classes whose items have other best options than their mean."""
        worth = np.where(self.problem.allowed, self.pool.psi @ prices.beta.T, np.inf)
        best = worth.argmin(axis=1)
        loss = np.array([worth[m].sum(axis=0).min() - worth[m].min(axis=1).sum() for m in self.classes.members])
        parts = np.array([len(np.unique(best[m])) for m in self.classes.members])
        order = np.argsort(-loss, kind="stable")
        room = np.cumsum(parts[order] - 1) <= MOST_CLASSES - len(self.classes)
        chosen = order[room & (parts[order] > 1) & (loss[order] > 0)]
        if loss[chosen].sum() >= SPLIT * (self.value - self.bound):
            self.classes = split_classes(self.problem, self.classes, best, chosen)

    def proven(self, prices: Prices) -> tuple[float, Certificate, Cuts]:
        """The bound of prices at which no column known is worth more than it costs."""
        O = len(self.problem.options)
        cuts = Cuts(np.arange(O), prices.beta @ self.pool.psi.T, self._lowered(prices))
        certificate = Certificate(
            mu=np.zeros_like(self.rows.h), lam=np.zeros_like(self.rows.v), nu=np.zeros((1, O)), sigma=prices.sigma,
            sigma_total=prices.sigma_total, class_of=np.zeros(len(self.problem.items), np.int64), kappa=np.ones(O),
        )  # fmt: skip
        rows = column_rows(self.bounding, cuts=cuts)
        return price_list_bound(self.bounding, rows, certificate), certificate, cuts
