"""`SteadyColumns`: the steady state with its residual as the planning model of a problem's items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.model.columns import Columns, settings_of
from surrogates.pieces.features import kind_of
from surrogates.residual.heads import MARGIN, MARGIN_RANGE
from surrogates.residual.model import corrected
from surrogates.residual.weights import Residual
from surrogates.steady_state.model import SteadyStateModel, steady_state_model
from surrogates.steady_state.state import SteadyState
from twin.figures.health import Constraint
from twin.server.calibration import Calibration
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Probability that a column which is promised healthy is healthy in the twin, by the residual's calibrated errors.
CONFIDENCE = 0.9
#: Share of the largest healthy load that is kept free where nothing is known about the model's errors.
UNKNOWN_ERROR = 0.1
#: Rule `published`: hours are judged, and where the queue grows, requests wait half an hour of it on average.
JUDGED_S = 3600.0
#: What is missed by where the model finds no steady state at all: beyond every margin, so that asking for less of one
#: does not make such a column healthy.
FAR = 1.0 - MARGIN_RANGE[0]
#: A column beyond its limit with more late requests than this is missed by at least so much.
MOST_LATE, LOST = 0.3, 0.6


@dataclass(frozen=True, slots=True)
class Level:
    """What simulations of the workload at hand say over what the model says: factors, 1 = the model is right.

    Args:
        in_system, decoding: of the two loads.
    """

    in_system: float = 1.0
    decoding: float = 1.0


@dataclass(frozen=True)
class SteadyColumns:
    """Implements `surrogates.model.columns.ColumnModel`.

    Args:
        items: N adapters, or shares of them. settings: O.
        residual: None = the physics as it is.
        margin: share of the largest healthy load that is kept free; None = what the residual's errors ask for.
        limits: `late_share`, `adapter_late_share` of the constraint.
    """

    items: Sequence[Adapter]
    settings: tuple[EngineSetting, ...]
    calibration: Calibration
    constraint: Constraint
    residual: Residual | None = None
    margin: float | None = None
    level: Level = Level()
    limits: dict[str, Any] = field(default_factory=dict)
    _kind: Indices = field(init=False, compare=False, repr=False)
    _kinds: tuple[Adapter, ...] = field(init=False, compare=False, repr=False)
    _tokens: Array = field(init=False, compare=False, repr=False)
    _most_adapters: Array = field(init=False, compare=False, repr=False)
    _models: dict[tuple[int, int | None], SteadyStateModel] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    _laws: dict[int, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        kinds: dict[Adapter, int] = {}
        kind = np.array([kinds.setdefault(kind_of(a), len(kinds)) for a in self.items], np.int64)
        tokens = np.array([a.rate_req_per_s * a.output_tokens.mean for a in self.items])
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_kinds", tuple(kinds))
        object.__setattr__(self, "_tokens", tokens)
        most = np.array([s.max_cpu_loras or np.inf for s in self.settings])
        object.__setattr__(self, "_most_adapters", most)

    def of(self, groups: Sequence[Sequence[int]], options: Sequence[int]) -> Columns:
        members = [self._kind[np.asarray(g, np.int64)] for g in groups]
        tokens = np.array([self._tokens[np.asarray(g, np.int64)].sum() for g in groups])
        which = np.asarray(options, np.int64)
        keys: dict[tuple[int, int | None], list[int]] = {}
        for p, o in enumerate(which.tolist()):
            keys.setdefault(self._key(o), []).append(p)
        parts, places = [], []
        for own in keys.values():
            model = self._model(int(which[own[0]]))
            laws = np.concatenate([self._law(int(o)) for o in which[own]])
            chosen = [members[p] for p in own]
            state = model.states(chosen, laws)
            careful = self._careful(lambda load, m=model, c=chosen, w=laws: m.states(c, w, load))
            parts.append(self._columns(state, which[own], tokens[own], careful))
            places += own
        return parts[0] if len(parts) == 1 else in_order(parts, places)

    def exchanged(self, members: Sequence[int], option: int, leave: Indices, enter: Indices) -> Columns:
        kind = np.append(self._kind, -1)
        own = self._kind[np.asarray(members, np.int64)]
        tokens = np.append(self._tokens, 0.0)
        model, laws = self._model(option), np.repeat(self._law(option), len(leave))
        gone, new = kind[leave], kind[enter]
        state = model.exchanges(own, gone, new, laws)
        total = self._tokens[np.asarray(members, np.int64)].sum() - tokens[leave] + tokens[enter]
        careful = self._careful(lambda load: model.exchanges(own, gone, new, laws, load))
        return self._columns(state, np.full(len(leave), option), total, careful)

    def with_level(self, level: Level) -> SteadyColumns:
        """The same model at another level."""
        other = replace(self, level=level)
        # What was computed for it stays.
        other._models.update(self._models)
        other._laws.update(self._laws)
        return other

    def without_margin(self) -> SteadyColumns:
        """The same model without its safety margin."""
        other = replace(self, margin=0.0)
        other._models.update(self._models)
        other._laws.update(self._laws)
        return other

    def _careful(self, states: Any) -> SteadyState | None:
        """States at a load that keeps the margin, where no residual tells how far a column is from its limit."""
        if self.residual is not None and self.constraint.rule == "stable":
            return None
        margin = UNKNOWN_ERROR if self.margin is None else self.margin
        found: SteadyState = states(1.0 / max(1.0 - margin, 1e-3))
        return found

    def _columns(self, physics: SteadyState, options: Indices, tokens: Array, careful: SteadyState | None) -> Columns:
        state = physics
        if self.residual is not None:
            found = corrected(physics, self.residual, judged=self.constraint.rule == "stable")
            state = found.state
        if careful is not None:
            violation = np.where(careful.healthy > 0, -1.0, np.where(np.isfinite(careful.pace_s), 0.05, FAR))
        else:
            # log(theta* / load) of what is asked.
            if self.margin is None:
                margin = found.quantile(MARGIN, 1.0 - CONFIDENCE)
            else:
                margin = found.log_margin + np.log(max(1.0 - self.margin, 1e-3))
            # A promise that no waiting breaks but the time of a step or of a long prompt itself.
            broken = np.log(np.maximum(np.where(np.isfinite(physics.promise_use), physics.promise_use, 1.0), 1.0))
            violation = np.where(broken > 0, np.maximum(-margin, broken), -margin)
            # The residual knows the neighbourhood of the limit: far beyond it, nearly everything is late.
            lost = (physics.late_share > MOST_LATE) & (found.log_margin < 0.0)
            violation = np.where(lost, np.maximum(violation, LOST), violation)
            violation = np.where(np.isfinite(physics.pace_s), violation, FAR)
        settings = settings_of(options, self.settings)
        queue_s = np.zeros(len(options))
        if self.residual is not None and self.constraint.rule == "published":
            # Beyond the stable boundary theta* a share 1 - theta* of what arrives is queued, or all wait for slots.
            unserved = 0.5 * JUDGED_S * -np.expm1(np.minimum(found.log_margin, 0.0))
            slots_s = np.where(found.log_margin < 0.0, np.minimum(physics.slot_wait_s, 0.5 * JUDGED_S), 0.0)
            queue_s = np.maximum(unserved, np.nan_to_num(slots_s, nan=0.5 * JUDGED_S))
        in_system = (state.requests_in_system + state.rate_req_per_s * queue_s) * self.level.in_system
        most = self._most_adapters[options]
        return Columns(
            settings, state.rate_req_per_s, tokens, state.adapters, in_system, state.decoding * self.level.decoding,
            state.itl_mean_s * self.level.decoding, state.ttft_mean_s + queue_s, state.ttft_p99_s + 2.0 * queue_s,
            state.kv_share,
            np.maximum(violation, state.adapters - most),
        )  # fmt: skip

    def _key(self, option: int) -> tuple[int, int | None]:
        setting = self.settings[option]
        return setting.servers_per_gpu, setting.max_model_len

    def _model(self, option: int) -> SteadyStateModel:
        key = self._key(option)
        if key not in self._models:
            constraint = self.constraint
            self._models[key] = steady_state_model(
                self._kinds, self.calibration, self.settings[option], rule=constraint.rule, slo=constraint.slo,
                **self.limits,
            )  # fmt: skip
        return self._models[key]

    def _law(self, option: int) -> Any:
        if option not in self._laws:
            self._laws[option] = self._model(option).laws([self.settings[option]])
        return self._laws[option]


def in_order(parts: Sequence[Columns], places: Sequence[int]) -> Columns:
    """Columns of several parts, part k's behind one another at `places`."""
    order = np.argsort(np.asarray(places), kind="stable")
    settings = [s for part in parts for s in part.setting]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])[order]
        for name in Columns.__dataclass_fields__
        if name != "setting"
    }
    return Columns(setting=tuple(settings[k] for k in order.tolist()), **arrays)
