"""The ensemble without torch, compiled; `surrogates.residual.networks` holds the same formulas in torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.compiled import compiled

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

#: Least and most of the logarithm of a predicted scale, in units of the target's.
LEAST_LOG_SCALE, MOST_LOG_SCALE = -6.0, 2.0


@dataclass(frozen=True, slots=True)
class Network:
    """E perceptrons with two hidden layers of H units, on F inputs, for O outputs, each with a scale of its error.

    Args:
        in_low, in_high: inputs are held within these, (F,): nothing is extrapolated.
        in_mean, in_std: of the inputs, (F,).
        out_mean, out_std: of the targets, (O,).
        out_low, out_high: predictions are held within these, (O,).
        weight_1 (E, F, H), bias_1 (E, 1, H), weight_2 (E, H, H), bias_2 (E, 1, H), weight_3 (E, H, 2 O), bias_3.
        levels, quantiles: of (truth - prediction) / scale on rays that were not trained on, (L,) and (O, L).
    """

    in_low: Floats
    in_high: Floats
    in_mean: Floats
    in_std: Floats
    out_mean: Floats
    out_std: Floats
    out_low: Floats
    out_high: Floats
    weight_1: Singles
    bias_1: Singles
    weight_2: Singles
    bias_2: Singles
    weight_3: Singles
    bias_3: Singles
    levels: Floats
    quantiles: Floats

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """All arrays by `<prefix>.<name>`, for storage."""
        return {f"{prefix}.{f.name}": np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> Network:
        """Inverse of `arrays`."""
        return cls(**{f.name: arrays[f"{prefix}.{f.name}"] for f in fields(cls)})

    def predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Predictions and the scales of their errors, (P, O) each, in units of the targets.

        The members of an ensemble are combined as a mixture of Laplace distributions is: the mean of their medians,
        and the mean of their scales plus the mean distance of their medians from it.
        """
        made = self.members(inputs)
        mean, scale = (np.empty((len(inputs), len(self.out_mean))) for _ in range(2))
        _combine(made, self.out_mean, self.out_std, self.out_low, self.out_high, mean, scale)
        return mean, scale

    def members(self, inputs: Floats) -> Singles:
        """Scaled predictions of each member and the logarithms of their scales, (E, P, 2 O)."""
        hidden = self.weight_2.shape[1]
        made = np.empty((len(self.weight_1), len(inputs), self.weight_3.shape[2]), np.float32)
        _evaluate(
            inputs, self.in_low, self.in_high, self.in_mean, self.in_std, self.weight_1, self.bias_1, self.weight_2,
            self.bias_2, self.weight_3, self.bias_3, np.empty(len(self.in_low), np.float32),
            np.empty(hidden, np.float32), np.empty(hidden, np.float32), made,
        )  # fmt: skip
        return made

    def quantile(self, mean: Floats, scale: Floats, output: int, level: float) -> Floats:
        """Value that the truth stays below with probability `level`, (P,), by errors on rays not trained on."""
        return mean + scale * float(np.interp(level, self.levels, self.quantiles[output]))


def combined(made: Singles) -> tuple[Floats, Floats]:
    """Scaled predictions and scales of an ensemble, (P, O) each, of those of its members (E, P, 2 O)."""
    outputs = made.shape[2] // 2
    mean, scale = (np.empty((made.shape[1], outputs)) for _ in range(2))
    one, any_ = np.ones(outputs), np.full(outputs, np.inf)
    _combine(made, 0.0 * one, one, -any_, any_, mean, scale)
    return mean, scale


@compiled
def _combine(
    made: Singles, out_mean: Floats, out_std: Floats, out_low: Floats, out_high: Floats, mean: Floats, scale: Floats
) -> None:
    members, outputs = len(made), mean.shape[1]
    for p in range(len(mean)):
        for k in range(outputs):
            middle, spread = 0.0, 0.0
            for e in range(members):
                middle += made[e, p, k]
                spread += math.exp(min(max(made[e, p, outputs + k], LEAST_LOG_SCALE), MOST_LOG_SCALE))
            middle /= members
            for e in range(members):
                spread += abs(made[e, p, k] - middle)
            mean[p, k] = max(min(middle * out_std[k] + out_mean[k], out_high[k]), out_low[k])
            scale[p, k] = spread / members * out_std[k]


@compiled
def _layer(x: Singles, weight: Singles, bias: Singles, out: Singles) -> None:
    for j in range(len(out)):
        out[j] = bias[j]
    for i in range(len(x)):
        value = x[i]
        # Half of what a rectifier lets through is 0.
        if value != 0.0:
            for j in range(len(out)):
                out[j] += value * weight[i, j]


@compiled
def _evaluate(
    inputs: Floats, in_low: Floats, in_high: Floats, in_mean: Floats, in_std: Floats, weight_1: Singles,
    bias_1: Singles, weight_2: Singles, bias_2: Singles, weight_3: Singles,
    bias_3: Singles, x: Singles, first: Singles, second: Singles, out: Singles,
) -> None:  # fmt: skip
    """Fills `out` (E, P, 2 O), with room for the scaled inputs, (F,), and both hidden layers, (H,) each.

    Sums are in a fixed order, so that every processor finds the same.
    """
    zero = np.float32(0.0)
    for p in range(len(inputs)):
        for i in range(len(x)):
            x[i] = (min(max(inputs[p, i], in_low[i]), in_high[i]) - in_mean[i]) / in_std[i]
        for e in range(len(weight_1)):
            _layer(x, weight_1[e], bias_1[e, 0], first)
            for j in range(len(first)):
                first[j] = max(first[j], zero)
            _layer(first, weight_2[e], bias_2[e, 0], second)
            for j in range(len(second)):
                second[j] = max(second[j], zero)
            _layer(second, weight_3[e], bias_3[e, 0], out[e, p])
