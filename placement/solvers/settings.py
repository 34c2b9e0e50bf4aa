"""Whole GPUs per setting and the classes on them, chosen from the class model (`placement.solvers.aggregate`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from placement.problem import timing
from placement.problem.classes import item_classes
from placement.problem.prices import fleet_limits
from placement.solvers.aggregate import Aggregate
from placement.solvers.highs import LinearModel, LinearResult
from placement.solvers.perspective import perspective_model

Array = NDArray[np.float64]

#: A step in price below this share of the dearest GPU is not a step.
PRICE_STEP = 1e-6
#: Gap at which the search for the most headroom stops.
HEADROOM_GAP = 0.05
#: Classes and gap with which settings are chosen by cost among unlike class members.
COARSE_CLASSES, COARSE_GAP = 20, 0.01
#: Most GPUs added in one call in search of settings that carry the demand.
MOST_STEPS = 4


@dataclass(frozen=True, slots=True)
class Relaxation:
    """GPUs per setting and adapters of each class on them, without GPU identities. K classes, O options.

    Args:
        status: `feasible` (y and a are set) or `no_solution` (none within the time, budget and fleet that were asked
            for, which proves nothing about the items).
        y: whole GPUs of each option, (O,).
        a: members of class k on the GPUs of option o, (K, O); `a[:, o] / y[o]` is the even split.
        value: class-model objective of (y, a); **not a bound**.
        headroom: theta such that the same y also carries (1 + theta) times the demand (a lower limit); NaN where
            it was not looked for.
        interrupted: Ctrl-C arrived.
    """

    status: Literal["feasible", "no_solution"]
    y: Array
    a: Array
    value: float
    headroom: float
    interrupted: bool


def choose_settings(
    aggregate: Aggregate, time_limit_s: float, *, spare: float = 0.0, fewest: int = 0, cheapest: float = -np.inf
) -> Relaxation:
    """Whole GPUs per setting.

    If the objective only counts or prices GPUs: the cheapest fleet, and among fleets of that price the one with
    the most headroom. Otherwise: the fleet of least cost for (1 + spare) times the demand.

    Args:
        fewest: GPUs at least (retries after packing failed).
        cheapest: price of the fleet at least, objective units (retries).
    """
    if aggregate.rows.cost_is_count:
        return _most_headroom(aggregate, time_limit_s, fewest)
    if aggregate.rows.cost_is_per_gpu:
        return _cheapest(aggregate, time_limit_s, fewest, cheapest)
    model = aggregate.model.for_cost(whole=True, spare=spare, fewest=fewest)
    result: LinearResult | None = None
    if not aggregate.classes.exact and len(aggregate.classes) > COARSE_CLASSES:
        result = _coarse_settings(aggregate, time_limit_s / 2, spare, fewest)
    if result is None or (result.x is None and not result.interrupted):
        result = aggregate.solve(model, time_limit_s)
        if spare == 0 and fewest == 0:
            aggregate.tighten(result)
    if result.status == "unknown" and not result.interrupted:
        result = _rounded(aggregate, model, None, time_limit_s)
    return _relaxation(aggregate, result, spare)


def _coarse_settings(aggregate: Aggregate, time_limit_s: float, spare: float, fewest: int) -> LinearResult:
    """Settings from the MIP of a few coarse classes, then the fine classes on them by an LP.

    Which settings to open hardly depends on the fineness of the classes, and the MIP is the slow part: on the
    default workload 16 to 48 classes choose the settings of 80, up to ten times faster. Status `unknown` if
    the chosen settings do not carry the fine classes; never a bound.
    """
    coarse = item_classes(aggregate.problem, max_classes=COARSE_CLASSES)
    model = perspective_model(aggregate.problem, aggregate.rows, coarse)
    chosen = aggregate.solve(model.for_cost(whole=True, spare=spare, fewest=fewest), time_limit_s / 2, gap=COARSE_GAP)
    if chosen.x is None:
        return replace(chosen, status="unknown", bound=-np.inf)
    fine = aggregate.model.for_cost(whole=False, spare=spare, fewest=fewest)
    lower, upper = fine.lower.copy(), fine.upper.copy()
    lower[aggregate.model.y] = upper[aggregate.model.y] = np.round(chosen.x[model.y])
    result = aggregate.solve(replace(fine, lower=lower, upper=upper), time_limit_s / 2)
    return replace(result, status="unknown" if result.x is None else result.status, bound=-np.inf)


def _most_headroom(aggregate: Aggregate, time_limit_s: float, fewest: int) -> Relaxation:
    """Fewest GPUs; among settings for that many, the most headroom."""
    began = timing.now()
    price = float(aggregate.rows.r[0])
    known = aggregate.lp_value / price if np.isfinite(aggregate.lp_value) else 1.0
    gpus = max(fewest, math.ceil(known - 1e-6))
    found: LinearResult | None = None
    for more in range(MOST_STEPS):
        model = aggregate.model.for_headroom(price * (gpus + more) * (1 + 1e-9))
        rounded = _rounded(aggregate, model, gpus + more, time_limit_s / 4)
        found = aggregate.solve(model, time_limit_s / 2, gap=HEADROOM_GAP)
        if found.status == "infeasible" and fewest == 0 and aggregate.classes.exact:
            aggregate.claim(price * (gpus + more + 1), "MIP")
        if rounded.x is not None and (found.x is None or found.value > rounded.value):
            found = replace(rounded, interrupted=found.interrupted)
        if found.x is not None or found.interrupted or timing.up(began + time_limit_s, "settings"):
            break
    assert found is not None
    return _relaxation(aggregate, found, None)


def _cheapest(aggregate: Aggregate, time_limit_s: float, fewest: int, cheapest: float) -> Relaxation:
    """Fleet of the lowest price; among fleets of that price, the most headroom."""
    model = aggregate.model.for_cost(whole=True, fewest=fewest, cheapest=cheapest)
    first = aggregate.solve(model, time_limit_s / 2)
    if fewest == 0 and cheapest == -np.inf:
        aggregate.tighten(first)
    if first.x is None:
        return _relaxation(aggregate, first, 0.0)
    budget = first.value + PRICE_STEP * float(np.abs(aggregate.rows.r).max())
    roomy = aggregate.solve(aggregate.model.for_headroom(budget, fewest=fewest), time_limit_s / 2, gap=HEADROOM_GAP)
    return _relaxation(aggregate, first, 0.0) if roomy.x is None else _relaxation(aggregate, roomy, None)


def roomiest_settings(aggregate: Aggregate, gpus: int, time_limit_s: float) -> Relaxation:
    """The settings with the most headroom on at most so many GPUs, whatever the objective."""
    limited = aggregate.model.for_headroom(np.inf)
    limited.row_upper[aggregate.model.total] = min(limited.row_upper[aggregate.model.total], gpus)
    return _relaxation(aggregate, aggregate.solve(limited, time_limit_s, gap=HEADROOM_GAP), None)


def _rounded(aggregate: Aggregate, model: LinearModel, gpus: int | None, time_limit_s: float) -> LinearResult:
    """Rounds y of the model's LP (whole parts, then one more where the rest is largest) and solves at that y.

    Quick, and a fallback where the MIP finds nothing in time.

    Args:
        model: a variant of the class model; its integrality is ignored.
        gpus: GPUs in all; None = those of the LP, rounded up.

    Returns:
        Status `unknown` if the rounding is infeasible, because that says nothing about other roundings; never a
        bound.
    """
    problem, columns = aggregate.problem, aggregate.model.y
    linear = replace(model, integer=np.zeros_like(model.integer))
    relaxed = aggregate.solve(linear, time_limit_s / 2)
    if relaxed.x is None or relaxed.interrupted:
        return replace(relaxed, bound=-np.inf)
    y = relaxed.x[columns]
    whole = np.floor(y + 1e-6)
    missing = (math.ceil(y.sum() - 1e-6) if gpus is None else gpus) - int(whole.sum())
    left = fleet_limits(problem)[0] - np.bincount(problem.option_type, whole, minlength=len(problem.stock))
    for o in np.argsort(whole - y, kind="stable").tolist() * 2:
        if missing > 0 and left[problem.option_type[o]] >= 1 and y[o] > 1e-9:
            whole[o] += 1
            left[problem.option_type[o]] -= 1
            missing -= 1
    lower, upper = linear.lower.copy(), linear.upper.copy()
    lower[columns] = upper[columns] = whole
    result = aggregate.solve(replace(linear, lower=lower, upper=upper), time_limit_s / 2)
    return replace(result, status="unknown" if result.status == "infeasible" else result.status, bound=-np.inf)


def _relaxation(aggregate: Aggregate, result: LinearResult, spare: float | None) -> Relaxation:
    """Reads y and a, scaled back to the demand itself; `spare` None = theta was maximised."""
    options, classes = len(aggregate.problem.options), len(aggregate.classes)
    y, a, value, theta = np.zeros(options), np.zeros((classes, options)), float("nan"), float("nan")
    if result.x is not None:
        y = np.abs(np.round(result.x[aggregate.model.y]))
        theta = float(result.x[aggregate.model.theta])
        a = np.where(aggregate.model.a >= 0, result.x[aggregate.model.a], 0.0) / (1 + theta)
        a = np.where(y > 0, a, 0.0)
        a *= (aggregate.classes.size / np.maximum(a.sum(axis=1), 1e-12))[:, None]
        value = result.value if spare is not None else float(aggregate.rows.r @ y)
        theta = theta if spare is None else float("nan")
    return Relaxation(
        status="feasible" if result.x is not None else "no_solution",
        y=y,
        a=a,
        value=value,
        headroom=theta,
        interrupted=aggregate.interrupted,
    )
