"""What the residual corrects, and from which numbers: shared by training and evaluation.

Inputs (`surrogates.residual.inputs`) are dimensionless: none names a GPU or a model. Outputs are logarithms of ratios
of what the twin says to what the physics says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogates.residual.inputs import INPUTS, inputs_of
from surrogates.steady_state.state import PLACE, SteadyState
from twin.compiled import compiled

Floats = NDArray[np.float64]

#: Loads at which the correction of theta* looks at a column, as shares of theta* by the physics.
BOUNDARY_LOADS = (0.999, 0.7)
BOUNDARY_INPUTS: tuple[str, ...] = tuple(f"{name}@{load:g}" for load in BOUNDARY_LOADS for name in INPUTS)


@dataclass(frozen=True, slots=True)
class Head:
    """A corrected figure of a column.

    Args:
        name: the field of `SteadyState`. metric: the field of `Prediction` in the twin.
        unit: of the metric, in the unit of the field.
        floor: added to both before the ratio is taken; for shares, which may be 0.
        healthy_only: unhealthy columns say nothing about it.
    """

    name: str
    metric: str
    unit: float = 1.0
    floor: float = 0.0
    healthy_only: bool = True

    def log_ratio(self, metrics: Mapping[str, Floats], state: SteadyState) -> Floats:
        """Target of the training, (P,); NaN where either side is unknown."""
        twin, physics = self.unit * metrics[self.metric] + self.floor, getattr(state, self.name) + self.floor
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.log(twin / physics)
        return np.where(np.isfinite(ratio), ratio, np.nan)


#: Corrected figures of a column at its own load, in the order of the network's outputs. Shares count from a tenth of
#: what is allowed.
HEADS: tuple[Head, ...] = (
    Head("requests_in_system", "requests_in_system"),
    Head("running", "running"),
    Head("itl_mean_s", "itl_mean_ms", unit=1e-3),
    Head("itl_p99_s", "itl_p99_ms", unit=1e-3),
    Head("ttft_mean_s", "ttft_mean_s"),
    Head("ttft_p99_s", "ttft_p99_s"),
    Head("late_share", "late_fraction", floor=1e-3, healthy_only=False),
    Head("adapter_late_share", "adapter_late_fraction", floor=5e-3, healthy_only=False),
)
_PLACES: NDArray[np.int64] = np.array([PLACE[head.name] for head in HEADS])
_FLOORS: Floats = np.array([head.floor for head in HEADS])
_MOST: Floats = np.array([1.0 if head.floor else np.inf for head in HEADS])
#: The last output: log(theta* / load), as far as it is of interest.
MARGIN, MARGIN_RANGE = "log_margin", (-0.5, 1.3)
OUTPUTS: tuple[str, ...] = (*(head.name for head in HEADS), MARGIN)
#: Output of the boundary's network: log(theta* / theta* by the physics).
BOUNDARY_OUTPUTS: tuple[str, ...] = ("log_theta",)


def corrected_figures(state: SteadyState, log_ratios: Floats) -> Floats:
    """Figures of P columns with their corrections, (P, len(HEADS)) from (P, len(OUTPUTS))."""
    out = np.empty((len(state), len(HEADS)))
    _correct(np.ascontiguousarray(state.figures), log_ratios, _PLACES, _FLOORS, _MOST, out)
    return out


@compiled
def _correct(
    figures: Floats, log_ratios: Floats, places: NDArray[np.int64], floors: Floats, most: Floats, out: Floats
) -> None:
    for p in range(len(out)):
        for k in range(len(places)):
            value = (figures[p, places[k]] + floors[k]) * math.exp(log_ratios[p, k]) - floors[k]
            # Without a steady state it is NaN, and stays so.
            out[p, k] = min(max(value, 0.0), most[k]) if value == value else value


def boundary_inputs(states: SteadyState) -> Floats:
    """Inputs of the correction of theta*, (P, len(BOUNDARY_INPUTS)).

    Args:
        states: of P columns at each of `BOUNDARY_LOADS`, one load after the other, (len(BOUNDARY_LOADS) * P,).
    """
    rows = inputs_of(states)
    return np.concatenate(np.split(rows, len(BOUNDARY_LOADS)), axis=1)
