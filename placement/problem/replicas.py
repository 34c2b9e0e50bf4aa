"""Adapters too hot for one GPU become replicas; base-model traffic is spread in small shares.

Splitting is decided before solving, so a bound covers the splits made here and no others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def split_hot(
    adapters: Sequence[Adapter],
    planning_model: PlanningModel,
    options: Sequence[OptionModel],
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
    phi = planning_model.features(adapters)
    alone = np.stack([load_violation(option, phi) for option in options], axis=1)
    fits = ((alone <= 0) & allowed).any(axis=1)
    shares = np.ones(len(adapters), dtype=int)
    for n in np.flatnonzero(~fits).tolist():
        found = _fewest(adapters[n], planning_model, options, allowed[n], most_replicas)
        if found is None or pinned_to_one(adapters[n], gpu_types):
            raise _unservable(adapters[n], planning_model, options, allowed[n], found, most_replicas)
        shares[n] = found
    gpus = _gpus_needed(phi, options, allowed)
    for n, adapter in enumerate(adapters):
        if adapter.rank == 0 and not pinned_to_one(adapter, gpu_types):
            small = _fewest(adapter.scaled(BASE_PARTS), planning_model, options, allowed[n], most_replicas * BASE_PARTS)
            useful = most_replicas if small is None else small
            shares[n] = max(int(shares[n]), min(useful, gpus, most_replicas))
    items = [a if m == 1 else a.scaled(1 / m) for a, m in zip(adapters, shares.tolist(), strict=True) for _ in range(m)]
    return Items(
        adapters=tuple(items),
        item_adapter=np.repeat(np.arange(len(adapters)), shares),
        item_share=np.repeat(1.0 / shares, shares),
        phi=phi if (shares == 1).all() else planning_model.features(items),
    )


def _fewest(
    adapter: Adapter,
    planning_model: PlanningModel,
    options: Sequence[OptionModel],
    allowed: NDArray[np.bool_],
    most: int,
) -> int | None:
    """Smallest m such that one of m equal shares is feasible alone; None up to `most`."""
    usable = [o for o, ok in zip(options, allowed.tolist(), strict=True) if ok]
    if not usable:
        return None
    phi = planning_model.features([adapter.scaled(1 / m) for m in range(1, most + 1)])
    feasible = (np.stack([load_violation(o, phi) for o in usable]) <= 0).any(axis=0)
    return int(np.argmax(feasible)) + 1 if feasible.any() else None


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
    adapter: Adapter,
    planning_model: PlanningModel,
    options: Sequence[OptionModel],
    allowed: NDArray[np.bool_],
    replicas: int | None,
    most: int,
) -> InfeasibleError:
    """Names the adapter, the constraint and the smallest change that helps."""
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
    usable = [o for o, ok in zip(options, allowed.tolist(), strict=True) if ok]
    phi = planning_model.features([adapter.scaled(1 / most)])
    best = min(usable, key=lambda o: float(load_violation(o, phi)[0]))
    facet, hull = float(best.feasible.violation(phi)[0]), float(best.hull.violation(phi)[0])
    rule = "feasibility (throughput, latency or memory)" if facet >= hull else "trained range or slot safety"
    served = _largest_rate(adapter, planning_model, usable)
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


def _largest_rate(adapter: Adapter, planning_model: PlanningModel, options: Sequence[OptionModel]) -> float:
    """Largest rate at which the adapter alone is feasible on one GPU, req/s, to 1 %; 0 if none in reach."""
    factors = np.geomspace(1e-6, 1.0, 1401)
    phi = planning_model.features([adapter.scaled(float(f)) for f in factors])
    feasible = (np.stack([load_violation(o, phi) for o in options]) <= 0).any(axis=0)
    return float(factors[np.flatnonzero(feasible)[-1]]) * adapter.rate_req_per_s if feasible.any() else 0.0
