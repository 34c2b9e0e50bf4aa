"""Bound and engine settings from the aggregate perspective model (`placement.solvers.perspective`)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from placement.problem.classes import ItemClasses, item_classes, split_classes
from placement.problem.problem import PlacementProblem
from placement.problem.rows import ColumnRows, column_rows
from placement.solvers.certificate import Certificate, cleaned, option_prices, price_list_bound, rounded_bound
from placement.solvers.highs import LinearModel, LinearResult, solve_linear
from placement.solvers.perspective import PerspectiveModel, perspective_model
from placement.solvers.rounding import round_settings

Array = NDArray[np.float64]

#: A step in price below this share of the dearest GPU is not a step.
PRICE_STEP = 1e-6
#: Refinement of classes for the bound: most classes, and the relative loss that is left alone.
MOST_FINE_CLASSES = 320
PRICE_GAP = 1e-3
#: Gaps at which the choice of settings stops, by cost and by headroom.
COST_GAP, HEADROOM_GAP = 1e-4, 0.05
#: Classes and gap with which settings are chosen by cost among unlike class members.
COARSE_CLASSES, COARSE_GAP = 20, 0.01
#: Most GPUs added in one call in search of settings that carry the demand.
MOST_STEPS = 4


@dataclass(frozen=True, slots=True)
class Relaxation:
    """GPUs per setting and adapters of each class on them, without GPU identities.

    Args:
        status: `feasible` (y and a are set), `infeasible` (of the class model) or `no_solution` (out of time).
        classes: K classes of items.
        y: whole GPUs of each option, (O,).
        a: members of class k on the GPUs of option o, (K, O); `a[:, o] / y[o]` is the even split.
        value: class-model objective of (y, a); **not a bound**.
        bound: lower bound for every placement of the individual items, or None.
        bound_from: `price list`, `rounded price list` or `MIP`.
        certificate: multipliers that prove the price list, or None.
        headroom: theta such that the same y also carries (1 + theta) times the demand (a lower limit); NaN where
            it was not looked for.
        interrupted: Ctrl-C arrived.
    """

    status: Literal["feasible", "infeasible", "no_solution"]
    classes: ItemClasses
    y: Array
    a: Array
    value: float
    bound: float | None
    bound_from: str
    certificate: Certificate | None
    headroom: float
    interrupted: bool
    runtime_s: float


class Aggregate:
    """The class model of one problem: bound once, then settings as often as packing asks for them.

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
        began = time.perf_counter()
        result = self.solve(self.model.for_cost(whole=False), time_limit_s)
        if result.status == "optimal":
            self.lp_value = result.value
            self._finest = (self.classes, result.value, self._price(self.model, self.classes, result))
            self.refine(time_limit_s - (time.perf_counter() - began), refinements)
        return result

    def refine(self, time_limit_s: float, rounds: int = 1) -> None:
        """Raises the bound of the items towards the LP of the class means, until the two nearly meet.

        A class mean has one best setting where its members may have different ones, which costs the items' bound.
        Classes are cut by their members' best settings, those that lose most first, and the LP is solved again.
        """
        deadline = time.perf_counter() + time_limit_s
        for _ in range(rounds if self._finest is not None else 0):
            assert self._finest is not None and self.bound is not None
            classes, value, prices = self._finest
            enough = self.bound >= rounded_bound(self.rows, value) - PRICE_GAP * abs(value)
            finer = classes if enough or self.interrupted else self._finer(classes, prices)
            if len(finer) == len(classes) or time.perf_counter() > deadline:
                return
            model = perspective_model(self.problem, self.rows, finer)
            result = self.solve(model.for_cost(whole=False), deadline - time.perf_counter())
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
        return share, share < 1 - 1e-6 and price_list_bound(self.problem, free, prices) > 1e-7

    def settings(
        self, time_limit_s: float, *, spare: float = 0.0, fewest: int = 0, cheapest: float = -np.inf
    ) -> Relaxation:
        """Whole GPUs per setting.

        If the objective only counts or prices GPUs: the cheapest fleet, and among fleets of that price the one with
        the most headroom. Otherwise: the fleet of least cost for (1 + spare) times the demand.

        Args:
            fewest: GPUs at least (retries after packing failed).
            cheapest: price of the fleet at least, objective units (retries).
        """
        began = time.perf_counter()
        if self.rows.cost_is_count:
            return self._most_headroom(began, time_limit_s, fewest)
        if self.rows.cost_is_per_gpu:
            return self._cheapest(began, time_limit_s, fewest, cheapest)
        model = self.model.for_cost(whole=True, spare=spare, fewest=fewest)
        result: LinearResult | None = None
        if not self.classes.exact and len(self.classes) > COARSE_CLASSES:
            result = self._coarse_settings(time_limit_s / 2, spare, fewest)
        if result is None or (result.x is None and not result.interrupted):
            result = self.solve(model, time_limit_s)
            if spare == 0 and fewest == 0:
                self._tighten(result)
        if result.status == "unknown" and not result.interrupted:
            result = self._rounded(model, None, time_limit_s)
        return self._relaxation(result, spare, began)

    def _coarse_settings(self, time_limit_s: float, spare: float, fewest: int) -> LinearResult:
        """Settings from the MIP of a few coarse classes, then the fine classes on them by an LP.

        Which settings to open hardly depends on the fineness of the classes, and the MIP is the slow part: on the
        default workload 16 to 48 classes choose the settings of 80, up to ten times faster. Status `unknown` if
        the chosen settings do not carry the fine classes; never a bound.
        """
        coarse = item_classes(self.problem, max_classes=COARSE_CLASSES)
        model = perspective_model(self.problem, self.rows, coarse)
        chosen = self.solve(model.for_cost(whole=True, spare=spare, fewest=fewest), time_limit_s / 2, gap=COARSE_GAP)
        if chosen.x is None:
            return replace(chosen, status="unknown", bound=-np.inf)
        fine = self.model.for_cost(whole=False, spare=spare, fewest=fewest)
        lower, upper = fine.lower.copy(), fine.upper.copy()
        lower[self.model.y] = upper[self.model.y] = np.round(chosen.x[model.y])
        result = self.solve(replace(fine, lower=lower, upper=upper), time_limit_s / 2)
        return replace(result, status="unknown" if result.x is None else result.status, bound=-np.inf)

    def _most_headroom(self, began: float, time_limit_s: float, fewest: int) -> Relaxation:
        """Fewest GPUs; among settings for that many, the most headroom."""
        price = float(self.rows.r[0])
        known = self.lp_value / price if np.isfinite(self.lp_value) else 1.0
        gpus = max(fewest, math.ceil(known - 1e-6))
        found: LinearResult | None = None
        for more in range(MOST_STEPS):
            model = self.model.for_headroom(price * (gpus + more) * (1 + 1e-9))
            rounded = self._rounded(model, gpus + more, time_limit_s / 4)
            found = self.solve(model, time_limit_s / 2, gap=HEADROOM_GAP)
            if found.status == "infeasible" and fewest == 0 and self.classes.exact:
                self._claim(price * (gpus + more + 1), "MIP")
            if rounded.x is not None and (found.x is None or found.value > rounded.value):
                found = replace(rounded, interrupted=found.interrupted)
            if found.x is not None or found.interrupted or time.perf_counter() - began > time_limit_s:
                break
        assert found is not None
        return self._relaxation(found, None, began)

    def _cheapest(self, began: float, time_limit_s: float, fewest: int, cheapest: float) -> Relaxation:
        """Fleet of the lowest price; among fleets of that price, the most headroom."""
        model = self.model.for_cost(whole=True, fewest=fewest, cheapest=cheapest)
        first = self.solve(model, time_limit_s / 2)
        if fewest == 0 and cheapest == -np.inf:
            self._tighten(first)
        if first.x is None:
            return self._relaxation(first, 0.0, began)
        budget = first.value + PRICE_STEP * float(np.abs(self.rows.r).max())
        roomy = self.solve(self.model.for_headroom(budget, fewest=fewest), time_limit_s / 2, gap=HEADROOM_GAP)
        return self._relaxation(first, 0.0, began) if roomy.x is None else self._relaxation(roomy, None, began)

    def _rounded(self, model: LinearModel, gpus: int | None, time_limit_s: float) -> LinearResult:
        result = round_settings(self.problem, self.model, model, gpus, time_limit_s)
        self.interrupted |= result.interrupted
        return result

    def roomiest(self, gpus: int, time_limit_s: float) -> Relaxation:
        """The settings with the most headroom on at most so many GPUs, whatever the objective."""
        began = time.perf_counter()
        limited = self.model.for_headroom(np.inf)
        limited.row_upper[self.model.total] = min(limited.row_upper[self.model.total], gpus)
        return self._relaxation(self.solve(limited, time_limit_s, gap=HEADROOM_GAP), None, began)

    def _tighten(self, result: LinearResult) -> None:
        """A MIP bound of the class model binds the items only if all members of each class are equal."""
        if self.classes.exact and np.isfinite(result.bound):
            self._claim(rounded_bound(self.rows, result.bound - 1e-9 * abs(result.bound)), "MIP")

    def _claim(self, bound: float, source: str) -> None:
        if self.bound is None or bound > self.bound:
            self.bound, self.bound_from = bound, source

    def _relaxation(self, result: LinearResult, spare: float | None, began: float) -> Relaxation:
        """Reads y and a, scaled back to the demand itself; `spare` None = theta was maximised."""
        options, classes = len(self.problem.options), len(self.classes)
        y, a, value, theta = np.zeros(options), np.zeros((classes, options)), float("nan"), float("nan")
        if result.x is not None:
            y = np.abs(np.round(result.x[self.model.y]))
            theta = float(result.x[self.model.theta])
            a = np.where(self.model.a >= 0, result.x[self.model.a], 0.0) / (1 + theta)
            a = np.where(y > 0, a, 0.0)
            a *= (self.classes.size / np.maximum(a.sum(axis=1), 1e-12))[:, None]
            value = result.value if spare is not None else float(self.rows.r @ y)
            theta = theta if spare is None else float("nan")
        status: Literal["feasible", "infeasible", "no_solution"] = (
            "feasible" if result.x is not None else "infeasible" if result.status == "infeasible" else "no_solution"
        )
        return Relaxation(
            status=status,
            classes=self.classes,
            y=y,
            a=a,
            value=value,
            bound=self.bound,
            bound_from=self.bound_from,
            certificate=self.certificate,
            headroom=theta,
            interrupted=self.interrupted,
            runtime_s=time.perf_counter() - began,
        )


def relaxation(
    problem: PlacementProblem,
    time_limit_s: float,
    *,
    classes: ItemClasses | None = None,
    fewest: int = 0,
    cheapest: float = -np.inf,
    spare: float = 0.0,
) -> Relaxation:
    """Bound and settings in one call; see `Aggregate` for what the arguments mean.

    Raises:
        InputError: if a term has no convex form.
    """
    began = time.perf_counter()
    aggregate = Aggregate(problem, classes)
    aggregate.prove(time_limit_s)
    left = time_limit_s - (time.perf_counter() - began)
    return aggregate.settings(max(left, 0.1), spare=spare, fewest=fewest, cheapest=cheapest)
