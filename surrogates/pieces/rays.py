"""Columns of the workload at hand, from light to the largest healthy one: what facets and loads are fitted to.

A *ray* adds adapters of the workload, drawn with a bias towards some kinds, until the physics says that the column is
no longer healthy. The last adapter is added in part (a share of its rows), so that the end lies on the boundary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.model import ColumnSums, SteadyStateModel
from surrogates.steady_state.state import SteadyState
from twin.server.settings import EngineSetting

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Fractions of a ray's adapters at which loads are read.
FRACTIONS = (0.25, 0.5, 0.7, 0.85, 0.95, 1.0)
#: Most adapters on a ray: what a server might hold.
MOST_ADAPTERS = 8192
#: Spread of the bias towards kinds with more traffic, longer prompts and longer answers.
BIAS = 0.7
#: Halvings in search of the share of the last adapter.
HALVINGS = 5

#: A correction of the physics: states -> states.
Correct = Callable[[SteadyState], SteadyState]


@dataclass(frozen=True, slots=True)
class Rays:
    """R rays under one setting, and P = R x len(FRACTIONS) columns on them.

    Args:
        ends: features at the boundary, (R, F). limits: what limits there, index into `LIMITS`, (R,).
        open: the ray never became unhealthy: its end is not on the boundary, (R,).
        phi: features of the columns, (P, F). in_system, decoding: loads, (P,). ray: of each column, (P,).
    """

    ends: Array
    limits: Ints
    open: NDArray[np.bool_]
    phi: Array
    in_system: Array
    decoding: Array
    ray: Ints


def draw_rays(
    model: SteadyStateModel, phi: Array, count: Ints, setting: EngineSetting, rays: int, seed: int,
    correct: Correct,
) -> Rays | None:  # fmt: skip
    """Rays under a setting; None if no adapter of the workload is healthy under it.

    Args:
        phi: features of the model's kinds, (K, F). count: adapters of each kind in the workload, (K,).
        correct: from the physics' states to better ones.
    """
    law = model.laws([setting])
    alone = correct(model.states([[k] for k in range(len(phi))], np.repeat(law, len(phi))))
    usable = np.flatnonzero(alone.healthy > 0)
    if not len(usable):
        return None
    rng = np.random.default_rng([seed, setting.max_loras, setting.max_lora_rank])
    linear = phi[usable, :3]
    standard = np.log(linear + 1e-12)
    standard = (standard - standard.mean(axis=0)) / np.maximum(standard.std(axis=0), 1e-9)
    ends, limits, opened, columns, where = [], [], [], [], []
    for ray in range(rays):
        weights = np.log(count[usable]) + standard @ (BIAS * rng.normal(size=3))
        weights = np.exp(weights - weights.max())
        order = usable[rng.choice(len(usable), size=MOST_ADAPTERS, p=weights / weights.sum())]
        last = _last_healthy(model, law, order, correct)
        end = phi[order[:last]].sum(axis=0)
        open_ended = last >= len(order)
        limit = 0
        if not open_ended:
            share, limit = _share_of_next(model, law, order, last, correct)
            end = end + share * phi[order[last]]
        ends.append(end)
        limits.append(limit)
        opened.append(open_ended)
        for fraction in FRACTIONS:
            columns.append(order[: max(1, round(fraction * last))])
            where.append(ray)
    states = correct(model.states(columns, np.repeat(law, len(columns))))
    return Rays(
        np.array(ends), np.array(limits), np.array(opened), np.array([phi[c].sum(axis=0) for c in columns]),
        states.requests_in_system, states.decoding, np.array(where),
    )  # fmt: skip


def _last_healthy(model: SteadyStateModel, law: object, order: Ints, correct: Correct) -> int:
    """Most adapters of an order that are healthy together (the first is, alone)."""

    def healthy(n: int) -> bool:
        return bool(correct(model.states([order[:n]], law)).healthy[0] > 0)

    low, high = 1, 2
    while high < len(order) and healthy(high):
        low, high = high, 2 * high
    if high >= len(order):
        if healthy(len(order)):
            return len(order)
        high = len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if healthy(middle):
            low = middle
        else:
            high = middle
    return low


def _share_of_next(model: SteadyStateModel, law: object, order: Ints, last: int, correct: Correct) -> tuple[float, int]:
    """Largest share of the next adapter that is healthy beside the others, and what limits there."""
    whole, one = model.sums([order[:last]]), model.rows(order[last : last + 1])

    def state(share: float) -> SteadyState:
        part = ColumnSums(
            whole.linear + share * one.linear, whole.paced + share * one.paced, whole.aside + share * one.aside
        )
        members = order[: last + 1]
        tables = model.tables
        found = model.states_of_sums(
            part,
            law,
            pace_limit_s=tables.pace_limit_s[members].min(),
            token_limit_s=tables.token_limit_s[members].min(),
        )
        return correct(found)

    low, high = 0.0, 1.0
    beyond = state(1.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = state(middle)
        if found.healthy[0] > 0:
            low = middle
        else:
            high, beyond = middle, found
    return (low + high) / 2, int(beyond.limit[0])
