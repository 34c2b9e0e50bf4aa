"""Rays -> inputs and targets of the networks: what the physics says of every simulated column.

Computed from the stored columns each time: after a change of the physics the same rays serve again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogates.residual.heads import (
    BOUNDARY_LOADS,
    HEADS,
    MARGIN_RANGE,
    OUTPUTS,
    boundary_inputs,
)
from surrogates.residual.inputs import inputs_of
from surrogates.residual.mixes import Draw
from surrogates.residual.rays import light_factor, physics_guess
from surrogates.residual.shards import Ray
from surrogates.steady_state.model import SteadyStateModel, steady_state_model
from surrogates.steady_state.state import SteadyState
from twin.server.calibration import Calibration

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Samples:
    """R rays with a boundary in both the twin and the physics, and C columns of them with a steady state.

    Args:
        boundary: inputs at the physics' theta*, (R, len(BOUNDARY_INPUTS)).
        log_theta: log(theta* of the twin / of the physics), (R,).
        column: inputs at the columns' own loads, (C, len(INPUTS)).
        targets: log ratios of the twin to the physics, and the margin, (C, len(OUTPUTS)); NaN = unknown.
        ray: of each column, (C,).
        calibration: of each ray, (R,). arrival_cv: mean over requests, (R,). adapters, max_loras: (R,).
        skipped: rays without a boundary in the twin or the physics.
    """

    boundary: Floats
    log_theta: Floats
    column: Floats
    targets: Floats
    ray: NDArray[np.int64]
    calibration: NDArray[np.str_]
    arrival_cv: Floats
    adapters: NDArray[np.int64]
    max_loras: NDArray[np.int64]
    skipped: int

    def __len__(self) -> int:
        return len(self.log_theta)


def ray_model(drawn: Draw, calibration: Calibration) -> tuple[SteadyStateModel, float]:
    """The physics of a ray: a model whose loads are shares of the returned factor on the rates."""
    guess = physics_guess(drawn, calibration)
    # Tables about theta*, where they matter most.
    pivot = guess if math.isfinite(guess) else light_factor(drawn)
    model = steady_state_model(
        drawn.mix.adapters(), calibration, drawn.setting, pivot=pivot, default_ttft_slo_s=drawn.slo_s,
        crowded=int((drawn.mix.rank > 0).sum()) > drawn.setting.max_loras,
    )  # fmt: skip
    return model, pivot


def states_at(model: SteadyStateModel, drawn: Draw, loads: Floats) -> SteadyState:
    """States of the whole mix at P loads, (P,)."""
    everybody = np.arange(len(drawn.mix))
    return model.states([everybody] * len(loads), [drawn.setting] * len(loads), loads)


def samples_of(rays: Sequence[Ray], calibrations: Mapping[str, Calibration]) -> Samples:
    """Solves the physics for every column of the rays."""
    boundary, log_theta, column, targets, place = [], [], [], [], []
    kept: list[Ray] = []
    for ray in rays:
        model, pivot = ray_model(ray.draw, calibrations[ray.calibration])
        guess = float(model.largest_loads([np.arange(len(ray.draw.mix))], [ray.draw.setting])[0])
        if not (np.isfinite(guess) and np.isfinite(ray.theta)):
            continue
        loads = ray.loads / pivot
        states = states_at(model, ray.draw, np.concatenate([guess * np.array(BOUNDARY_LOADS), loads]))
        first, rest = states[: len(BOUNDARY_LOADS)], states[len(BOUNDARY_LOADS) :]
        of_column = np.full((len(loads), len(OUTPUTS)), np.nan)
        for k, head in enumerate(HEADS):
            of_column[:, k] = head.log_ratio(ray.metrics, rest)
            if head.healthy_only:
                of_column[~ray.healthy, k] = np.nan
        of_column[:, -1] = np.clip(np.log(ray.theta / ray.loads), *MARGIN_RANGE)
        solved = np.isfinite(rest.pace_s)
        boundary.append(boundary_inputs(first))
        log_theta.append(np.log(ray.theta / (guess * pivot)))
        column.append(inputs_of(rest)[solved])
        targets.append(of_column[solved])
        place.append(np.full(int(solved.sum()), len(kept)))
        kept.append(ray)
    mixes = [ray.draw.mix for ray in kept]
    return Samples(
        boundary=np.concatenate(boundary),
        log_theta=np.array(log_theta),
        column=np.concatenate(column),
        targets=np.concatenate(targets),
        ray=np.concatenate(place),
        calibration=np.array([ray.calibration for ray in kept]),
        arrival_cv=np.array([float(np.average(m.arrival_cv, weights=m.rate_req_per_s)) for m in mixes]),
        adapters=np.array([int((m.rank > 0).sum()) for m in mixes]),
        max_loras=np.array([ray.draw.setting.max_loras for ray in kept]),
        skipped=len(rays) - len(kept),
    )
