r"""A price list in the form in which it leaves the process: prices per feature of an item, and of GPUs.

Under option o an item i of class k(i) is priced :math:`p_{io} = \beta_o\cdot\phi_i + \nu_{k(i)o}`, the last feature
being one slot for an adapter and none for base-model traffic. A GPU of option o, with column c, is worth
:math:`\sum_{i\in c} p_{io} + \gamma_o - \sum_k u_k \nu_{ko}`, and the list holds if none is worth more than it costs.
Then (`placement.solvers.certificate` has the proof) no placement costs less than

.. math:: \sum_i\min_o p_{io} - \sum_t S_t\sigma_t - G\sigma_0 - G\max_o(-s_o)_+,\qquad
    s_o = \gamma_o - \textstyle\sum_k u_k\nu_{ko} + \sigma_{t(o)} + \sigma_0 .

Numbers here are floating point and rounded down, so that exact arithmetic on the same data proves them
(`placement.check`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.problem.objectives import GpuCount
from placement.problem.problem import PlacementProblem

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Slack in rounding a GPU count up: placements may use the tolerance of `placement.problem.problem.violations`.
ROUNDING = 1e-6
#: What rounding in floating point may have added, relative to the sum of the absolute values.
NOISE = 1e-12


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices that prove a bound. O options, F features, K classes, T GPU types, N items.

    Args:
        beta: objective units per feature, and per slot, (O, F + 1).
        size: sums of the absolute values that `beta` was added up from, (O, F + 1).
        gamma: worth of a column beyond its items, (O,).
        nu: of the most members of a class on one GPU, (K, O), >= 0. class_of: of the items, (N,).
        sigma: price of a GPU of each type, (T,), >= 0. sigma_total: of any GPU, >= 0.
        mu, lam: multipliers of the rules and of the loads that beta and gamma are made of, where the planning model
            is linear (`placement.problem.rows`); None where prices rest on columns that were looked at.
        columns: that were looked at; 0 = none, the list was made of linear pieces.
        reach: value of the linear program that the prices were made by: what better prices could reach.
        rests_on: row kinds (`FACET`, `HULL`, `COUNT`) with a price.
    """

    beta: Array
    size: Array
    gamma: Array
    nu: Array
    class_of: Indices
    sigma: Array
    sigma_total: float
    mu: Array | None = None
    lam: Array | None = None
    columns: int = 0
    reach: float = math.nan
    rests_on: tuple[int, ...] = ()

    def scaled(self, factor: float) -> PriceTable:
        """The list of a problem whose costs are all at least `factor` times those before."""
        f = factor
        return replace(
            self, beta=f * self.beta, size=f * self.size, gamma=f * self.gamma, nu=f * self.nu, sigma=f * self.sigma,
            sigma_total=f * self.sigma_total, reach=f * self.reach,
        )  # fmt: skip


def slot_features(problem: PlacementProblem) -> Array:
    """Features of the items and, behind them, the slot that each needs, (N, F + 1)."""
    return np.hstack([problem.phi, [[float(a.rank > 0)] for a in problem.items]])


def fleet_limits(problem: PlacementProblem) -> tuple[Indices, int]:
    """S_t and G: stock and `max_gpus`, but never more GPUs than items."""
    items = len(problem.items)
    stock = np.minimum(problem.stock, items)
    total = min(int(stock.sum()), items if problem.max_gpus is None else min(problem.max_gpus, items))
    return stock, total


def class_caps(problem: PlacementProblem, class_of: Indices) -> Indices:
    """u_k: distinct adapters among the members of each class, (K,)."""
    pairs = np.unique(np.stack([class_of, problem.item_adapter], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=int(class_of.max()) + 1)


def prices_of(problem: PlacementProblem, table: PriceTable) -> Array:
    """Price of each item, rounded down, (N,)."""
    psi = slot_features(problem)
    own = psi @ table.beta.T + table.nu[table.class_of]
    own -= NOISE * (np.abs(psi) @ table.size.T + table.nu[table.class_of])
    return np.asarray(np.where(problem.allowed, own, np.inf).min(axis=1))


def proven_worth(problem: PlacementProblem, table: PriceTable) -> float:
    """The bound of a price list, not rounded to whole GPUs, rounded down."""
    stock, total = fleet_limits(problem)
    caps = class_caps(problem, table.class_of)
    opening = table.gamma - caps @ table.nu + table.sigma[problem.option_type] + table.sigma_total
    error = NOISE * (np.abs(table.gamma) + caps @ table.nu + table.sigma[problem.option_type] + table.sigma_total)
    # a surplus of nothing is not made a deficit by rounding: what is stored is what is checked
    deficit = float(np.maximum(error - opening, 0.0).max())
    prices = prices_of(problem, table).tolist()
    fleet = float(stock @ table.sigma) + total * (table.sigma_total + deficit)
    return math.fsum(prices) - fleet - NOISE * (math.fsum(abs(p) for p in prices) + fleet)


def gpu_price(problem: PlacementProblem) -> float | None:
    """What every GPU costs, where only their number counts; None where anything else does."""
    price = set(problem.context.price.values())
    if len(price) > 1 or not all(isinstance(t, GpuCount) for t in problem.terms):
        return None
    unit = sum(t.weight / t.scale for t in problem.terms) * price.pop()
    return unit if unit > 0 else None


def whole_gpus(worth: float, price: float | None) -> float:
    """A bound rounded up to whole GPUs of this price."""
    return worth if price is None else math.ceil(worth / price - ROUNDING) * price
