"""All linear rules and convex costs of a problem as dense arrays, exactly scaled.

Facets, hull rows and the adapter count of each option become rows `H_o psi + h_o <= 0` over scaled features `psi`:
the problem's features plus one that counts adapters (rank > 0). Scales are powers of two, so every number here is
the problem's number times an exact factor, and what is proven about these rows is proven about the problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from placement.problem.objectives import without_convex_form
from placement.problem.problem import PlacementProblem
from twin.errors import InputError

Array = NDArray[np.float64]

#: What a row is about; `PAD` fills options with fewer rows and never binds.
PAD, FACET, HULL, COUNT = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Cuts:
    """C affine functions of a column's items that lie below the objective's cost of it.

    Args:
        option: that each speaks of, (C,). slope: of each item, (C, N). constant: (C,).
    """

    option: NDArray[np.int64]
    slope: Array
    constant: Array

    def __len__(self) -> int:
        return len(self.option)


def no_cuts(items: int) -> Cuts:
    return Cuts(np.zeros(0, np.int64), np.zeros((0, items)), np.zeros(0))


@dataclass(frozen=True, slots=True)
class ColumnRows:
    """Rules and costs of columns. N items, O options, J rows, D = F + 1 scaled features, E hinges.

    Args:
        psi: features of the items, (N, D); the last one is 1 for adapters and 0 for base-model traffic.
        H: row coefficients, (O, J, D).
        h: row constants, (O, J); a column is allowed iff `H[o] @ psi.sum(0) + h[o] <= 0`.
        kind: PAD, FACET, HULL or COUNT, (O, J).
        W: hinge coefficients of the weighted objective, (O, E, D).
        b: hinge constants, (O, E).
        v: hinge weights, (O, E), >= 0; 0 pads.
        q: linear cost, (O, D).
        r: cost of opening a GPU, (O,).
        feature_scale: psi = phi / feature_scale, (D,).
        cuts: further lower bounds of the cost of a column.
    """

    psi: Array
    H: Array
    h: Array
    kind: NDArray[np.int8]
    W: Array
    b: Array
    v: Array
    q: Array
    r: Array
    feature_scale: Array
    cuts: Cuts

    @property
    def cost_is_per_gpu(self) -> bool:
        """The objective depends only on which GPUs are opened (GPU count or price)."""
        return not self.v.any() and not self.q.any()

    @property
    def cost_is_count(self) -> bool:
        """Every GPU costs the same: the objective is a multiple of the GPU count."""
        return self.cost_is_per_gpu and bool((self.r == self.r[0]).all() and self.r[0] > 0)

    def excess(self, option: int, psi: Array) -> Array:
        """Largest scaled row value of columns with summed features psi (P, D), shape (P,); <= 0 = allowed."""
        return np.asarray((psi @ self.H[option].T + self.h[option]).max(axis=1))


def column_rows(
    problem: PlacementProblem, side: Literal["feasible", "outer"] = "feasible", cuts: Cuts | None = None
) -> ColumnRows:
    """Collects and scales the rows.

    Args:
        cuts: that hold beside the terms' own convex forms.
        side: `feasible` keeps the margin; `outer` takes the facets without it (for `bound_outer`).

    Raises:
        InputError: if a term of the objective has no convex form, or is not summed over GPUs.
    """
    missing = without_convex_form(problem)
    if missing:
        raise InputError(
            f"objective term {', '.join(missing)} has no convex form summed over GPUs: no bound can be computed",
            where="objective",
            remedy="leave the term out, or use a solver that needs no bound for it",
        )
    costs = [cost for o in range(len(problem.options)) if (cost := problem.convex_cost(o)) is not None]
    slots = np.array([[float(a.rank > 0)] for a in problem.items])
    feature_scale = _power_of_two(np.append(np.abs(problem.phi).max(axis=0), 1.0))
    blocks = []
    for option in problem.options:
        polyhedron = getattr(option, side)
        count = np.zeros((1, problem.phi.shape[1] + 1))
        count[0, -1] = 1.0
        blocks.append(
            (
                np.vstack([_pad_columns(polyhedron.G), _pad_columns(option.hull.G), count]) * feature_scale,
                np.concatenate([polyhedron.g, option.hull.g, [-float(option.max_adapters)]]),
                np.repeat([FACET, HULL, COUNT], [len(polyhedron.g), len(option.hull.g), 1]),
            )
        )
    most = max(len(h) for _, h, _ in blocks)
    O, D = len(blocks), len(feature_scale)
    H, h, kind = np.zeros((O, most, D)), np.full((O, most), -1.0), np.full((O, most), PAD, dtype=np.int8)
    for o, (H_o, h_o, kind_o) in enumerate(blocks):
        size = np.where(h_o != 0, np.abs(h_o), np.abs(H_o).max(axis=1))
        scale = _power_of_two(size)
        H[o, : len(h_o)], h[o, : len(h_o)], kind[o, : len(h_o)] = H_o / scale[:, None], h_o / scale, kind_o
    hinges = max(len(c.b) for c in costs)
    W, b, v = np.zeros((O, hinges, D)), np.zeros((O, hinges)), np.zeros((O, hinges))
    for o, cost in enumerate(costs):
        n = len(cost.b)
        W[o, :n], b[o, :n], v[o, :n] = _pad_columns(cost.W) * feature_scale, cost.b, cost.v
    q = np.stack([np.append(c.q, 0.0) for c in costs]) * feature_scale
    r = np.array([c.r for c in costs])
    psi = np.hstack([problem.phi, slots]) / feature_scale
    return ColumnRows(psi, H, h, kind, W, b, v, q, r, feature_scale, no_cuts(len(psi)) if cuts is None else cuts)


def _pad_columns(matrix: Array) -> Array:
    """Adds a zero coefficient for the adapter count."""
    return np.hstack([matrix, np.zeros((len(matrix), 1))])


def _power_of_two(size: Array) -> Array:
    """Nearest power of two of each positive number, 1 for zeros: dividing by it is exact."""
    return np.asarray(np.exp2(np.round(np.log2(np.where(size > 0, size, 1.0)))))
