"""What a solver may know about a column: linear facets and convex loads.

All functions act on a column's features `phi` (F,), the **sum** over its adapters of `features(adapter)`.
Because features add over adapters, they are linear in the numbers of adapters of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Polyhedron:
    """`{phi : G phi + g <= 0}` with G (J, F) and g (J,)."""

    G: Array
    g: Array

    def __post_init__(self) -> None:
        if self.G.ndim != 2 or self.g.shape != (self.G.shape[0],):
            raise ValueError(f"facets G {self.G.shape} and g {self.g.shape} do not fit together")

    def violation(self, phi: Array) -> Array:
        """Largest left-hand side, shape (P,) for phi (P, F); <= 0 inside. `-inf` without facets."""
        if not len(self.g):
            return np.full(len(phi), -np.inf)
        return np.asarray((phi @ self.G.T + self.g).max(axis=1))

    def shifted(self, margin: float) -> Polyhedron:
        """Facets moved inwards: `G phi + g + margin <= 0`."""
        return replace(self, g=self.g + margin)


@dataclass(frozen=True, slots=True)
class HingeLoad:
    """Convex load `v . max(W phi + b, 0) + q . phi + r` with W (H, F), b (H,), v (H,) >= 0, q (F,), scalar r."""

    W: Array
    b: Array
    v: Array
    q: Array
    r: float

    def __post_init__(self) -> None:
        if (self.v < 0).any():
            raise ValueError("hinge weights v must be >= 0: otherwise the load is not convex")

    def __call__(self, phi: Array) -> Array:
        """Load of each column, shape (P,), for phi (P, F)."""
        return np.asarray(np.maximum(phi @ self.W.T + self.b, 0.0) @ self.v + phi @ self.q + self.r)

    def scaled(self, factor: float) -> HingeLoad:
        """`factor` times the load, factor >= 0."""
        return replace(self, v=self.v * factor, q=self.q * factor, r=self.r * factor)


def affine_load(q: Array, r: float) -> HingeLoad:
    """`q . phi + r` as a load without hinges."""
    return HingeLoad(np.zeros((0, len(q))), np.zeros(0), np.zeros(0), np.asarray(q, dtype=np.float64), float(r))


def add_loads(loads: Sequence[HingeLoad]) -> HingeLoad:
    """The sum of convex loads, which is one."""
    return HingeLoad(
        np.concatenate([x.W for x in loads]),
        np.concatenate([x.b for x in loads]),
        np.concatenate([x.v for x in loads]),
        np.sum([x.q for x in loads], axis=0),
        float(sum(x.r for x in loads)),
    )


@dataclass(frozen=True, slots=True)
class OptionModel:
    """The planning model of one engine setting ("option").

    Args:
        feasible: facets including the margin; a column is promised to be healthy inside.
        outer: facets without the margin (the optimistic side, for `bound_outer`).
        hull: rows that keep features inside the range that was trained on, and the slot-safety row.
        requests_in_system: convex load N = rate x E2E (Little's law), requests.
        requests_decoding: convex load B = output-token rate x ITL, requests.
        max_adapters: most adapters (rank > 0) on one GPU, from host memory or the trained range.
    """

    setting: EngineSetting
    feasible: Polyhedron
    outer: Polyhedron
    hull: Polyhedron
    requests_in_system: HingeLoad
    requests_decoding: HingeLoad
    max_adapters: int

    def violation(self, phi: Array) -> Array:
        """Largest violation over facets and hull rows, shape (P,); <= 0 = allowed."""
        return np.maximum(self.feasible.violation(phi), self.hull.violation(phi))


class PlanningModel(Protocol):
    """Turns adapters into additive features and settings into facets.

    One whose facets and loads are approximations of something better has a third method,
    `columns(items, settings, margin) -> surrogates.model.columns.ColumnModel`: placements are then judged by that; and
    a fourth, `below(setting) -> OptionModel`, whose facets hold what is healthy and whose loads lie below the model's,
    as far as its columns of this workload show: bounds are computed from these.
    """

    def features(self, adapters: Sequence[Adapter]) -> Array:
        """Additive features, shape (N, F)."""
        ...

    def option(self, setting: EngineSetting) -> OptionModel:
        """Facets and loads under one setting; raises `InputError` for one that the model does not know."""
        ...
