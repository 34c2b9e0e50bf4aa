"""The class model of a problem and the bound that its prices prove (`placement.solvers.perspective`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from placement.problem import timing
from placement.problem.classes import ItemClasses, item_classes, split_classes
from placement.problem.problem import PlacementProblem
from placement.problem.rows import ColumnRows, column_rows
from placement.solvers.certificate import Certificate, cleaned, option_prices, price_list_bound, rounded_bound
from placement.solvers.highs import LinearModel, LinearResult, solve_linear
from placement.solvers.perspective import PerspectiveModel, perspective_model

Array = NDArray[np.float64]

#: Refinement of classes for the bound: most classes, and the relative loss that is left alone.
MOST_FINE_CLASSES = 320
PRICE_GAP = 1e-3
#: Gap at which a choice by cost stops.
COST_GAP = 1e-4
#: Share of the workload that has to be left over before a fleet is called too small: rules may be broken by 1e-6.
PROOF = 1e-5


class Aggregate:
    """The class model of one problem: its bound, and what `placement.solvers.settings` chooses whole GPUs from.

    Raises:
        InputError: if a term has no convex form (`placement.problem.rows.column_rows`).
    """

    def __init__(self, problem: PlacementProblem, classes: ItemClasses | None = None) -> None:
        self.problem = problem
        self.rows: ColumnRows = column_rows(problem)
        self.classes = item_classes(problem) if classes is None else classes
        self.model: PerspectiveModel = perspective_model(problem, self.rows, self.classes)
        self.bound: float | None = None
        self.bound_from = ""
        self.price_list = -np.inf
        self._finest: tuple[ItemClasses, float, Array] | None = None
        self.certificate: Certificate | None = None
        self.lp_value = float("nan")
        self.interrupted = False

    def solve(self, model: LinearModel, time_limit_s: float, gap: float = COST_GAP) -> LinearResult:
        """Solves a variant of the model and remembers an interruption."""
        result = solve_linear(model, time_limit_s=time_limit_s, relative_gap=gap)
        self.interrupted |= result.interrupted
        return result

    def prove(self, time_limit_s: float, *, refinements: int = 1) -> LinearResult:
        """Solves the LP and turns its duals into the price-list bound; returns the LP of the class means.

        Args:
            refinements: rounds of `refine`.
        """
        began = timing.now()
        result = self.solve(self.model.for_cost(whole=False), time_limit_s)
        if result.status == "optimal":
            self.lp_value = result.value
            self._finest = (self.classes, result.value, self._price(self.model, self.classes, result))
            self.refine(time_limit_s - (timing.now() - began), refinements)
        return result

    def refine(self, time_limit_s: float, rounds: int = 1) -> None:
        """Raises the bound of the items towards the LP of the class means, until the two nearly meet.

        A class mean has one best setting where its members may have different ones, which costs the items' bound.
        Classes are cut by their members' best settings, those that lose most first, and the LP is solved again.
        """
        deadline = timing.now() + time_limit_s
        for _ in range(rounds if self._finest is not None else 0):
            assert self._finest is not None and self.bound is not None
            classes, value, prices = self._finest
            enough = self.bound >= rounded_bound(self.rows, value) - PRICE_GAP * abs(value)
            finer = classes if enough or self.interrupted else self._finer(classes, prices)
            if len(finer) == len(classes) or timing.up(deadline, "finer classes"):
                return
            model = perspective_model(self.problem, self.rows, finer)
            result = self.solve(model.for_cost(whole=False), deadline - timing.now())
            if result.status != "optimal":
                return
            self._finest = (finer, result.value, self._price(model, finer, result))

    def _price(self, model: PerspectiveModel, classes: ItemClasses, result: LinearResult) -> Array:
        """Keeps the bound of an LP's duals if it is the best; returns p_io of the items, (N, O)."""
        assert result.row_dual is not None
        certificate = cleaned(self.problem, self.rows, model.certificate(result.row_dual, classes))
        bound = price_list_bound(self.problem, self.rows, certificate)
        rounded = rounded_bound(self.rows, bound)
        if self.bound is None or bound > self.price_list:
            self.price_list, self.bound, self.certificate = bound, rounded, certificate
            self.bound_from = "price list" if rounded == bound else "rounded price list"
        return option_prices(self.rows, certificate, self.problem.allowed)

    def _finer(self, classes: ItemClasses, prices: Array) -> ItemClasses:
        """Cuts the classes that lose most by items having other best settings than their class mean."""
        best = prices.argmin(axis=1)
        loss = np.array([prices[m].sum(axis=0).min() - prices[m].min(axis=1).sum() for m in classes.members])
        parts = np.array([len(np.unique(best[m])) for m in classes.members])
        order = np.argsort(-loss, kind="stable")
        room = MOST_FINE_CLASSES - len(classes)
        chosen = order[(np.cumsum(parts[order] - 1) <= room) & (loss[order] > 0) & (parts[order] > 1)]
        return split_classes(self.problem, classes, best, chosen)

    @property
    def reach(self) -> float:
        """Value of the linear program of the finest classes."""
        return float("nan") if self._finest is None else self._finest[1]

    @property
    def unproven(self) -> float:
        """What finer classes may still add to the bound, objective units."""
        return 0.0 if self._finest is None or self.bound is None else max(0.0, self._finest[1] - self.bound)

    def carried_share(self, time_limit_s: float) -> tuple[float, bool]:
        """Share of the workload that the allowed GPUs carry if it were divisible, and whether < 1 is proven.

        With all costs set to 0, a placement costs 0; so a price list worth more than 0 proves that none exists, for
        the individual items.
        """
        result = self.solve(self.model.for_share(), time_limit_s)
        if result.x is None or result.row_dual is None:
            return float("nan"), False
        share = 1.0 + float(result.x[self.model.theta])
        free = replace(
            self.rows, v=np.zeros_like(self.rows.v), q=np.zeros_like(self.rows.q), r=np.zeros_like(self.rows.r)
        )
        prices = cleaned(self.problem, free, self.model.certificate(result.row_dual, self.classes))
        return share, share < 1 - PROOF and price_list_bound(self.problem, free, prices) > PROOF

    def tighten(self, result: LinearResult) -> None:
        """A MIP bound of the class model binds the items only if all members of each class are equal."""
        if self.classes.exact and np.isfinite(result.bound):
            self.claim(rounded_bound(self.rows, result.bound - 1e-9 * abs(result.bound)), "MIP")

    def claim(self, bound: float, source: str) -> None:
        if self.bound is None or bound > self.bound:
            self.bound, self.bound_from = bound, source
