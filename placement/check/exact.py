r"""The arithmetic of a price list, in rationals: prices, what GPUs are worth beyond them, and the bound.

Every floating-point number of the certificate and of the planning model's features is taken as the rational that it is.
Nothing here knows where the prices come from; `placement.problem.prices` states the formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.problem.objectives import GpuCount
from placement.problem.problem import PlacementProblem
from placement.problem.rows import column_rows
from twin.errors import InputError

#: Slack in rounding up to whole GPUs: placements may use the tolerance of the rules.
ROUNDING = Fraction(1, 10**6)
#: Classes that are named where their prices are wrong.
MOST_NAMED = 3

Integers = NDArray[Any]


@dataclass(frozen=True)
class Proven:
    """What a price list proves, if no GPU is worth more than it costs.

    Args:
        wrong: what is not as the certificate says.
        worth: the bound, not rounded to whole GPUs. bound: rounded.
        opening: s_o, what opening a GPU costs beyond its column's worth, (O,). gpus: G, (most GPUs).
        price: of a GPU, where only their number counts.
    """

    wrong: tuple[str, ...]
    worth: Fraction
    bound: Fraction
    opening: tuple[Fraction, ...]
    gpus: int
    price: Fraction | None

    def left(self, excess: NDArray[np.float64], factor: float) -> Fraction:
        """What is left of `worth` where columns of option o are worth so much more than they cost, (O,).

        The better of two: openings that are dearer by as much, and all prices cut by a factor.
        """
        before = max([Fraction(0), *(-s for s in self.opening)])
        now = [Fraction(float(e)) - s for s, e in zip(self.opening, np.maximum(excess, 0.0).tolist(), strict=True)]
        return max(self.worth - self.gpus * (max([before, *now]) - before), Fraction(factor) * self.worth)

    def rounded(self, worth: Fraction) -> Fraction:
        """A bound, up to whole GPUs where only their number counts."""
        return rounded_up(worth, self.price)


def proven(name: str, entry: Mapping[str, Any], classes: Mapping[str, Any], problem: PlacementProblem) -> Proven:
    """Evaluates a list of a certificate.

    Args:
        name: of the list. entry: `certificate.lists[name]`. classes: `certificate.classes`.
        problem: with relaxed terms, with or without its margin as the list says.

    Raises:
        InputError: arrays that do not fit the problem.
    """
    wrong: list[str] = []
    items, options = len(problem.items), len(problem.option_type)
    class_of, caps, nu = _caps(entry, problem)
    sigma, sigma_total = [Fraction(s) for s in entry["sigma"]], Fraction(entry["sigma_total"])
    if len(sigma) != len(problem.stock):
        raise InputError(f"{len(sigma)} GPU types are priced, there are {len(problem.stock)}", where=_where(name))
    if min([*sigma, sigma_total, *(v for row in nu for v in row)]) < 0:
        wrong.append(f"{name}: a price of GPUs or of class caps is negative")
    psi = np.hstack([problem.phi, [[float(a.rank > 0)] for a in problem.items]])
    if problem.model is None:
        slope, gamma, psi = _combined(name, entry, problem, wrong)
    else:
        slope, gamma = [[Fraction(b) for b in row] for row in entry["beta"]], [Fraction(g) for g in entry["gamma"]]
    if {len(slope), len(gamma)} != {options} or any(len(row) != psi.shape[1] for row in slope):
        raise InputError(f"prices are not for {options} settings and {psi.shape[1]} features", where=_where(name))
    groups = _groups(problem, class_of if entry["nu"] else None)
    first = np.array([members[0] for members in groups.values()])
    own_nu = [nu[class_of[i]] for i in first.tolist()]
    prices = _prices(psi[first], slope, own_nu, problem.allowed[first])
    total = _total(name, entry, classes, problem, list(groups.values()), prices, wrong)
    opening = tuple(
        g - sum((u * nu[k][o] for k, u in enumerate(caps)), Fraction(0)) + sigma[int(t)] + sigma_total
        for o, (g, t) in enumerate(zip(gamma, problem.option_type, strict=True))
    )
    stock = [min(int(s), items) for s in problem.stock]
    gpus = min(sum(stock), items if problem.max_gpus is None else min(problem.max_gpus, items))
    deficit = max([Fraction(0), *(-s for s in opening)])
    fleet = sum((s * p for s, p in zip(stock, sigma, strict=True)), Fraction(0)) + gpus * (sigma_total + deficit)
    worth, price = total - fleet, _gpu_price(problem)
    if Fraction(entry["worth"]) > worth:
        wrong.append(f"{name}: the prices prove {float(worth):.10g}, not {entry['worth']:.10g}")
    bound = rounded_up(worth, price)
    if Fraction(entry["bound"]) > bound + Fraction(math.ulp(entry["bound"])):
        wrong.append(f"{name}: the prices prove a bound of {float(bound):.10g}, not {entry['bound']:.10g}")
    return Proven(tuple(wrong), worth, bound, opening, gpus, price)


def rounded_up(worth: Fraction, price: Fraction | None) -> Fraction:
    """A bound rounded up to whole GPUs of this price."""
    return worth if price is None else math.ceil(worth / price - ROUNDING) * price


def _where(name: str) -> str:
    return f"certificate.lists.{name}"


def _gpu_price(problem: PlacementProblem) -> Fraction | None:
    price = set(problem.context.price.values())
    if len(price) > 1 or not all(isinstance(t, GpuCount) for t in problem.terms):
        return None
    return sum((Fraction(t.weight) / Fraction(t.scale) for t in problem.terms), Fraction(0)) * Fraction(price.pop())


def _caps(entry: Mapping[str, Any], problem: PlacementProblem) -> tuple[list[int], list[int], list[list[Fraction]]]:
    """Class of each item, most members of each class on one GPU (distinct adapters), and nu (K, O)."""
    class_of = [0] * len(problem.items) if entry["class_of"] is None else [int(k) for k in entry["class_of"]]
    if len(class_of) != len(problem.items):
        raise InputError(f"{len(class_of)} items have a class, there are {len(problem.items)}", where="class_of")
    members: dict[int, set[int]] = {}
    for k, adapter in zip(class_of, problem.item_adapter.tolist(), strict=True):
        members.setdefault(k, set()).add(adapter)
    size = max(members) + 1
    nu = [[Fraction(0)] * len(problem.option_type) for _ in range(size)]
    for k, o, value in entry["nu"]:
        nu[k][o] = Fraction(value)
    return class_of, [len(members.get(k, ())) for k in range(size)], nu


def _combined(
    name: str, entry: Mapping[str, Any], problem: PlacementProblem, wrong: list[str]
) -> tuple[list[list[Fraction]], list[Fraction], NDArray[np.float64]]:
    """Prices per feature, and of opening a GPU, as the multipliers of a linear model's rules and loads make them.

    q + W' lam + H' mu and r + b' lam + h' mu (`placement.problem.rows`), with the features that these rows speak of.
    """
    rows = column_rows(problem)
    if entry["mu"] is None or np.shape(entry["mu"]) != rows.h.shape or np.shape(entry["lam"]) != rows.v.shape:
        raise InputError("the multipliers do not fit the planning model's rules", where=_where(name))
    slopes, gammas = [], []
    for o in range(len(rows.r)):
        mu, lam = ([Fraction(x) for x in entry[kind][o]] for kind in ("mu", "lam"))
        if min(mu) < 0 or any(not 0 <= x <= Fraction(v) for x, v in zip(lam, rows.v[o].tolist(), strict=True)):
            wrong.append(f"{name}: a multiplier of setting {o} has the wrong sign, or is above the weight of its load")
        slope, gamma = [Fraction(x) for x in rows.q[o].tolist()], Fraction(float(rows.r[o]))
        for weights, matrix, constant in ((lam, rows.W[o], rows.b[o]), (mu, rows.H[o], rows.h[o])):
            for weight, row, c in zip(weights, matrix.tolist(), constant.tolist(), strict=True):
                if weight:
                    gamma += weight * Fraction(c)
                    slope = [s + weight * Fraction(x) for s, x in zip(slope, row, strict=True)]
        slopes.append(slope)
        gammas.append(gamma)
    return slopes, gammas, rows.psi


def _groups(problem: PlacementProblem, class_of: list[int] | None) -> dict[tuple[Any, ...], list[int]]:
    """Items of equal features, settings and class: they have equal prices."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, adapter in enumerate(problem.items):
        key = problem.phi[i].tobytes(), adapter.rank > 0, problem.allowed[i].tobytes(), class_of and class_of[i]
        groups.setdefault(key, []).append(i)
    return groups


