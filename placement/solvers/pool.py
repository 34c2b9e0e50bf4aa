"""Healthy columns of a problem, as the planning model sees them, and the search for those worth more than they cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import Placement, PlacementProblem
from surrogates.model.columns import Columns

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: Random columns of each option, and the spread of their bias towards kinds with more traffic or longer requests.
RANDOM, BIAS = 64, 0.7
#: Most items times columns that are drawn at once.
DRAWN = 200_000
#: Features below this are noise.
NOISE = 1e-9
#: Most steps of a climb.
STEPS = 10
#: A climb ends where a step gains less than this, relative to what the column is worth.
GAIN = 1e-5
#: Items exchanged near a known GPU are 1 / this on average.
EXCHANGED = 0.2
#: A column is healthy up to here; `placement.problem.problem.violations` is as strict.
HEALTHY = 1e-6


@dataclass(slots=True)
class OptionColumns:
    """S healthy columns of one option: their items, summed features (S, D), weighted cost (S,)."""

    members: list[Indices]
    psi: Array
    cost: Array

    def __len__(self) -> int:
        return len(self.cost)


@dataclass(slots=True)
class ColumnPool:
    """What was looked at.

    Args:
        problem: every term of its objective is a sum over GPUs.
        rng: draws columns, and what a climb looks at.
        psi: features of the items, scaled to at most 1, without those that are noise, (N, D).
        of: healthy columns of each option, O of them.
        looked: columns that the planning model was asked for.
        gpus: items of each GPU of the known placements.
    """

    problem: PlacementProblem
    rng: np.random.Generator
    psi: Array = field(init=False)
    of: list[OptionColumns] = field(init=False)
    looked: int = 0
    gpus: list[Indices] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = np.abs(self.problem.phi).max(axis=0)
        self.psi = self.problem.phi[:, size > NOISE] / size[size > NOISE]
        none = np.zeros((0, self.psi.shape[1]))
        self.of = [OptionColumns([], none, np.zeros(0)) for _ in self.problem.options]

    def scaled_slopes(self, slopes: Array) -> Array:
        """Slopes per feature of the problem (O, F) as slopes per feature of the pool (O, D)."""
        size = np.abs(self.problem.phi).max(axis=0)
        return np.asarray(slopes[:, size > NOISE] * size[size > NOISE])

    def raw_slopes(self, slopes: Array) -> Array:
        """Slopes per feature of the pool (O, D) as slopes per feature of the problem, and none per slot, (O, F + 1)."""
        size = np.abs(self.problem.phi).max(axis=0)
        raw = np.zeros((len(slopes), len(size) + 1))
        raw[:, np.flatnonzero(size > NOISE)] = slopes / size[size > NOISE]
        return raw

    def under(self, problem: PlacementProblem) -> ColumnPool:
        """A pool with the same columns for a problem under which all of them are healthy, too, and cost as much."""
        other = ColumnPool(problem, np.random.default_rng(self.rng.integers(2**32)))
        other.of = [OptionColumns(list(own.members), own.psi, own.cost) for own in self.of]
        other.looked, other.gpus = self.looked, self.gpus
        return other

    def fill(self, lone: Sequence[int], known: Sequence[Placement]) -> None:
        """Some items alone, random columns, those of known placements under every option, trusted ones.

        Args:
            lone: items that are looked at alone.
        """
        gpus = self.gpus = [np.array(gpu.items) for placement in known for gpu in placement.gpus]
        for o in range(len(self.of)):
            usable = self.problem.allowed[:, o]
            trusted = [np.array(sorted(items)) for option, items in self.problem.trusted if option == o]
            self.look(o, [np.array([i]) for i in lone if usable[i]])
            self.look(o, [*self.random(o, RANDOM), *(g for g in gpus if usable[g].all()), *trusted])

    def near(self, option: int, columns: int) -> list[Indices]:
        """GPUs of the known placements with some of their items exchanged, and as many random columns of such sizes."""
        usable, adapter = self.problem.allowed[:, option], self.problem.item_adapter
        largest = max((len(g) for g in self.gpus), default=0)
        found = []
        for k in range(columns if largest and usable.any() else 0):
            held = np.zeros(len(usable), np.bool_)
            if k % 2:
                held[self.gpus[int(self.rng.integers(len(self.gpus)))]] = True
                held[self.rng.integers(len(usable), size=int(self.rng.geometric(EXCHANGED)))] ^= True
            else:
                size = np.exp(self.rng.uniform(0.0, np.log(1.5 * largest + 1.0)))
                held[self.rng.integers(len(usable), size=int(size) + 1)] = True
            own = np.flatnonzero(held & usable)
            _, once = np.unique(adapter[own], return_index=True)  # replicas of one adapter do not meet on a GPU
            found.append(own[np.sort(once)])
        return [own for own in found if len(own)]

    def random(self, option: int, columns: int) -> list[Indices]:
        """Random columns of all sizes, with a bias towards some kinds of items; fewer of many items."""
        usable = self.problem.allowed[:, option]
        if not usable.any():
            return []
        columns = min(columns, max(8, DRAWN // len(usable)))
        traffic = np.log(np.abs(self.problem.phi[:, :3]) + 1e-12)
        standard = (traffic - traffic.mean(axis=0)) / np.maximum(traffic.std(axis=0), 1e-9)
        weight = np.exp(BIAS * self.rng.normal(size=(columns, standard.shape[1])) @ standard.T) * usable
        size = np.exp(self.rng.uniform(0.0, np.log(usable.sum() + 1.0), size=(columns, 1)))
        held = self.rng.random(weight.shape) < size * weight / weight.sum(axis=1, keepdims=True)
        return [np.flatnonzero(h) for h in held if h.any()]

    def cost(self, columns: Columns) -> Array:
        """Weighted objective of each of P columns, (P,)."""
        terms, context = self.problem.terms, self.problem.context
        return np.asarray(np.sum([t.weight / t.scale * t.cost(columns, context) for t in terms], axis=0))

    def look(self, option: int, groups: Sequence[Indices]) -> Array:
        """Costs of columns, inf where not healthy, (P,); healthy ones enter the pool."""
        if not groups:
            return np.zeros(0)
        cost = self._judged(self.problem.columns_of([g.tolist() for g in groups], [option] * len(groups)))
        good = np.flatnonzero(np.isfinite(cost)).tolist()
        if good:
            own = self.of[option]
            own.members += [groups[p] for p in good]
            own.psi = np.vstack([own.psi, [self.psi[groups[p]].sum(axis=0) for p in good]])
            own.cost = np.append(own.cost, cost[good])
        return cost

    def _judged(self, columns: Columns, reserve: float = 0.0) -> Array:
        self.looked += len(columns)
        cost = self.cost(columns)
        return np.where((columns.violation + reserve <= HEALTHY) & np.isfinite(cost), cost, np.inf)

    def climb(self, option: int, members: Indices, price: Array, moves: int) -> float:
        """Most that a column found from this one is worth beyond its cost, at the items' prices (N,).

        The columns on the way enter the pool.

        A step asks what so many items, drawn at random, add if they leave, and so many others if they enter, and tries
        the best 1, 2, 4, ... of these moves at once.
        """
        reserve = self.problem.reserve[option] if self.problem.reserve and self.problem.model is not None else 0.0
        own, best = members, float(price[members].sum() - self.look(option, [members])[0])
        for _ in range(STEPS):
            held = np.zeros(len(price), np.bool_)
            held[own] = True
            leave, enter = self._moves(held, option, moves)
            if not len(leave):
                break
            cost = self._judged(self.problem.judge.exchanged(own.tolist(), option, leave, enter), reserve)
            changed = price[own].sum() + _added(price, leave, enter)
            order = np.argsort(cost - changed, kind="stable")
            order = order[(changed - cost)[order] > best]
            tries = [own for own in _taken(held, leave[order], enter[order]) if len(own)]
            if not tries:
                break
            worth = np.array([price[t].sum() for t in tries]) - self.look(option, tries)
            top = int(worth.argmax())
            gain = float(worth[top]) - best
            if gain > 0.0:
                own, best = tries[top], float(worth[top])
            if gain <= GAIN * float(price[own].sum()):
                break
        return best

    def _moves(self, held: Mask, option: int, most: int) -> tuple[Indices, Indices]:
        """Items that may leave or enter, each -1 where there is none, (P,)."""
        inside, outside = np.flatnonzero(held), np.flatnonzero(~held & self.problem.allowed[:, option])
        # replicas of one adapter do not meet on a GPU
        outside = outside[~np.isin(self.problem.item_adapter[outside], self.problem.item_adapter[inside])]
        leave, enter = self._some(inside if len(inside) > 1 else inside[:0], most), self._some(outside, most)
        return np.append(leave, np.full(len(enter), -1)), np.append(np.full(len(leave), -1), enter)

    def _some(self, items: Indices, most: int) -> Indices:
        return items if len(items) <= most else np.sort(self.rng.choice(items, most, replace=False))


def _added(price: Array, leave: Indices, enter: Indices) -> Array:
    """What moves add to the price of a column, (P,)."""
    return np.asarray(np.where(enter >= 0, price[enter], 0.0) - np.where(leave >= 0, price[leave], 0.0))


def _taken(held: Mask, leave: Indices, enter: Indices) -> Iterable[Indices]:
    """The columns after the first 1, 2, 4, ... of some moves."""
    size = 1
    while len(leave):
        now = held.copy()
        now[leave[:size][leave[:size] >= 0]] = False
        now[enter[:size][enter[:size] >= 0]] = True
        yield np.flatnonzero(now)
        if size >= len(leave):
            return
        size *= 2
