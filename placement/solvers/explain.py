"""Why no placement exists, and the smallest change that helps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from placement.problem.objectives import GpuCount
from placement.problem.problem import PlacementProblem
from placement.problem.replicas import load_violation
from twin.errors import InfeasibleError

_TIME_LIMIT_S = 20.0


def infeasible_error(problem: PlacementProblem) -> InfeasibleError:
    """The error to raise for a problem that has been proven infeasible.

    Checks, in this order: more replicas or pinned GPU names than GPUs, pinned adapters that do not fit together, more
    adapters than the GPUs may hold, and too few GPUs for the traffic (certified minimum, and the share of the workload
    that the allowed GPUs carry).
    """
    limit, name = _gpu_limit(problem)
    return (
        _replicas(problem, limit, name)
        or _pin_names(problem, limit, name)
        or _pins(problem)
        or _adapters(problem, limit, name)
        or _too_few_gpus(problem, limit, name)
    )


def miscount(problem: PlacementProblem) -> InfeasibleError | None:
    """What counting alone proves, where a solver found nothing and proved nothing; None if it proves nothing."""
    limit, name = _gpu_limit(problem)
    return _replicas(problem, limit, name) or _pin_names(problem, limit, name) or _adapters(problem, limit, name)


def _gpu_limit(problem: PlacementProblem) -> tuple[int, str]:
    """GPUs that may be used at most, and what says so."""
    stock = int(min(problem.stock.sum(), 10**9))
    if problem.max_gpus is not None and problem.max_gpus <= stock:
        return problem.max_gpus, "max_gpus"
    return stock, "hardware.count"


def _replicas(problem: PlacementProblem, limit: int, name: str) -> InfeasibleError | None:
    groups = problem.replica_groups
    most = max(groups, key=len, default=[])
    if len(most) <= limit:
        return None
    adapter = problem.items[most[0]]
    rate = adapter.rate_req_per_s * len(most)
    return InfeasibleError(
        f"adapter {adapter.adapter_id!r} at {rate:g} req/s needs {len(most)} replicas on different GPUs; "
        f"{name} allows {limit}",
        where=name,
        remedy=f"raise {name} to at least {len(most)}, or lower the adapter's rate to about "
        f"{adapter.rate_req_per_s * limit:.3g} req/s",
    )


def _pin_names(problem: PlacementProblem, limit: int, name: str) -> InfeasibleError | None:
    """Adapters pinned to more different GPUs than there are."""
    names = int(problem.pin_of.max()) + 1
    if names <= limit:
        return None
    return InfeasibleError(
        f"adapters are pinned to {names} different GPUs; {name} allows {limit}",
        where="pinned_gpu",
        remedy=f"raise {name} to {names}, or pin to fewer GPUs",
    )


def _pins(problem: PlacementProblem) -> InfeasibleError | None:
    pins = problem.pin_of
    groups = {
        str(problem.items[np.argmax(pins == p)].pinned_gpu): np.flatnonzero(pins == p).tolist()
        for p in range(pins.max() + 1)
    }
    for gpu, items in groups.items():
        together = problem.phi[items].sum(axis=0)[None]
        usable = np.flatnonzero(problem.allowed[items].all(axis=0))
        # Only rules of load: what else is on the GPU can mend those that speak of the mix of requests.
        excess = [float(load_violation(problem.options[o], together)[0]) for o in usable.tolist()]
        if not excess or min(excess) > 0:
            hottest = max(items, key=lambda i: problem.items[i].rate_req_per_s)
            return InfeasibleError(
                f"the {len(items)} adapters pinned to {gpu!r} do not fit on one GPU under any setting",
                where="pinned_gpu",
                remedy=f"unpin some of them, first {problem.items[hottest].adapter_id!r} with "
                f"{problem.items[hottest].rate_req_per_s:g} req/s",
            )
    return None


def _adapters(problem: PlacementProblem, limit: int, name: str) -> InfeasibleError | None:
    """More adapters than all allowed GPUs may hold, however little traffic they have."""
    adapters = sum(item.rank > 0 for item in problem.items)
    most = max(option.max_adapters for option in problem.options)
    if adapters <= limit * most:
        return None
    needed = math.ceil(adapters / most)
    split = " and replicas" if problem.replica_groups else ""
    return InfeasibleError(
        f"{adapters} adapters{split} need at least {needed} GPUs, because one holds at most {most}; {name} "
        f"allows {limit}",
        where=name,
        remedy=f"raise {name} to {needed} or more, or leave out {adapters - limit * most} adapters",
    )


def _too_few_gpus(problem: PlacementProblem, limit: int, name: str) -> InfeasibleError:
    from placement.solvers.aggregate import Aggregate  # solvers are heavy, and errors are rare

    price = dict.fromkeys(problem.context.price, 1.0)
    counted = replace(problem, terms=(GpuCount(),), context=replace(problem.context, price=price), banned=())
    share = Aggregate(counted).carried_share(_TIME_LIMIT_S)[0]
    carries = (
        f"carry at most {100 * share:.3g} % of the traffic" if math.isfinite(share) else "cannot carry the traffic"
    )
    unlimited = replace(counted, max_gpus=None, stock=np.full_like(problem.stock, max(len(problem.items), 1)))
    aggregate = Aggregate(unlimited)
    aggregate.prove(_TIME_LIMIT_S)
    if aggregate.bound is None:
        return InfeasibleError(
            f"the workload's rules contradict each other: the {limit} allowed GPUs {carries}",
            where="constraint, engine",
            remedy="allow more engine settings (engine.max_loras, engine.max_lora_rank)",
        )
    needed = math.ceil(aggregate.bound - 1e-6)
    if needed > limit:
        return InfeasibleError(
            f"the workload needs at least {needed} GPUs (proven under the planning model); {name} allows {limit}, "
            f"which {carries}",
            where=name,
            remedy=f"raise {name} to {needed} or more, or serve less traffic",
        )
    stock = ", ".join(f"{s} x {t}" for s, t in zip(problem.stock.tolist(), problem.gpu_types, strict=True))
    return InfeasibleError(
        f"the allowed GPUs ({stock}; at most {limit} in all) {carries}, although {needed} GPUs of the best type "
        "might suffice",
        where=name,
        remedy="allow more GPUs of the type with the most capacity, or serve less traffic",
    )
