"""Several types of GPU: the planning model of each, as one of all.

The features of an adapter are those under every type side by side, and an option's facets and loads read those of its
own type: what is additive for one type is so for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from surrogates.model.columns import Columns
from surrogates.model.planning import HingeLoad, OptionModel, Polyhedron
from surrogates.pieces.exact import Level, SteadyColumns, in_order
from surrogates.pieces.features import FEATURE_NAMES
from surrogates.pieces.model import PiecesModel
from surrogates.residual.weights import Residual
from twin.errors import InputError
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class FleetModel:
    """Implements `surrogates.model.planning.PlanningModel` for several types of GPU.

    Args:
        models: of each type name, of one workload and constraint.
    """

    models: Mapping[str, PiecesModel]

    #: Every promise of every adapter is followed.
    follows_promises = True

    @property
    def residual(self) -> Residual | None:
        """The learned correction, the same for all types."""
        return next(iter(self.models.values())).residual

    @property
    def bound_level(self) -> float | None:
        """As `PiecesModel.bound_level`; None if it is for one type."""
        levels = [m.bound_level for m in self.models.values()]
        return None if None in levels else min(level for level in levels if level is not None)

    def features(self, adapters: Sequence[Adapter]) -> Array:
        """Additive features, (N, T F): those under each type, one after the other."""
        return np.hstack([m.features(adapters) for m in self.models.values()])

    def option(self, setting: EngineSetting) -> OptionModel:
        """Facets and loads under one setting.

        Raises:
            InputError: no such type, or the server would not start.
        """
        return self._placed(setting, self._of(setting).option(setting))

    def below(self, setting: EngineSetting) -> OptionModel:
        """Facets and loads on the optimistic side of the model, for bounds."""
        return self._placed(setting, self._of(setting).below(setting))

    def columns(
        self, items: Sequence[Adapter], settings: tuple[EngineSetting, ...], margin: float | None = None
    ) -> FleetColumns | None:
        """The steady states themselves of columns of these items; None where one type has only its pieces.

        Args:
            margin: as for `PiecesModel.columns`.
        """
        judges = {name: m.columns(items, settings, margin) for name, m in self.models.items()}
        known = {name: judge for name, judge in judges.items() if judge is not None}
        return FleetColumns(settings, known) if len(known) == len(judges) else None

    def figures(self, columns: Sequence[Column]) -> list[dict[str, float]]:
        """As `PiecesModel.figures`, each column by its own type."""
        return [self._of(column.setting).figures([column])[0] for column in columns]

    def _of(self, setting: EngineSetting) -> PiecesModel:
        if setting.gpu_type not in self.models:
            raise InputError(
                f"no calibration for GPU type {setting.gpu_type!r}", remedy=f"choose one of: {', '.join(self.models)}"
            )
        return self.models[setting.gpu_type]

    def _placed(self, setting: EngineSetting, option: OptionModel) -> OptionModel:
        """An option of one type on the features of all."""
        size = len(FEATURE_NAMES)
        first = list(self.models).index(setting.gpu_type) * size

        def wide(array: Array) -> Array:
            found = np.zeros((*array.shape[:-1], len(self.models) * size))
            found[..., first : first + size] = array
            return found

        def polyhedron(p: Polyhedron) -> Polyhedron:
            return replace(p, G=wide(p.G))

        def load(h: HingeLoad) -> HingeLoad:
            return replace(h, W=wide(h.W), q=wide(h.q))

        return replace(
            option,
            feasible=polyhedron(option.feasible),
            outer=polyhedron(option.outer),
            hull=polyhedron(option.hull),
            requests_in_system=load(option.requests_in_system),
            requests_decoding=load(option.requests_decoding),
        )


@dataclass(frozen=True)
class FleetColumns:
    """Implements `surrogates.model.columns.ColumnModel` for several types of GPU.

    Args:
        settings: O, of all types. judges: of each type name, all with these settings.
    """

    settings: tuple[EngineSetting, ...]
    judges: Mapping[str, SteadyColumns]

    def of(self, groups: Sequence[Sequence[int]], options: Sequence[int]) -> Columns:
        places: dict[str, list[int]] = {}
        for p, o in enumerate(options):
            places.setdefault(self.settings[o].gpu_type, []).append(p)
        parts = [
            self.judges[name].of([groups[p] for p in own], [options[p] for p in own]) for name, own in places.items()
        ]
        return parts[0] if len(parts) == 1 else in_order(parts, [p for own in places.values() for p in own])

    def exchanged(self, members: Sequence[int], option: int, leave: Indices, enter: Indices) -> Columns:
        return self.judges[self.settings[option].gpu_type].exchanged(members, option, leave, enter)

    def without_margin(self) -> FleetColumns:
        """As `SteadyColumns.without_margin`, for every type."""
        return replace(self, judges={name: own.without_margin() for name, own in self.judges.items()})


Judge = SteadyColumns | FleetColumns


def levels_of(judge: Judge) -> dict[str, Level]:
    """The level of each type of GPU."""
    if isinstance(judge, SteadyColumns):
        return {judge.settings[0].gpu_type: judge.level}
    return {name: own.level for name, own in judge.judges.items()}


def with_levels(judge: Judge, levels: Mapping[str, Level]) -> Judge:
    """The same model at other levels, by type of GPU."""
    if isinstance(judge, SteadyColumns):
        return judge.with_level(levels[judge.settings[0].gpu_type])
    return replace(judge, judges={name: own.with_level(levels[name]) for name, own in judge.judges.items()})
