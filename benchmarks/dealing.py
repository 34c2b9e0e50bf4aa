"""A fleet that adapters are dealt to, one after the other, obeying pins and replicas: what simple placements share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import GpuAssignment, Placement, PlacementProblem

Array = NDArray[np.float64]
#: Where the settings of a dealt fleet come from.
Settings = Literal["operator", "template", "model"]


@dataclass(frozen=True, slots=True)
class Unit:
    """Items that stay together: a single one, or all that are pinned to one GPU (`pin`, -1 = none)."""

    items: tuple[int, ...]
    pin: int


class Dealing:
    """Which items are on which GPU so far. N items, G GPUs.

    Args:
        types: GPU type index of every GPU, G values.
    """

    def __init__(self, problem: PlacementProblem, types: Sequence[int]) -> None:
        self.problem = problem
        self.types = tuple(types)
        self.members: list[list[int]] = [[] for _ in self.types]
        pins = problem.pin_of
        self._pins = [-1] * len(self.types)
        self._usable = np.array(
            [problem.allowed[:, problem.option_type == t].any(axis=1) for t in range(len(problem.gpu_types))]
        )
        together = [Unit(tuple(np.flatnonzero(pins == p).tolist()), int(p)) for p in np.unique(pins[pins >= 0])]
        self.units = (*together, *(Unit((i,), -1) for i in np.flatnonzero(pins < 0).tolist()))

    @property
    def gpus(self) -> int:
        return len(self.types)

    def sums(self, of_item: Array) -> Array:
        """Sum over each GPU's items of a figure of items (N,), (G,)."""
        return np.array([float(of_item[items].sum()) if items else 0.0 for items in self.members])

    def open_to(self, unit: Unit) -> list[int]:
        """GPUs that may take a unit: of a fitting type, without replicas of the same adapters and other pins."""
        owners = {int(self.problem.item_adapter[i]) for i in unit.items}
        return [
            g
            for g, t in enumerate(self.types)
            if all(self._usable[t, i] for i in unit.items)
            and (unit.pin < 0 or self._pins[g] in (-1, unit.pin))
            and owners.isdisjoint(int(self.problem.item_adapter[i]) for i in self.members[g])
        ]

    def put(self, unit: Unit, gpu: int) -> None:
        self.members[gpu] += unit.items
        if unit.pin >= 0:
            self._pins[gpu] = unit.pin

    def deal(self, units: Sequence[Unit], choose: Callable[[Unit, list[int]], int | None]) -> bool:
        """Gives every unit to the GPU that `choose(unit, open GPUs)` names; False as soon as one finds none."""
        for unit in units:
            candidates = self.open_to(unit)
            gpu = choose(unit, candidates) if candidates else None
            if gpu is None:
                return False
            self.put(unit, gpu)
        return True

    def by_falling(self, of_item: Array) -> list[Unit]:
        """Units, the largest sum of a figure of items (N,) first; pinned ones before all."""
        return sorted(self.units, key=lambda u: (u.pin < 0, -float(of_item[list(u.items)].sum())))

    def placement(self, settings: Settings = "operator") -> Placement | None:
        """GPUs in use, each with its setting; None where no setting fits its items.

        Args:
            settings: `operator` (`operator_option`); `template`, one for all GPUs of a type, the one of an operator for
                a GPU with all items; `model`, the one with most room by the planning model, which no operator has.
        """
        gpus = []
        for items, gpu_type in zip(self.members, self.types, strict=True):
            if not items:
                continue
            if settings == "model":
                option = roomiest_option(self.problem, items, gpu_type)
            else:
                everything = range(len(self.problem.items))
                option = operator_option(self.problem, everything if settings == "template" else items, gpu_type)
            if option is None:
                return None
            gpus.append(GpuAssignment(option, tuple(sorted(items))))
        return Placement(tuple(gpus))


def operator_option(problem: PlacementProblem, items: Sequence[int], gpu_type: int) -> int | None:
    """The option by the rule of thumb: the least `max_lora_rank` for the members' largest rank, then the least
    `max_loras` that holds all of them, or the largest that starts where none does."""
    fitting = np.flatnonzero((problem.option_type == gpu_type) & problem.allowed[list(items)].all(axis=0)).tolist()
    if not fitting:
        return None
    settings = {o: problem.options[o].setting for o in fitting}
    rank = min(s.max_lora_rank for s in settings.values())
    slots = {o: s.max_loras for o, s in settings.items() if s.max_lora_rank == rank}
    loras = sum(problem.items[i].rank > 0 for i in items)
    return min(slots, key=lambda o: (slots[o] < loras, slots[o] if slots[o] >= loras else -slots[o]))


def roomiest_option(problem: PlacementProblem, items: Sequence[int], gpu_type: int) -> int | None:
    """The option with the most room under the planning model."""
    fitting = np.flatnonzero((problem.option_type == gpu_type) & problem.allowed[list(items)].all(axis=0)).tolist()
    phi = problem.phi[list(items)].sum(axis=0)[None]
    return min(fitting, key=lambda o: float(problem.options[o].violation(phi)[0]), default=None)


def token_rates(problem: PlacementProblem) -> Array:
    """Tokens per second of each item, prompts and outputs, (N,)."""
    return np.array([a.rate_req_per_s * (a.prompt_tokens.mean + a.output_tokens.mean) for a in problem.items])
