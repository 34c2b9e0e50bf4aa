"""The physics and its learned correction together: what solvers ask of a column.

    from surrogates.residual import CorrectedModel, read_residual

    model = CorrectedModel(steady_state_model(adapters, calibration, setting), read_residual())
    found = model.states(groups, settings)          # `found.state` is a `SteadyState` with corrected figures
    found.quantile("requests_in_system", 0.95)      # what the twin stays below 19 times out of 20
    model.largest_loads(groups, settings).theta     # theta*, corrected

The correction multiplies; where the physics finds no steady state there is nothing to correct. It depends on all
adapters of a column. Factors that depend on (setting, pace) only, and so keep what is linear at a pace linear, would be
a second, smaller fit of the same samples (`surrogates.residual.samples`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from surrogates.residual.heads import (
    BOUNDARY_LOADS,
    HEADS,
    MARGIN,
    MARGIN_RANGE,
    OUTPUTS,
    boundary_inputs,
    corrected_figures,
)
from surrogates.residual.inputs import inputs_of
from surrogates.residual.weights import Residual
from surrogates.steady_state.model import ColumnSums, Groups, SteadyStateModel, largest_load, steady_state_model
from surrogates.steady_state.state import PLACE, SteadyState
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.workload.adapter import DEFAULT_TTFT_P99_S, Adapter

Floats = NDArray[np.float64]
Settings = Sequence[EngineSetting] | Any

_PLACE = {name: k for k, name in enumerate(OUTPUTS)}
_HEAD_PLACES = np.array([PLACE[head.name] for head in HEADS])


@dataclass(frozen=True, slots=True)
class CorrectedState:
    """P columns.

    Args:
        state: corrected: requests in system, running and decoding, ITL, TTFT, E2E, late shares, healthy. All else is
            the physics'.
        physics: uncorrected.
        correction: logarithms of the corrections, and the margin, (P, len(OUTPUTS)); 0 where there is no steady state.
        scale: of their errors, (P, len(OUTPUTS)).
        log_margin: log(theta* / load), (P,): how far a column is from its boundary, from -0.5 to 1.3; negative =
            unhealthy.
    """

    state: SteadyState
    physics: SteadyState
    correction: Floats
    scale: Floats
    log_margin: Floats
    residual: Residual

    def __len__(self) -> int:
        return len(self.state)

    def quantile(self, name: str, level: float) -> Floats:
        """Value of an output that the twin stays below with probability `level`, (P,).

        Args:
            name: one of `surrogates.residual.heads.OUTPUTS`.
        """
        if name not in _PLACE:
            raise InputError(f"{name!r} is not corrected", remedy=f"use one of {', '.join(OUTPUTS)}")
        k = _PLACE[name]
        value = self.residual.column.quantile(self.correction[:, k], self.scale[:, k], k, level)
        if name == MARGIN:
            return value
        changed = self.correction.copy()
        changed[:, k] = value
        return corrected_figures(self.physics, changed)[:, k]


@dataclass(frozen=True, slots=True)
class CorrectedLoads:
    """Largest healthy factors of P columns.

    Args:
        theta: corrected, (P,); NaN where no factor is healthy.
        physics: uncorrected, (P,).
        log_theta, scale: logarithm of the correction, and the scale of its error, (P,).
    """

    theta: Floats
    physics: Floats
    log_theta: Floats
    scale: Floats
    residual: Residual

    def quantile(self, level: float) -> Floats:
        """Factor that theta* in the twin stays below with probability `level`, (P,); small levels are careful."""
        return self.physics * np.exp(self.residual.boundary.quantile(self.log_theta, self.scale, 0, level))


def corrected(physics: SteadyState, residual: Residual, *, judged: bool = True) -> CorrectedState:
    """Corrects the states of P columns.

    Args:
        judged: `healthy` says whether the margin is positive; False leaves the physics' verdict (the rule `published`,
            which the residual was not trained on).
    """
    correction, scale = residual.column.predict(inputs_of(physics))
    margin = correction[:, _PLACE[MARGIN]]
    if not (solved := np.isfinite(physics.pace_s)).all():
        correction[~solved], scale[~solved] = 0.0, 0.0
        margin[~solved] = np.where(physics.healthy[~solved] > 0, MARGIN_RANGE[1], MARGIN_RANGE[0])
    figures = physics.figures.copy()
    figures[:, _HEAD_PLACES] = corrected_figures(physics, correction)
    state = SteadyState(figures)
    # Little's law: as many more are decoding as a token takes longer.
    figures[:, PLACE["decoding"]] *= np.exp(correction[:, _PLACE["itl_mean_s"]])
    figures[:, PLACE["e2e_mean_s"]] = state.requests_in_system / state.rate_req_per_s
    if judged:
        # A promise that no waiting breaks but the time of a step or of a long prompt itself.
        figures[:, PLACE["healthy"]] = ~(physics.promise_use > 1.0) & (margin >= 0.0)
    return CorrectedState(state, physics, correction, scale, margin, residual)


@dataclass(frozen=True, slots=True)
class CorrectedModel:
    """A `SteadyStateModel` whose answers are corrected."""

    physics: SteadyStateModel
    residual: Residual

    def states(self, groups: Groups, settings: Settings, load: ArrayLike = 1.0) -> CorrectedState:
        """States of P columns; arguments as in `SteadyStateModel.states`."""
        return self._corrected(self.physics.states(groups, settings, load))

    def states_of_sums(self, sums: ColumnSums, settings: Settings, **limits: ArrayLike) -> CorrectedState:
        """States of P columns given as sums; arguments as in `SteadyStateModel.states_of_sums`."""
        return self._corrected(self.physics.states_of_sums(sums, settings, **limits))

    def largest_loads(self, groups: Groups, settings: Settings) -> CorrectedLoads:
        """Largest factor on all rates with which each of P columns is healthy; `published` is not corrected."""
        laws = self.physics.laws(settings)
        theta = self.physics.largest_loads(groups, laws)
        log_theta, scale = np.zeros(len(theta)), np.zeros(len(theta))
        known = np.flatnonzero(np.isfinite(theta))
        if self.physics.rule == "stable" and len(known):
            places = np.tile(known, len(BOUNDARY_LOADS))
            loads = np.repeat(BOUNDARY_LOADS, len(known)) * theta[places]
            states = self.physics.states([groups[p] for p in places.tolist()], laws[places], loads)
            mean, spread = self.residual.boundary.predict(boundary_inputs(states))
            log_theta[known], scale[known] = mean[:, 0], spread[:, 0]
        return CorrectedLoads(theta * np.exp(log_theta), theta, log_theta, scale, self.residual)

    def _corrected(self, physics: SteadyState) -> CorrectedState:
        return corrected(physics, self.residual, judged=self.physics.rule == "stable")


def corrected_model(
    columns: Sequence[Column], calibration: Calibration, residual: Residual, **options: Any
) -> tuple[CorrectedModel, list[list[int]]]:
    """A model of all adapters of some columns, and the members of each column.

    Args:
        options: of `steady_state_model`, e.g. `default_ttft_slo_s`.

    Raises:
        InputError: the columns' settings differ in `servers_per_gpu` or `max_model_len`.
    """
    if len({(c.setting.servers_per_gpu, c.setting.max_model_len) for c in columns}) > 1:
        raise InputError(
            "the columns' settings differ in servers_per_gpu or max_model_len", remedy="make a model for each"
        )
    places: dict[int, int] = {}
    adapters: list[Adapter] = []
    for column in columns:
        for a in column.adapters:
            if places.setdefault(id(a), len(adapters)) == len(adapters):
                adapters.append(a)
    physics = steady_state_model(adapters, calibration, columns[0].setting, **options)
    return CorrectedModel(physics, residual), [[places[id(a)] for a in c.adapters] for c in columns]


def corrected_largest_load(
    column: Column, calibration: Calibration, residual: Residual, *, default_ttft_slo_s: float = DEFAULT_TTFT_P99_S
) -> CorrectedLoads:
    """theta* of one column, whatever its rates are; arrays of shape (1,)."""
    physics = float(largest_load([column], calibration, default_ttft_slo_s=default_ttft_slo_s)[0])
    # Tables about theta*, where they matter most.
    pivot = physics if np.isfinite(physics) else 1.0
    model, groups = corrected_model(
        [column], calibration, residual, default_ttft_slo_s=default_ttft_slo_s, pivot=pivot
    )  # fmt: skip
    found = model.largest_loads(groups, [column.setting])
    return replace(found, theta=pivot * found.theta, physics=pivot * found.physics)
