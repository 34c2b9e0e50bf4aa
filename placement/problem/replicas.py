"""Adapters too hot for one GPU become replicas; base-model traffic is spread in small shares.

Splitting is decided before solving, so a bound covers the splits made here and no others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import pinned_to_one
from surrogates.model.planning import OptionModel, PlanningModel, Polyhedron
from twin.errors import InfeasibleError
from twin.wording import rounded_down
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]

#: Most replicas of one adapter.
MOST_REPLICAS = 64
#: A share of base-model traffic fills at most one part in so many of a GPU.
BASE_PARTS = 4
#: An adapter that is so far inside the facets fits, whatever they err by.
CLEARLY = 0.5


@dataclass(frozen=True, slots=True)
class Items:
    """What is placed: adapters, or equal shares of them. N items.

    Args:
        adapters: with their share of the rate, length N.
        item_adapter: index of the workload's adapter, (N,).
        item_share: share of its traffic, (N,).
        phi: features, (N, F).
    """

    adapters: tuple[Adapter, ...]
    item_adapter: NDArray[np.int64]
    item_share: Array
    phi: Array


def compatible(adapter: Adapter, option: OptionModel) -> bool:
    """Whether an adapter may be loaded under a setting: its rank fits."""
    return adapter.rank <= option.setting.max_lora_rank


def load_violation(option: OptionModel, phi: Array) -> Array:
    """Largest violation of the rules that splitting can mend, (P,).

    Rows without a constant ("at most so many tokens a request") speak of the mix on a GPU, not of how much load it
    carries: an adapter that breaks one alone may be fine among others, and half of it breaks it just as well.
    """
    limits = option.hull.g < 0
    return np.maximum(
        option.feasible.violation(phi), Polyhedron(option.hull.G[limits], option.hull.g[limits]).violation(phi)
    )


@dataclass(frozen=True, slots=True)
class Alone:
    """How far adapters that have a GPU to themselves are from what is promised healthy; <= 0 = healthy.

    Args:
        margin: share of a GPU that is kept free; None = the model's own.
    """

    planning_model: PlanningModel
    options: Sequence[OptionModel]
    margin: float | None = None

    def violations(self, adapters: Sequence[Adapter], options: Sequence[int]) -> Array:
        """Of each adapter under each option, (n, len(options)).

        Where the planning model has better than pieces, it is asked for those that do not clearly fit by the pieces.
        """
        phi = self.planning_model.features(adapters)
        found = np.stack([load_violation(self.options[o], phi) for o in options], axis=1)
        exact = getattr(self.planning_model, "columns", None)
        doubtful = np.flatnonzero(found.min(axis=1) > -CLEARLY)
        if exact is None or not len(doubtful):
            return found
        settings = tuple(self.options[o].setting for o in options)
        model = exact([adapters[n] for n in doubtful.tolist()], settings, self.margin)
        if model is None:
            return found
        groups = [[k] for k in range(len(doubtful))]
        for column in range(len(options)):
            found[doubtful, column] = model.of(groups, [column] * len(groups)).violation
        return found

    def fewest(self, adapter: Adapter, options: Sequence[int], most: int) -> int | None:
        """Smallest m such that one of m equal shares is healthy alone under some option; None up to `most`."""
        if not len(options):
            return None
        healthy = (self.violations([adapter.scaled(1 / m) for m in range(1, most + 1)], options) <= 0).any(axis=1)
        return int(np.argmax(healthy)) + 1 if healthy.any() else None

    def largest_rate(self, adapter: Adapter, options: Sequence[int]) -> float:
        """Largest rate at which the adapter alone is healthy on one GPU, req/s, to 1 %; 0 if none in reach."""
        factors = np.geomspace(1e-6, 1.0, 1401)
        healthy = (self.violations([adapter.scaled(float(f)) for f in factors], options) <= 0).any(axis=1)
        return float(factors[np.flatnonzero(healthy)[-1]]) * adapter.rate_req_per_s if healthy.any() else 0.0


def split_hot(
    adapters: Sequence[Adapter],
    alone: Alone,
    allowed: NDArray[np.bool_],
    *,
    gpu_types: Sequence[str] = (),
    most_replicas: int = MOST_REPLICAS,
) -> Items:
    """Splits each adapter into the fewest equal shares of which one alone is feasible under some allowed option.

    An adapter that is pinned to a single GPU stays whole; one pinned to a GPU type is split among GPUs of that type.

    Base-model traffic is split further, until a share fills at most a quarter of a GPU, but not into more shares than
    the GPUs that the workload needs in any case: shares must sit on different GPUs.

    Args:
        allowed: adapter n may run under option o, (n, O).
        gpu_types: names of GPU types; other pins name single GPUs.
        most_replicas: limit of the search.

    Raises:
        InfeasibleError: an adapter cannot be served, not even split.
    """
    planning_model, options = alone.planning_model, alone.options
    phi = planning_model.features(adapters)
    fits = ((alone.violations(adapters, range(len(options))) <= 0) & allowed).any(axis=1)
    shares = np.ones(len(adapters), dtype=int)
    for n in np.flatnonzero(~fits).tolist():
        usable = np.flatnonzero(allowed[n]).tolist()
        found = alone.fewest(adapters[n], usable, most_replicas)
        if found is None:  # the margin is a matter of caution, not of what is possible
            found = replace(alone, margin=0.0).fewest(adapters[n], usable, most_replicas)
        if found is None or pinned_to_one(adapters[n], gpu_types):
            raise _unservable(adapters[n], alone, allowed[n], found, most_replicas)
        shares[n] = found
    gpus = _gpus_needed(phi, options, allowed)
    for n, adapter in enumerate(adapters):
        if adapter.rank == 0 and not pinned_to_one(adapter, gpu_types):
            usable = np.flatnonzero(allowed[n]).tolist()
            small = alone.fewest(adapter.scaled(BASE_PARTS), usable, most_replicas * BASE_PARTS)
            useful = most_replicas if small is None else small
            shares[n] = max(int(shares[n]), min(useful, gpus, most_replicas))
    items = [a if m == 1 else a.scaled(1 / m) for a, m in zip(adapters, shares.tolist(), strict=True) for _ in range(m)]
    return Items(
        adapters=tuple(items),
        item_adapter=np.repeat(np.arange(len(adapters)), shares),
        item_share=np.repeat(1.0 / shares, shares),
        phi=phi if (shares == 1).all() else planning_model.features(items),
    )


def _gpus_needed(phi: Array, options: Sequence[OptionModel], allowed: NDArray[np.bool_]) -> int:
    """About the GPUs that the whole workload needs if it were divisible: the best single setting, slightly low."""
    total = phi.sum(axis=0)
    need = []
    for o, option in enumerate(options):
        if allowed[:, o].all():
            G = np.vstack([option.feasible.G, option.hull.G])
            room = -np.concatenate([option.feasible.g, option.hull.g])
            need.append(float(((G @ total)[room > 0] / room[room > 0]).max(initial=0.0)))
    return max(1, math.ceil(0.9 * min(need))) if need else 1


def _unservable(
    adapter: Adapter, alone: Alone, allowed: NDArray[np.bool_], replicas: int | None, most: int
) -> InfeasibleError:
    """Names the adapter, the constraint and the smallest change that helps."""
    options = alone.options
    name = repr(adapter.adapter_id)
    if not allowed.any():
        largest = max(o.setting.max_lora_rank for o in options)
        return InfeasibleError(
            f"adapter {name} of rank {adapter.rank} fits no engine setting: the largest max_lora_rank is {largest}",
            where="engine.max_lora_rank, after the settings that do not fit into GPU memory were left out",
            remedy=f"allow a setting with max_lora_rank >= {adapter.rank} (fewer max_loras make room for it), "
            "or leave the adapter out",
        )
    rate = f"{adapter.rate_req_per_s:g} req/s"
    if replicas is not None:
        return InfeasibleError(
            f"adapter {name} at {rate} is too much for one GPU, and is pinned to {adapter.pinned_gpu!r}",
            where="pinned_gpu",
            remedy=f"remove the pin or pin it to a GPU type, so that it can be split into {replicas} replicas, or keep "
            f"it at {rounded_down(adapter.rate_req_per_s / replicas):g} req/s at most",
        )
    usable = np.flatnonzero(allowed).tolist()
    least = int(alone.violations([adapter.scaled(1 / most)], usable)[0].argmin())
    best, rule = options[usable[least]], "feasibility (throughput, latency or memory)"
    served = alone.largest_rate(adapter, usable)
    if not served:
        return InfeasibleError(
            f"adapter {name} of rank {adapter.rank} cannot be served at any rate: {rule} is violated under every "
            f"setting (least under {best.setting.label})",
            where="constraint, engine",
            remedy="allow other settings (engine.max_loras, engine.max_lora_rank), or leave the adapter out",
        )
    total = rounded_down(most * served)
    return InfeasibleError(
        f"adapter {name} at {rate} is too much for {most} GPUs, the most replicas of one adapter: {rule} is "
        f"violated under every setting (least under {best.setting.label})",
        where="rate_req_per_s",
        remedy=f"lower its rate to {total:g} req/s, or give parts of its traffic ids of their own",
    )
