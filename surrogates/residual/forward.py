"""The ensemble in NumPy; `surrogates.residual.networks` holds the same formulas in torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

#: Columns a chunk: the activations stay in cache.
_CHUNK = 256
#: Least and most of the logarithm of a predicted scale, in units of the target's.
LOG_SCALE_RANGE = (-6.0, 2.0)


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

    def scaled(self, inputs: Floats) -> Singles:
        """Inputs as the first layer takes them, (P, F)."""
        held: Floats = np.clip(inputs, self.in_low, self.in_high)
        return ((held - self.in_mean) / self.in_std).astype(np.float32)

    def predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Predictions and the scales of their errors, (P, O) each, in units of the targets.

        The members of an ensemble are combined as a mixture of Laplace distributions is: the mean of their medians,
        and the mean of their scales plus the mean distance of their medians from it.
        """
        mean, scale = combined(*self.members(self.scaled(inputs)))
        return np.clip(mean * self.out_std + self.out_mean, self.out_low, self.out_high), scale * self.out_std

    def members(self, x: Singles) -> tuple[Singles, Singles]:
        """Scaled predictions and scales of each member, (E, P, O) each."""
        nets, outputs = len(self.weight_1), self.weight_3.shape[2] // 2
        made = np.empty((nets, len(x), 2 * outputs), np.float32)
        for first in range(0, len(x), _CHUNK):
            h = silu(np.matmul(x[None, first : first + _CHUNK], self.weight_1) + self.bias_1)
            h = silu(np.matmul(h, self.weight_2) + self.bias_2)
            made[:, first : first + _CHUNK] = np.matmul(h, self.weight_3) + self.bias_3
        return made[..., :outputs], np.exp(np.clip(made[..., outputs:], *LOG_SCALE_RANGE))

    def quantile(self, mean: Floats, scale: Floats, output: int, level: float) -> Floats:
        """Value that the truth stays below with probability `level`, (P,), by errors on rays not trained on."""
        return mean + scale * float(np.interp(level, self.levels, self.quantiles[output]))


def combined(mean: Singles, scale: Singles) -> tuple[Floats, Floats]:
    """Of the members of an ensemble, (E, P, O) -> (P, O)."""
    middle = mean.mean(axis=0, dtype=np.float64)
    spread: Floats = scale.mean(axis=0, dtype=np.float64) + np.abs(mean - middle).mean(axis=0)
    return middle, spread


def silu(x: Singles) -> Singles:
    """x / (1 + exp(-x))."""
    # Below -80 the exponential would leave single precision's range; the result is 0 there anyway.
    return np.asarray(x / (np.float32(1.0) + np.exp(-np.maximum(x, np.float32(-80.0)))), np.float32)
