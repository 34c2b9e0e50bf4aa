"""Fresh columns of a planning model that is not linear: is any of them worth more than it costs?

The columns are the checker's own: the placement's GPUs under every setting, these with some adapters exchanged, and
random ones. What none of them refutes is not proven for those that were not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.check.exact import Proven
from placement.check.ground import Ground
from placement.check.rules import Placed
from placement.problem.problem import PlacementProblem

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: A column is healthy up to here.
HEALTHY = 1e-6
#: What rounding may make a column worth beyond its cost, objective units.
ROUNDED = 1e-9
#: Fresh columns may lower the bound, before it is rounded to whole GPUs, by this share: it is claimed of columns that
#: were looked at.
TOLERANCE = 5e-3
#: Share of the fresh columns that are a GPU of the placement with some of its adapters exchanged.
EXCHANGED = 0.5
#: Columns that the model is asked for at once.
AT_ONCE = 256


@dataclass(frozen=True)
class Sampled:
    """What fresh columns say of a price list.

    Args:
        wrong: what they refute.
        looked, healthy: columns that the model was asked for, and those that are healthy.
        above: healthy ones worth more than they cost.
        bound: that is left where prices are lowered until none is.
    """

    wrong: tuple[str, ...]
    looked: int
    healthy: int
    above: int
    bound: float


def sampled(
    name: str, entry: Mapping[str, Any], proof: Proven, ground: Ground, own: Placed, columns: int, seed: int
) -> Sampled:
    """Looks at the placement's own GPUs, and at so many fresh columns."""
    problem = ground.of(bool(entry["margin"]))
    psi = np.hstack([problem.phi, [[float(a.rank > 0)] for a in problem.items]])
    worth = psi @ np.array(entry["beta"]).T
    opening = np.array(entry["gamma"])
    if entry["nu"]:
        worth, opening = _with_caps(entry, problem, worth, opening)
    rng = np.random.default_rng([seed, 23])
    fresh, under = _fresh(problem, own, columns, rng)
    groups = [*(np.array(g) for g in own.groups), *fresh]
    options = np.array([*own.options, *under], np.int64)
    wrong: list[str] = []
    most, factor = np.zeros(len(opening)), 1.0
    healthy = above = 0
    for start in range(0, len(groups), AT_ONCE):
        some, at = groups[start : start + AT_ONCE], options[start : start + AT_ONCE]
        cost = _cost(problem, some, at)
        value = np.array([worth[g, o].sum() for g, o in zip(some, at, strict=True)]) + opening[at]
        over = value - cost
        healthy, above = healthy + int(np.isfinite(cost).sum()), above + int((over > ROUNDED).sum())
        np.maximum.at(most, at, over)
        dear = over > ROUNDED
        factor = min(factor, float((cost[dear] / value[dear]).min(initial=1.0)))
    worth_left = proof.left(most, factor if factor == 1.0 else factor * (1.0 - ROUNDED))
    left, bound = proof.rounded(worth_left), Fraction(entry["bound"])
    if worth_left < proof.worth - Fraction(TOLERANCE) * abs(proof.worth):
        wrong.append(
            f"{name}: {above} of {healthy} healthy columns are worth more than they cost; they leave a bound of "
            f"{float(left):.6g}, not {float(bound):.6g}"
        )
    return Sampled(tuple(wrong), len(groups), healthy, above, float(min(left, bound)))


def _with_caps(
    entry: Mapping[str, Any], problem: PlacementProblem, worth: Array, opening: Array
) -> tuple[Array, Array]:
    """Worth of items (N, O), and of a column beyond them (O,), with the prices of class caps."""
    class_of = np.array(entry["class_of"], np.int64)
    nu = np.zeros((int(class_of.max()) + 1, len(opening)))
    for k, o, value in entry["nu"]:
        nu[k, o] = value
    caps = [len(set(problem.item_adapter[class_of == k].tolist())) for k in range(len(nu))]
    return worth + nu[class_of], opening - np.array(caps) @ nu


def _cost(problem: PlacementProblem, groups: Sequence[Any], options: Any) -> Array:
    """Weighted cost of P columns; inf where they are not healthy."""
    columns = problem.columns_of(groups, options)
    cost = np.sum([t.weight / t.scale * t.cost(columns, problem.context) for t in problem.terms], axis=0)
    return np.asarray(np.where((columns.violation <= HEALTHY) & np.isfinite(cost), cost, np.inf))


def _fresh(
    problem: PlacementProblem, own: Placed, columns: int, rng: np.random.Generator
) -> tuple[list[Indices], list[int]]:
    """Columns, and the setting of each: no item that may not run under it, no two shares of one adapter."""
    groups, options = [], []
    largest = max(len(g) for g in own.groups)
    for _ in range(columns):
        o = int(rng.integers(len(problem.option_type)))
        usable = problem.allowed[:, o]
        held = np.zeros(len(usable), np.bool_)
        if rng.random() < EXCHANGED:
            held[list(own.groups[int(rng.integers(len(own.groups)))])] = True
            some = rng.integers(len(usable), size=int(rng.geometric(0.2)))
            held[some] ^= True
        else:
            size = np.exp(rng.uniform(0.0, np.log(1.5 * largest + 1.0)))
            held = rng.random(len(usable)) < size / len(usable)
        chosen = np.flatnonzero(held & usable)
        _, once = np.unique(problem.item_adapter[chosen], return_index=True)
        if len(chosen):
            groups.append(chosen[np.sort(once)])
            options.append(o)
    return groups, options
