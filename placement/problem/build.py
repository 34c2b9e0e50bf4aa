"""From a workload to a `PlacementProblem`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import ObjectiveContext, PlacementProblem, Term, pinned_to_one
from placement.problem.replicas import MOST_REPLICAS, Alone, compatible, split_hot
from surrogates.model.planning import PlanningModel
from twin.errors import InputError
from twin.server.hardware import GpuType
from twin.server.settings import EngineSetting
from twin.workload.workload import Workload

#: Stock of a GPU type without a count.
UNLIMITED = 10**6


def build_problem(
    workload: Workload,
    planning_model: PlanningModel,
    settings: Sequence[EngineSetting],
    gpu_types: Sequence[GpuType],
    terms: Sequence[Term],
    *,
    margin: float | None = None,
    max_gpus: int | None = None,
    most_replicas: int = MOST_REPLICAS,
    keepable: NDArray[np.bool_] | None = None,
) -> PlacementProblem:
    """Evaluates features and facets, masks what is incompatible and splits adapters that are too hot.

    An adapter may run under a setting if its rank is at most `max_lora_rank` and, where `pinned_gpu` names a GPU
    type, the setting is for that type. Other names in `pinned_gpu` are names of single GPUs: adapters with one name
    share a GPU, and different names mean different GPUs.

    Args:
        settings: only those that fit into memory (`twin.server.memory.memory_error`).
        gpu_types: of the settings; `count` limits the stock, `price_per_hour` is the price.
        margin: kept from the outer facets, in the planning model's own units; None = the model's own margin.
        max_gpus: most GPUs in total.
        most_replicas: most shares of one adapter.
        keepable: adapter n may run under setting s as far as its promises go, (n, S); None = all may.

    Raises:
        InputError: nothing to choose from, or settings for an unknown GPU type.
        InfeasibleError: an adapter that no GPU can serve.
    """
    names = tuple(t.name for t in gpu_types)
    if not settings:
        raise InputError("no engine setting is left to choose from", where="engine", remedy="allow more settings")
    unknown = [s for s in settings if s.gpu_type not in names]
    if unknown:
        raise InputError(
            f"setting {unknown[0].label} is for GPU type {unknown[0].gpu_type!r}",
            where="hardware",
            remedy=f"the GPU types are: {', '.join(names)}",
        )
    if max_gpus is not None and max_gpus < 1:
        raise InputError(
            f"max_gpus {max_gpus!r} is not at least 1", where="max_gpus", remedy="leave it out for no limit"
        )
    options = tuple(planning_model.option(s) for s in settings)
    if margin is not None:
        options = tuple(replace(o, feasible=o.outer.shifted(margin)) for o in options)
    allowed = np.array(
        [
            [
                compatible(a, o) and (a.pinned_gpu in (None, s.gpu_type) or pinned_to_one(a, names))
                for o, s in zip(options, settings, strict=True)
            ]
            for a in workload.adapters
        ]
    )
    if keepable is not None:
        allowed &= keepable
    alone = Alone(planning_model, options, margin)
    items = split_hot(workload.adapters, alone, allowed, gpu_types=names, most_replicas=most_replicas)
    exact = getattr(planning_model, "columns", None)
    model = None if exact is None else exact(items.adapters, tuple(settings), margin)
    below = None if model is None else getattr(planning_model, "below", None)
    return PlacementProblem(
        model=model,
        below=() if below is None else tuple(below(s) for s in settings),
        items=items.adapters,
        item_adapter=items.item_adapter,
        item_share=items.item_share,
        phi=items.phi,
        options=options,
        allowed=allowed[items.item_adapter],
        option_type=np.array([names.index(s.gpu_type) for s in settings]),
        gpu_types=names,
        stock=np.array([UNLIMITED if t.count is None else t.count for t in gpu_types]),
        max_gpus=max_gpus,
        terms=tuple(terms),
        context=ObjectiveContext(
            total_rate_req_per_s=workload.total_rate_req_per_s,
            total_output_tokens_per_s=workload.total_output_tokens_per_s,
            price={t.name: t.price_per_hour for t in gpu_types},
        ),
    )
