"""A margin chosen by the user in place of the planning model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from surrogates.model.planning import Array, OptionModel, PlanningModel
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter


@dataclass(frozen=True, slots=True)
class WithMargin:
    """A planning model whose facets keep `margin` from its outer facets, in the model's own units."""

    planning: PlanningModel
    margin: float

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.planning.feature_names

    def features(self, adapters: Sequence[Adapter]) -> Array:
        return self.planning.features(adapters)

    def option(self, setting: EngineSetting) -> OptionModel:
        option = self.planning.option(setting)
        return replace(option, feasible=option.outer.shifted(self.margin))
