"""Which adapters of a workload one server gets: so many, a share of them, or named ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from twin.config.ranges import Range
from twin.config.schema import did_you_mean
from twin.errors import InputError
from twin.wording import counted, percent
from twin.workload.adapter import Adapter
from twin.workload.workload import Workload

How = Literal["first", "busiest", "even", "random"]


@dataclass(frozen=True, slots=True)
class Selection:
    """`adapters` in `conf/twin.yaml`.

    Args:
        take: how many; a number below 1 is a share of them; None = all.
        by: `first` in the workload's order, `busiest`, `even` (evenly through the list sorted by request rate, so
            that the mix stays what it was), or `random`.
        ids: instead of `take`, the adapters by name (entries of rank 0 too).
        base_model: share of the requests to the base model (rank 0); None = the share of the adapters' requests
            that were taken.
    """

    take: Annotated[float | None, Range(above=0, unit="adapters")] = None
    by: How = "even"
    ids: tuple[str | int, ...] | None = None
    base_model: Annotated[float | None, Range(0, 1)] = None

    def __post_init__(self) -> None:
        if self.take is not None and self.ids is not None:
            raise InputError(
                "adapters.take and adapters.ids are both given", where="adapters", remedy="choose by number or by name"
            )
        if self.take is not None and self.take > 1 and self.take != int(self.take):
            raise InputError(
                f"adapters.take = {self.take!r} is neither a whole number nor a share",
                where="adapters.take",
                remedy="give e.g. 100, or 0.25 for a quarter of the adapters",
            )

    @property
    def everything(self) -> bool:
        return self.take is None and self.ids is None and self.base_model is None


def select(workload: Workload, selection: Selection, *, seed: int) -> Workload:
    """The workload of one server; its notes say what was left out.

    Raises:
        InputError: more adapters than there are, an id that does not exist, or nothing left.
    """
    if selection.everything:
        return workload
    loras = [a for a in workload.adapters if a.rank > 0]
    if selection.ids is not None:
        chosen = _named(workload, [str(i) for i in selection.ids])
    elif selection.take is not None:
        chosen = _counted(loras, selection.take, selection.by, seed)
    else:
        chosen = {a.adapter_id for a in loras}
    kept_rate = math.fsum(a.rate_req_per_s for a in loras if a.adapter_id in chosen)
    all_rate = math.fsum(a.rate_req_per_s for a in loras)
    share = selection.base_model
    if share is None:
        # By name, only what was named is served.
        share = 0.0 if selection.ids is not None else kept_rate / all_rate if all_rate else 1.0
    adapters = []
    for adapter in workload.adapters:
        if adapter.adapter_id in chosen:
            adapters.append(adapter)
        elif adapter.rank == 0 and share > 0:
            adapters.append(adapter.scaled(share))
    if not adapters:
        raise InputError("the selection leaves no requests", where="adapters", remedy="take at least one adapter")
    taken = sum(a.rank > 0 for a in adapters)
    note = f"{taken} of {counted(len(loras), 'adapter')} taken"
    if all_rate:
        note += f", with {percent(kept_rate / all_rate)} of the adapters' requests"
    if any(a.rank == 0 for a in workload.adapters) and not any(
        a.rank == 0 and a.adapter_id in chosen for a in adapters
    ):
        note += f" and {percent(share)} of those to the base model"
    return replace(workload, adapters=tuple(adapters), notes=(*workload.notes, f"{note}."))


def _named(workload: Workload, ids: list[str]) -> set[str]:
    known = {a.adapter_id for a in workload.adapters}
    for name in ids:
        if name not in known:
            shown = ", ".join(a.adapter_id for a in workload.adapters[:5])
            raise InputError(
                f"adapter {name!r} is not in workload {workload.name!r}{did_you_mean(name, known)}",
                where="adapters.ids",
                remedy=f"its {counted(len(known), 'adapter')} are {shown}{', ...' if len(known) > 5 else ''}",
            )
    return set(ids)


def _counted(loras: list[Adapter], take: float, by: How, seed: int) -> set[str]:
    number = max(1, round(take * len(loras))) if take < 1 else int(take)
    if number > len(loras):
        raise InputError(
            f"adapters.take = {number} is more than the {counted(len(loras), 'adapter')} of the workload",
            where="adapters.take",
            remedy="take fewer, or make a larger workload (workload.n_adapters=...)",
        )
    if by == "first":
        return {a.adapter_id for a in loras[:number]}
    if by == "random":
        chosen = np.random.default_rng(seed).permutation(len(loras))[:number]
        return {loras[int(i)].adapter_id for i in chosen}
    ranked = sorted(loras, key=lambda a: -a.rate_req_per_s)
    if by == "busiest":
        return {a.adapter_id for a in ranked[:number]}
    # The middle of each of `number` equal parts.
    return {ranked[int((k + 0.5) * len(loras) / number)].adapter_id for k in range(number)}