def _prices(
    psi: NDArray[np.float64], slope: list[list[Fraction]], nu: list[list[Fraction]], allowed: NDArray[np.bool_]
) -> list[Fraction]:
    """Least price of each of P items over the settings that it may use; psi (P, D), slope (O, D), nu (P, O)."""
    unit = max(x.denominator for row in slope for x in row)  # powers of two, as all floating-point numbers
    whole = np.array([[int(x * unit) for x in row] for row in slope], dtype=object)
    features, parts = _integers(psi)
    worth = features @ whole.T
    return [
        min(Fraction(int(worth[p, o]), unit * parts) + nu[p][o] for o in _candidates(worth[p], nu[p], allowed[p]))
        for p in range(len(psi))
    ]


def _candidates(worth: Any, nu: list[Fraction], allowed: NDArray[np.bool_]) -> list[int]:
    """Settings among which the least price is: one where there are no class caps."""
    usable: list[int] = np.flatnonzero(allowed).tolist()
    return usable if any(nu) else [min(usable, key=lambda o: worth[o])]


def _total(
    name: str, entry: Mapping[str, Any], classes: Mapping[str, Any], problem: PlacementProblem,
    groups: list[list[int]], prices: list[Fraction], wrong: list[str],
) -> Fraction:  # fmt: skip
    """Sum of the stored prices of all items; names classes that are not worth theirs."""
    said = {
        str(first): (int(n), Fraction(p))
        for first, n, p in zip(classes["first"], classes["items"], entry["prices"], strict=False)
    }
    total, named = Fraction(0), 0
    if not len(said) == len(groups) == len(entry["prices"]) == len(classes["items"]):
        wrong.append(f"{name}: {len(entry['prices'])} classes are priced, the workload has {len(groups)}")
    for members, price in zip(groups, prices, strict=True):
        adapter = problem.items[members[0]].adapter_id
        n, stored = said.get(adapter, (0, Fraction(0)))
        total += n * stored
        if named < MOST_NAMED and (n != len(members) or stored > price):
            named += 1
            wrong.append(
                f"{name}: {n} items of the class of {adapter!r} are priced at {float(stored):.12g}; there are "
                f"{len(members)}, worth {float(price):.12g}"
            )
    return total


def _integers(values: NDArray[np.float64]) -> tuple[Integers, int]:
    """Exact integers, and the power of two that they are divided by."""
    ratios = [[x.as_integer_ratio() for x in row] for row in values.tolist()]
    unit = max((d for row in ratios for _, d in row), default=1)
    return np.array([[n * (unit // d) for n, d in row] for row in ratios], dtype=object), unit
