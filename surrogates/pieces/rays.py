"""Columns of the workload at hand, from light to the largest healthy one: what facets and loads are fitted to.

A *ray* adds adapters of the workload, drawn with a bias towards some kinds, until the physics says that the column is
no longer healthy. The last adapter is added in part (a share of its rows), so that the end lies on the boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.model import ColumnSums, SteadyStateModel
from surrogates.steady_state.state import SteadyState
from twin.server.settings import EngineSetting

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Fractions of a ray's adapters at which loads are read.
FRACTIONS = (0.25, 0.5, 0.7, 0.85, 0.95, 1.0)
#: Most adapters on a ray: what a server might hold, and this many times the workload.
MOST_ADAPTERS, SURPLUS = 8192, 4
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
        orders: adapters of each ray in the order in which they are added, R arrays of indices.
        lengths: how many of them are healthy, the last one in part, (R,).
    """

    ends: Array
    limits: Ints
    open: NDArray[np.bool_]
    phi: Array
    in_system: Array
    decoding: Array
    ray: Ints
    orders: tuple[Ints, ...] = ()
    lengths: tuple[float, ...] = ()


def joined(first: Rays, second: Rays) -> Rays:
    """The rays of both."""
    return Rays(
        np.concatenate([first.ends, second.ends]), np.concatenate([first.limits, second.limits]),
        np.concatenate([first.open, second.open]), np.concatenate([first.phi, second.phi]),
        np.concatenate([first.in_system, second.in_system]), np.concatenate([first.decoding, second.decoding]),
        np.concatenate([first.ray, second.ray + len(first.ends)]),
    )  # fmt: skip


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
    longest = min(MOST_ADAPTERS, max(64, SURPLUS * int(count.sum())))
    orders = []
    for _ in range(rays):
        weights = np.log(count[usable]) + standard @ (BIAS * rng.normal(size=3))
        weights = np.exp(weights - weights.max())
        orders.append(usable[rng.choice(len(usable), size=longest, p=weights / weights.sum())])
    last = _last_healthy(model, law, orders, correct)
    open_ended = last >= longest
    shares, limits = _share_of_next(model, law, orders, last, open_ended, correct)
    ends = np.array(
        [phi[o[:n]].sum(axis=0) + s * phi[o[min(n, longest - 1)]] for o, n, s in zip(orders, last, shares, strict=True)]
    )
    columns = [o[: max(1, round(f * n))] for o, n in zip(orders, last.tolist(), strict=True) for f in FRACTIONS]
    states = correct(model.states(columns, np.repeat(law, len(columns))))
    return Rays(
        ends, limits, open_ended, np.array([phi[c].sum(axis=0) for c in columns]), states.requests_in_system,
        states.decoding, np.repeat(np.arange(rays), len(FRACTIONS)), tuple(orders), tuple((last + shares).tolist()),
    )  # fmt: skip


def _last_healthy(model: SteadyStateModel, law: Any, orders: Sequence[Ints], correct: Correct) -> Ints:
    """Most adapters of each order that are healthy together (the first is, alone), (R,); all rays at once."""

    def healthy(which: Ints, sizes: Ints) -> NDArray[np.bool_]:
        columns = [orders[r][:n] for r, n in zip(which.tolist(), sizes.tolist(), strict=True)]
        found = correct(model.states(columns, np.repeat(law, len(columns)))).healthy > 0
        return np.asarray(found)

    longest = len(orders[0])
    low, high = np.ones(len(orders), np.int64), np.full(len(orders), 2, np.int64)
    growing = np.arange(len(orders))
    while len(growing):
        good = healthy(growing, high[growing])
        low[growing[good]] = high[growing[good]]
        growing = growing[good & (high[growing] < longest)]
        high[growing] = np.minimum(2 * high[growing], longest)
    # Rays that reached the end are done: low = high.
    while (wide := np.flatnonzero(high - low > 1)).size:
        middle = (low[wide] + high[wide]) // 2
        good = healthy(wide, middle)
        low[wide[good]], high[wide[~good]] = middle[good], middle[~good]
    return low


def _share_of_next(
    model: SteadyStateModel, law: Any, orders: Sequence[Ints], last: Ints, open_ended: NDArray[np.bool_],
    correct: Correct,
) -> tuple[Array, Ints]:  # fmt: skip
    """Largest share of each order's next adapter that is healthy beside the others, and what limits there, (R,)."""
    shares, limits = np.zeros(len(orders)), np.zeros(len(orders), np.int64)
    ended = np.flatnonzero(~open_ended)
    if not len(ended):
        return shares, limits
    members = [orders[r][: last[r] + 1] for r in ended.tolist()]
    whole, one = model.sums([m[:-1] for m in members]), model.rows(np.array([m[-1] for m in members]))
    laws = np.repeat(law, len(ended))
    pace_s, token_s = model.promise_limits(members)

    def state(share: Array) -> SteadyState:
        part = ColumnSums(
            whole.linear + share[:, None] * one.linear,
            whole.paced + share[:, None, None] * one.paced,
            whole.aside + share[:, None, None, None] * one.aside,
        )
        return correct(model.states_of_sums(part, laws, pace_limit_s=pace_s, token_limit_s=token_s))

    low, high = np.zeros(len(ended)), np.ones(len(ended))
    limit = state(high).limit
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = state(middle)
        good = found.healthy > 0
        low, high = np.where(good, middle, low), np.where(good, high, middle)
        limit = np.where(good, limit, found.limit)
    shares[ended], limits[ended] = (low + high) / 2, limit.astype(np.int64)
    return shares, limits
