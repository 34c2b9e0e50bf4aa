"""The placement problem and its answer, free of any solver."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from surrogates.model.columns import ColumnModel, Columns, LinearColumns, reserved
from surrogates.model.planning import HingeLoad, OptionModel
from twin.server.column import Column
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]
Aggregate = Literal["sum", "max"]


def pinned_to_one(adapter: Adapter, gpu_types: Collection[str]) -> bool:
    """Whether an adapter is pinned to a single GPU. A pin that names a GPU type only says which settings it may use."""
    return adapter.pinned_gpu is not None and adapter.pinned_gpu not in gpu_types


@dataclass(frozen=True, slots=True)
class ObjectiveContext:
    """Totals of the workload that turn loads into means.

    Args:
        total_rate_req_per_s: of all adapters.
        total_output_tokens_per_s: of all adapters.
        price: price of one GPU of each type name.
    """

    total_rate_req_per_s: float
    total_output_tokens_per_s: float
    price: dict[str, float]


class Term(Protocol):
    """One term of an objective, always minimised. See `placement.problem.objectives`."""

    @property
    def name(self) -> str: ...

    @property
    def scale(self) -> float: ...

    @property
    def weight(self) -> float: ...

    @property
    def aggregate(self) -> Aggregate: ...

    @property
    def unit(self) -> str: ...

    def cost(self, columns: Columns, context: ObjectiveContext) -> Array:
        """Cost of each of P columns, natural units, shape (P,)."""
        ...

    # A term may have `convex(option, context) -> HingeLoad | None`: the same cost of the linear pieces' features.


def convex_of(term: Term, option: OptionModel, context: ObjectiveContext) -> HingeLoad | None:
    """The convex load of a term; None where it offers none."""
    convex = getattr(term, "convex", None)
    return None if convex is None else convex(option, context)


@dataclass(frozen=True, slots=True)
class PlacementProblem:
    """Which item goes on which GPU under which option.

    An *item* is an adapter, or one replica of an adapter that is too hot for a single GPU. Arrays: N items,
    O options (engine settings), F features.

    Args:
        items: the adapters or shares of adapters to place, rates already split.
        item_adapter: index of the workload's adapter behind each item, (N,).
        item_share: share of that adapter's traffic, (N,), sums to 1 per adapter.
        phi: features of the items, (N, F).
        options: linear pieces of each setting: what linear programs compute with.
        allowed: item i may run under option o, (N, O).
        option_type: GPU type index of each option, (O,).
        gpu_types: names of the GPU types.
        stock: GPUs of each type that may be used, (T,); a large number = as many as needed.
        max_gpus: most GPUs in total, or None.
        terms: objective = sum of weight * value / scale; each value aggregated over GPUs.
        context: totals for the terms.
        banned: columns refuted by the twin: (option index, item indices); no GPU may hold a superset.
        model: the planning model that placements are judged by; None = the linear pieces themselves.
        below: pieces on the optimistic side of the model, for bounds; () = the pieces are the model.
        reserve: more of the load than the model's own margin that stays free under each option, (O,), () = none; less
            where negative.
        trusted: columns that the twin accepted: (option index, item indices); healthy whatever the model says.
    """

    items: tuple[Adapter, ...]
    item_adapter: NDArray[np.int64]
    item_share: Array
    phi: Array
    options: tuple[OptionModel, ...]
    allowed: NDArray[np.bool_]
    option_type: NDArray[np.int64]
    gpu_types: tuple[str, ...]
    stock: NDArray[np.int64]
    max_gpus: int | None
    terms: tuple[Term, ...]
    context: ObjectiveContext
    banned: tuple[tuple[int, frozenset[int]], ...] = ()
    model: ColumnModel | None = None
    below: tuple[OptionModel, ...] = ()
    reserve: tuple[float, ...] = ()
    trusted: frozenset[tuple[int, frozenset[int]]] = frozenset()

    @property
    def judge(self) -> ColumnModel:
        """What placements are judged by."""
        return LinearColumns(self.items, self.phi, self.options) if self.model is None else self.model

    def columns_of(self, groups: Sequence[Sequence[int]], options: Sequence[int]) -> Columns:
        """P columns as the planning model sees them, with what is kept in reserve."""
        found = self.judge.of(groups, options)
        if self.model is not None and self.reserve:
            found = reserved(found, np.array(self.reserve)[np.asarray(options, np.int64)])
        return self.with_trust(found, groups, options)

    def with_trust(self, columns: Columns, groups: Sequence[Sequence[int]], options: Sequence[int]) -> Columns:
        """The columns, those that the twin accepted being healthy."""
        if not self.trusted:
            return columns
        known = [(o, frozenset(g)) in self.trusted for g, o in zip(groups, options, strict=True)]
        return replace(columns, violation=np.where(known, np.minimum(columns.violation, 0.0), columns.violation))

    @property
    def replica_groups(self) -> list[list[int]]:
        """Items that are replicas of one adapter: they must sit on different GPUs."""
        groups: dict[int, list[int]] = {}
        for item, adapter in enumerate(self.item_adapter.tolist()):
            groups.setdefault(adapter, []).append(item)
        return [g for g in groups.values() if len(g) > 1]

    @property
    def pin_of(self) -> NDArray[np.int64]:
        """Number of the single GPU that each item is pinned to, -1 = none, (N,).

        Items with one number share a GPU, items with different numbers do not; see `pinned_to_one`.
        """
        names: dict[str, int] = {}
        pins = [
            names.setdefault(str(a.pinned_gpu), len(names)) if pinned_to_one(a, self.gpu_types) else -1
            for a in self.items
        ]
        return np.array(pins, dtype=np.int64)

    def convex_cost(self, option: int) -> HingeLoad | None:
        """weight/scale-weighted sum of the SUM terms of one option as a convex load; None if a term has none."""
        from surrogates.model.planning import add_loads

        parts = []
        for term in self.terms:
            load = convex_of(term, self.options[option], self.context) if term.aggregate == "sum" else None
            if load is None:
                return None
            parts.append(load.scaled(term.weight / term.scale))
        return add_loads(parts)


@dataclass(frozen=True, slots=True)
class GpuAssignment:
    """One GPU: an option and the items on it."""

    option: int
    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """A list of GPUs; every item sits on exactly one."""

    gpus: tuple[GpuAssignment, ...]

    def features(self, problem: PlacementProblem) -> Array:
        """Summed features of each GPU, (G, F)."""
        return np.stack([problem.phi[list(g.items)].sum(axis=0) for g in self.gpus])

    def columns(self, problem: PlacementProblem) -> list[Column]:
        return [Column(tuple(problem.items[i] for i in g.items), problem.options[g.option].setting) for g in self.gpus]


def evaluate(problem: PlacementProblem, placement: Placement) -> tuple[float, dict[str, float]]:
    """Objective and natural value of each term under the planning model."""
    return objective_of(problem, problem.columns_of(*_as_groups(placement)))


def objective_of(problem: PlacementProblem, columns: Columns) -> tuple[float, dict[str, float]]:
    """Objective and natural value of each term of the columns of a placement, whoever says what they are like."""
    values: dict[str, float] = {}
    total = 0.0
    for term in problem.terms:
        costs = term.cost(columns, problem.context)
        values[term.name] = float(costs.sum() if term.aggregate == "sum" else costs.max())
        total += term.weight * values[term.name] / term.scale
    return total, values


def _as_groups(placement: Placement) -> tuple[list[tuple[int, ...]], list[int]]:
    return [g.items for g in placement.gpus], [g.option for g in placement.gpus]


def violations(problem: PlacementProblem, placement: Placement, tolerance: float = 1e-6) -> list[str]:
    """Every rule that a placement breaks, in words; empty = feasible under the planning model."""
    found: list[str] = []
    seen = np.zeros(len(problem.items), dtype=int)
    excesses = problem.columns_of(*_as_groups(placement)).violation.tolist()
    for k, gpu in enumerate(placement.gpus):
        option = problem.options[gpu.option]
        for i in gpu.items:
            seen[i] += 1
            if not problem.allowed[i, gpu.option]:
                found.append(f"GPU {k}: {problem.items[i].adapter_id!r} is not allowed under {option.setting.label}")
        if excesses[k] > tolerance:
            found.append(f"GPU {k}: planning model violated by {excesses[k]:.3g} under {option.setting.label}")
        if sum(problem.items[i].rank > 0 for i in gpu.items) > option.max_adapters:
            found.append(f"GPU {k}: more than {option.max_adapters} adapters")
        adapters = problem.item_adapter[list(gpu.items)]
        if len(set(adapters.tolist())) < len(adapters):
            found.append(f"GPU {k}: two replicas of one adapter")
        found += [
            f"GPU {k}: contains a column that the twin refuted"
            for option_index, items in problem.banned
            if option_index == gpu.option and items <= set(gpu.items)
        ]
    found += _pin_violations(problem, placement)
    found += [f"{problem.items[i].adapter_id!r} is placed {seen[i]} times" for i in np.flatnonzero(seen != 1)]
    used = np.bincount([problem.option_type[g.option] for g in placement.gpus], minlength=len(problem.stock))
    for t in np.flatnonzero(used > problem.stock):
        found.append(f"{used[t]} GPUs of type {problem.gpu_types[t]} used, {problem.stock[t]} exist")
    if problem.max_gpus is not None and len(placement.gpus) > problem.max_gpus:
        found.append(f"{len(placement.gpus)} GPUs used, at most {problem.max_gpus} allowed")
    return found


def _pin_violations(problem: PlacementProblem, placement: Placement) -> list[str]:
    """Items pinned to one GPU sit together, items pinned to different GPUs apart."""
    pins = problem.pin_of
    found, hosts = [], dict[int, int]()
    for k, gpu in enumerate(placement.gpus):
        here = sorted({int(pins[i]) for i in gpu.items if pins[i] >= 0})
        if len(here) > 1:
            found.append(f"GPU {k}: adapters pinned to {len(here)} different GPUs")
        for pin in here:
            if hosts.setdefault(pin, k) != k:
                name = problem.items[int((pins == pin).argmax())].pinned_gpu
                found.append(f"GPUs {hosts[pin]} and {k}: adapters pinned to one GPU, {name!r}")
    return found
