"""`PiecesModel`: the physics of the workload at hand as linear pieces, for solvers that need them.

The pieces are made anew for every workload and setting, from columns of this very workload, in a tenth of a second
each. They know any GPU, model and setting that has a calibration, any number of adapters, and every promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as Folder
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from surrogates.model.planning import OptionModel, Polyhedron, affine_load
from surrogates.pieces.exact import SteadyColumns
from surrogates.pieces.features import FEATURE_NAMES, adapter_features, features_of_tables, kind_of
from surrogates.pieces.fit import fit_facets, fit_load, fit_load_below, over_promise, under_promise
from surrogates.pieces.played import Path, Player, path_of
from surrogates.pieces.rays import FRACTIONS, Correct, Rays, draw_rays, joined
from surrogates.residual.model import CorrectedModel, corrected
from surrogates.residual.weights import Residual, read_residual
from surrogates.steady_state.model import SteadyStateModel, steady_state_model
from twin.config.ranges import Range
from twin.errors import InputError
from twin.figures.health import Constraint
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.memory import memory_error
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter
from twin.workload.workload import Workload

Array = NDArray[np.float64]

#: Kinds of adapters that pieces are made from; of more, so many are drawn.
MOST_KINDS = 2000
#: Least margin: what pieces and physics err by where rays of the workload end.
LEAST_MARGIN = 0.05
#: Share of rays whose end the margin keeps outside.
COVERAGE = 0.95
#: Share of the columns drawn, all of them from a quarter of the largest load on, of which pieces for bounds lie on the
#: optimistic side. Lighter columns may cost less than these pieces say.
BELOW = 0.975
#: Adapters with more tokens per second enter rays in shares.
MOST_TOKENS_PER_S = 1500.0
#: Kinds of such adapters that are looked at alone.
MOST_HOT = 24
#: Weight of every feature where nothing is healthy.
NEVER = 1e6


@dataclass(frozen=True)
class PiecesModel:
    """Implements `surrogates.model.planning.PlanningModel` for one workload.

    Args:
        calibration: of the GPU type. adapters: of the workload. constraint: what is healthy.
        rays: columns from light to the boundary that each setting is fitted to.
        seed: of the rays.
        residual: the learned correction of the physics; None = the physics as it is.
        player: the twin, where it says how rays end and what is in the system; None = the steady state does.
    """

    calibration: Calibration
    adapters: tuple[Adapter, ...]
    constraint: Constraint
    rays: int = 32
    seed: int = 0
    residual: Residual | None = None
    player: Player | None = None
    _options: dict[EngineSetting, tuple[OptionModel, OptionModel]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _models: dict[tuple[int, int | None, bool], tuple[SteadyStateModel, Array]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        kinds: dict[Adapter, int] = {}
        hot: dict[Adapter, None] = {}
        for adapter in self.adapters:
            kind = kind_of(adapter)
            tokens = kind.rate_req_per_s * (kind.prompt_tokens.mean + kind.output_tokens.mean)
            # One that fills a GPU alone is placed in shares; rays are made of such, and of the whole at lower rates.
            shares = max(1, math.ceil(tokens / MOST_TOKENS_PER_S))
            kinds[kind.scaled(1 / shares)] = kinds.get(kind.scaled(1 / shares), 0) + shares
            if shares > 1 and len(hot) < MOST_HOT:
                hot[kind] = None
        chosen = list(kinds)
        if len(chosen) > MOST_KINDS:
            rng = np.random.default_rng([self.seed, 7])
            chosen = [chosen[k] for k in np.sort(rng.choice(len(chosen), MOST_KINDS, replace=False))]
        object.__setattr__(self, "_hot", tuple(hot))
        object.__setattr__(self, "_kinds", tuple(chosen))
        object.__setattr__(self, "_count", np.array([kinds[k] for k in chosen], np.int64))

    _hot: tuple[Adapter, ...] = field(init=False, compare=False, repr=False)
    _kinds: tuple[Adapter, ...] = field(init=False, compare=False, repr=False)
    _count: NDArray[np.int64] = field(init=False, compare=False, repr=False)

    @property
    def bound_level(self) -> float | None:
        """Share of the columns drawn for which pieces for bounds lie on the optimistic side; None = no such pieces."""
        return None if self.player is not None else BELOW

    #: Every promise of every adapter is followed.
    follows_promises = True

    def features(self, adapters: Sequence[Adapter]) -> Array:
        """Additive features, (N, F); see `surrogates.pieces.features`."""
        return adapter_features(adapters, self.calibration)

    def option(self, setting: EngineSetting) -> OptionModel:
        """Facets and loads under one setting, as near to the model as they get.

        Raises:
            InputError: the server would not start.
        """
        return self._both(setting)[0]

    def below(self, setting: EngineSetting) -> OptionModel:
        """Facets and loads on the optimistic side of the model, for bounds; for `BELOW` of the columns drawn."""
        return self._both(setting)[1]

    def _both(self, setting: EngineSetting) -> tuple[OptionModel, OptionModel]:
        if setting not in self._options:
            self._options[setting] = self._fitted(setting)
        return self._options[setting]

    def _fitted(self, setting: EngineSetting) -> tuple[OptionModel, OptionModel]:
        if setting.gpu_type != self.calibration.stamp.gpu_type:
            raise InputError(
                f"setting {setting.label} is for GPU type {setting.gpu_type!r}, the calibration for "
                f"{self.calibration.stamp.gpu_type!r}",
                remedy="choose that GPU's calibration",
            )
        reason = memory_error(setting, self.calibration)
        if reason is not None:
            raise InputError(f"setting {setting.label} does not start: {reason}", remedy="leave the setting out")
        model, phi = self._model(setting)
        rays = draw_rays(model, phi, self._count, setting, self.rays, self.seed, self._correct())
        if rays is None:
            return self._nothing(setting), self._nothing(setting)
        if self.player is not None:
            paths = [path_of([self._kinds[k] for k in o], n) for o, n in zip(rays.orders, rays.lengths, strict=True)]
            rays = self.player.played(paths, rays, setting, self.features)
            if not len(rays.ends):
                return self._nothing(setting), self._nothing(setting)
        if self._hot:
            rays = joined(rays, self._lone(setting))
        outer = fit_facets(rays)
        margin = max(LEAST_MARGIN, over_promise(outer, rays, COVERAGE))
        none = Polyhedron(np.zeros((0, len(FEATURE_NAMES))), np.zeros(0))
        near = OptionModel(
            setting=setting,
            feasible=outer.shifted(margin),
            outer=outer,
            hull=none,
            requests_in_system=fit_load(rays.phi, rays.in_system, outer),
            requests_decoding=fit_load(rays.phi, rays.decoding, outer),
            max_adapters=setting.max_cpu_loras or max(len(self.adapters), 1),
        )
        wide = Polyhedron(outer.G / under_promise(outer, rays, BELOW), outer.g)
        below = replace(
            near,
            feasible=wide,
            outer=wide,
            requests_in_system=fit_load_below(rays.phi, rays.in_system, outer, BELOW),
            requests_decoding=fit_load_below(rays.phi, rays.decoding, outer, BELOW),
        )
        return near, below

    def columns(
        self, items: Sequence[Adapter], settings: tuple[EngineSetting, ...], margin: float | None = None
    ) -> SteadyColumns | None:
        """The steady state itself of columns of these items, which the pieces approximate.

        None where the pieces were made of simulated hours: then they are all that is known.

        Args:
            margin: share of the largest healthy load that is kept free; None = by the residual's errors.
        """
        if self.player is not None:
            return None
        return SteadyColumns(
            items, settings, self.calibration, self.constraint, self.residual, margin, limits=self._limits()
        )

    def figures(self, columns: Sequence[Column]) -> list[dict[str, float]]:
        """What the steady state, or the twin, says of columns, without pieces: fields of
        `twin.figures.prediction.Prediction`.

        `load` is the share of the largest healthy load, 1 / theta*.
        """
        found = []
        for column in columns:
            model = steady_state_model(
                column.adapters, self.calibration, column.setting, rule=self.constraint.rule, slo=self.constraint.slo,
                **self._limits(),
            )  # fmt: skip
            members = [np.arange(len(column.adapters))]
            state = self._correct()(model.states(members, [column.setting]))
            if self.residual is None:
                theta = model.largest_loads(members, [column.setting])
            else:
                theta = CorrectedModel(model, self.residual).largest_loads(members, [column.setting]).theta
            if self.player is not None:
                found.append(self.player.figures(column, float(theta[0])))
                continue
            found.append(
                {
                    "load": 1.0 / float(theta[0]),
                    "requests_in_system": float(state.requests_in_system[0]),
                    "running": float(state.decoding[0]),
                    "e2e_mean_s": float(state.e2e_mean_s[0]),
                    "itl_mean_ms": 1000.0 * float(state.itl_mean_s[0]),
                    "ttft_mean_s": float(state.ttft_mean_s[0]),
                    "ttft_p99_s": float(state.ttft_p99_s[0]),
                }
            )
        return found

    def _limits(self) -> dict[str, Any]:
        names = ("late_share", "adapter_late_share")
        return {name: getattr(self.constraint, name) for name in names if hasattr(self.constraint, name)}

    def _lone(self, setting: EngineSetting) -> Rays:
        """Hot adapters alone, from low rates to the largest healthy one: many requests of one are not those of many."""
        model, _ = self._model(setting, hot=True)
        groups, laws = [[k] for k in range(len(self._hot))], [setting] * len(self._hot)
        theta = model.largest_loads(groups, laws)
        ends, phi, in_system, decoding, ray = [], [], [], [], []
        for k in np.flatnonzero(np.isfinite(theta)).tolist():
            ends.append(self.features([self._hot[k].scaled(theta[k])])[0])
            loads = np.array(FRACTIONS) * theta[k]
            states = self._correct()(model.states([[k]] * len(loads), [setting] * len(loads), loads))
            phi += list(self.features([self._hot[k].scaled(load) for load in loads.tolist()]))
            in_system += states.requests_in_system.tolist()
            decoding += states.decoding.tolist()
            ray += [len(ends) - 1] * len(loads)
        size = (-1, len(FEATURE_NAMES))
        found = Rays(
            np.array(ends).reshape(size), np.zeros(len(ends), np.int64), np.zeros(len(ends), np.bool_),
            np.array(phi).reshape(size), np.array(in_system), np.array(decoding), np.array(ray, np.int64),
        )  # fmt: skip
        if self.player is None or not ends:
            return found
        # An adapter in part, half of one that is twice as busy as the boundary.
        healthy = np.flatnonzero(np.isfinite(theta)).tolist()
        paths = [Path((self._hot[k].scaled(2.0 * float(theta[k])),), 0.5) for k in healthy]
        played = self.player.played(paths, found, setting, self.features)
        return played if len(played.ends) else found

    def _nothing(self, setting: EngineSetting) -> OptionModel:
        """A setting under which no adapter of the workload is healthy, not even alone."""
        size = len(FEATURE_NAMES)
        never, none = Polyhedron(np.full((1, size), NEVER), -np.ones(1)), Polyhedron(np.zeros((0, size)), np.zeros(0))
        load = affine_load(np.zeros(size), 0.0)
        return OptionModel(setting, never, never, none, load, load, max(len(self.adapters), 1))

    def _correct(self) -> Correct:
        residual, judged = self.residual, self.constraint.rule == "stable"
        if residual is None:
            return lambda states: states
        return lambda states: corrected(states, residual, judged=judged).state

    def _model(self, setting: EngineSetting, *, hot: bool = False) -> tuple[SteadyStateModel, Array]:
        """Tables shared by settings with the same servers and longest request, and the features of their kinds."""
        key = setting.servers_per_gpu, setting.max_model_len, hot
        if key not in self._models:
            constraint = self.constraint
            model = steady_state_model(
                self._hot if hot else self._kinds, self.calibration, setting, rule=constraint.rule,
                slo=constraint.slo, **self._limits(),
            )  # fmt: skip
            self._models[key] = model, features_of_tables(model.tables)
        return self._models[key]


def physics_planning(
    calibration: Calibration,
    workload: Workload,
    health: Constraint,
    *,
    rays: Annotated[int, Range(8, 1000)] = 32,
    seed: Annotated[int, Range(0)] = 0,
) -> PiecesModel:
    """The planning model of `surrogate=physics`: the steady state as it is, no training."""
    return PiecesModel(calibration, workload.adapters, health, rays=rays, seed=seed)


def load_planning_model(
    calibration: Calibration,
    workload: Workload,
    health: Constraint,
    *,
    weights: str | None = None,
    rays: Annotated[int, Range(8, 1000)] = 32,
    seed: Annotated[int, Range(0)] = 0,
) -> PiecesModel:
    """The planning model of `surrogate=neural`: the steady state with its learned residual.

    Args:
        weights: folder of a trained residual; None = the one that ships, for any calibration.

    Raises:
        InputError: the weights are missing or damaged.
    """
    residual = read_residual(Folder(weights) if weights else None)
    return PiecesModel(calibration, workload.adapters, health, rays=rays, seed=seed, residual=residual)


def twin_planning(
    calibration: Calibration,
    workload: Workload,
    health: Constraint,
    *,
    rays: Annotated[int, Range(8, 1000)] = 12,
    hours: Annotated[int, Range(1, 100)] = 3,
    seed: Annotated[int, Range(0)] = 0,
) -> PiecesModel:
    """The planning model of `surrogate=twin`: the same pieces, made of simulated hours; the steady state only guesses.

    Args:
        hours: simulated for the predicted figures of a GPU.
    """
    player = Player(calibration, health, seed=seed, hours=hours)
    return PiecesModel(
        calibration, workload.adapters, health, rays=rays, seed=seed, residual=read_residual(), player=player
    )
