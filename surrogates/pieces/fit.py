"""Facets and convex loads fitted to rays: the linear pieces that solvers compute with.

*Facets* `g . phi <= 1`, one for each kind of limit that rays end at (compute, KV cache, slots, ...): least squares with
g >= 0, so that more load is never healthier, on the ends of its own rays; ends of others may not lie far outside it.
*Loads* are convex and grow, `q . phi + sum v_j max(w_j . phi - k_j, 0)` with q, v, w >= 0, by least squares in relative
error, in which too low counts more. They bend along the facets and along an index of their own, of which they are
nearly a function: index and function are fitted in turn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from surrogates.model.planning import HingeLoad, Polyhedron
from surrogates.pieces.rays import Rays

Array = NDArray[np.float64]

#: Ridge on weights, relative to features of size 1.
RIDGE = 1e-3
#: Rounds in which ends beyond a facet of another kind are added to its rows.
ROUNDS = 4
#: Quantiles of a direction at which a load may bend.
BENDS = (0.2, 0.4, 0.6, 0.75, 0.87, 0.95)
#: Features below this at the end of every ray are noise.
NOISE = 1e-9
#: Weight of a load that is told too low, and rounds in which it is found where it is.
CAREFUL, CAREFUL_ROUNDS = 5.0, 4
#: Rounds of fitting index and function in turn.
TURNS = 10


def fit_facets(rays: Rays) -> Polyhedron:
    """`G phi - 1 <= 0`; without facets where no ray ended."""
    ended = ~rays.open
    if not ended.any():
        return Polyhedron(np.zeros((0, rays.ends.shape[1])), np.zeros(0))
    ends, limits = rays.ends[ended], rays.limits[ended]
    scale = _scale(ends)
    rows = []
    for kind in np.unique(limits):
        own, others = ends[limits == kind] / scale, ends[limits != kind] / scale
        taken = own
        for _ in range(ROUNDS):
            weights = _ridge(taken, np.ones(len(taken)))
            beyond = others @ weights > 1.0
            if not beyond.any():
                break
            taken = np.vstack([own, others[beyond]])
        rows.append(weights / scale)
    return Polyhedron(np.array(rows), -np.ones(len(rows)))


def over_promise(facets: Polyhedron, rays: Rays, quantile: float) -> float:
    """How far ends lie inside the facets, as a share of the load: the quantile over rays, at least 0."""
    ended = ~rays.open
    if not ended.any() or not len(facets.g):
        return 0.0
    use = (rays.ends[ended] @ facets.G.T).max(axis=1)
    return max(0.0, float(np.quantile(1.0 - use, quantile)))


def under_promise(facets: Polyhedron, rays: Rays, quantile: float) -> float:
    """Factor on the facets' limits with which this share of the rays' healthy ends lies inside, >= 1."""
    ended = ~rays.open
    if not ended.any() or not len(facets.g):
        return 1.0
    return max(1.0, float(np.quantile((rays.ends[ended] @ facets.G.T).max(axis=1), quantile)))


def fit_load_below(phi: Array, values: Array, facets: Polyhedron, quantile: float) -> HingeLoad:
    """A convex, growing load that lies below this share of `values`; arguments as in `fit_load`."""
    load = fit_load(phi, values, facets, careful=1.0 / CAREFUL)
    told = np.isfinite(values) & (values > 0)
    ratio = values[told] / np.maximum(load(phi[told]), 1e-12)
    return load.scaled(min(1.0, float(np.quantile(ratio, 1.0 - quantile))))


def fit_load(phi: Array, values: Array, facets: Polyhedron, careful: float = CAREFUL) -> HingeLoad:
    """A convex, growing load through `values` (P,) > 0 at features `phi` (P, F).

    Args:
        facets: what limits columns: loads bend towards them.
        careful: weight of a value that is told too low, in weights of one that is told too high.
    """
    # Beyond the capacity (rule `published`) there is no steady state, and no load to speak of.
    told = np.isfinite(values) & (values > 0)
    phi, values = phi[told], values[told]
    scale, size = _scale(phi), float(values.max())
    relative = 1.0 / values
    columns, rows, bends = [phi / scale * size], [], []
    for direction in (_index(phi / scale, values) / scale, *facets.G):
        z = phi @ direction
        if not z.max() > 0:
            continue
        for bend in np.unique(np.quantile(z, BENDS)):
            # In units in which every candidate is of the size of the values.
            rows.append(direction * size / z.max())
            bends.append(float(bend * size / z.max()))
            columns.append(np.maximum(phi @ rows[-1] - bends[-1], 0.0)[:, None])
    rows_of_fit = np.hstack(columns) * relative[:, None]
    weights = _ridge(rows_of_fit, np.ones(len(values)))
    for _ in range(CAREFUL_ROUNDS):
        # A solver looks for columns whose load is told too low: too low counts more than too high.
        importance = np.where(rows_of_fit @ weights < 1.0, careful, 1.0)
        weights = _ridge(rows_of_fit * importance[:, None], importance)
    linear, slopes = weights[: len(scale)] * size / scale, weights[len(scale) :]
    kept = slopes > 1e-9
    return HingeLoad(np.array(rows).reshape(-1, len(scale))[kept], -np.array(bends)[kept], slopes[kept], linear, 0.0)


def _index(scaled: Array, values: Array) -> Array:
    """Weights w >= 0 such that the values are nearly a convex function of `scaled @ w`, (F,)."""
    relative = 1.0 / values
    index = _ridge(scaled * relative[:, None], np.ones(len(values)), 0.1 * RIDGE)
    for turn in range(TURNS):
        size = float(np.quantile(scaled @ index, 0.95))
        if size <= 0.0:
            break
        index = index / size
        z = scaled @ index
        bends = np.concatenate([[0.0], np.unique(np.quantile(z, BENDS))])
        slopes, _ = nnls(np.maximum(z[:, None] - bends, 0.0) * relative[:, None], np.ones(len(values)))
        grid = np.linspace(0.0, 1.3 * float(z.max()), 1000)
        curve = np.maximum(grid[:, None] - bends, 0.0) @ slopes
        target = np.interp(values, curve, grid)
        weight = np.maximum(np.interp(target, grid, np.gradient(curve, grid)), 1e-9) * relative
        step = _ridge(scaled * weight[:, None], target * weight, 0.1 * RIDGE)
        index = step if turn == TURNS - 1 else (index + step) / 2
    return index


def _scale(phi: Array) -> Array:
    """Largest value of each feature, (F,); inf for one that is rounding noise (companions of Poisson arrivals)."""
    largest = phi.max(axis=0)
    return np.where(largest > NOISE, largest, np.inf)


def _ridge(rows: Array, targets: Array, ridge: float = RIDGE) -> Array:
    """Least squares with weights >= 0 and a small ridge."""
    size = rows.shape[1]
    weights, _ = nnls(np.vstack([rows, ridge * np.eye(size)]), np.concatenate([targets, np.zeros(size)]))
    return np.asarray(weights)
