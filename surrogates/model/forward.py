"""Forward passes of the networks in NumPy; `surrogates.training.networks` holds the same formulas in torch.

A *block* is a dictionary of arrays. Hypernetwork of one net: `hidden_weight (C, H)`, `hidden_bias (H,)`,
`out_weight (H, O)`, `out_bias (O,)`. Ensembles have a leading axis E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogates.model.features import SLOT_FEATURES

Array = NDArray[np.float64]
Block = Mapping[str, Array]

#: Added to scaled features before the logarithm, so that absent load stays finite.
LOG_FLOOR = 1e-3
#: Columns a chunk in batched passes: the activations stay in cache.
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Scaling:
    """How features and contexts are normalised.

    Args:
        feature: typical size of each feature, those compared with slots per slot, (F,).
        context_mean, context_std: of the trained settings, (C,).
    """

    feature: Array
    context_mean: Array
    context_std: Array

    def feature_scale(self, max_loras: float | Array) -> Array:
        """Divisor of each feature, (F,) or (P, F) for slots of shape (P, 1)."""
        return np.asarray(self.feature * np.where(SLOT_FEATURES, max_loras, 1.0))

    def context(self, context: Array) -> Array:
        return np.asarray((context - self.context_mean) / self.context_std)


def softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


def hypernetwork(block: Block, context: Array) -> Array:
    """Weights of one net for one normalised context (C,): shape (O,)."""
    hidden = np.tanh(context @ block["hidden_weight"] + block["hidden_bias"])
    return np.asarray(hidden @ block["out_weight"] + block["out_bias"])


def member(block: Block, index: int) -> dict[str, Array]:
    """One net of an ensemble."""
    return {name: array[index] for name, array in block.items()}


def facets_of(block: Block, context: Array, features: int) -> tuple[Array, Array]:
    """`max_j (W_j . phi + b_j)` of one net: W (J, F) and b (J,) for normalised features."""
    out = hypernetwork(block, context)
    rows = out[:-features].reshape(-1, features + 1)
    return rows[:, :-1] * np.exp(out[-features:]), rows[:, -1]


def hinges_of(block: Block, context: Array, features: int) -> tuple[Array, Array, Array, Array]:
    """`v . max(W phi + b, 0) + q . phi` of one net: W (H, F), b (H,) <= 0, v (H,) >= 0, q (F,) >= 0.

    With b <= 0 and no constant an empty GPU has no load; with q >= 0 no load is negative.
    """
    out = hypernetwork(block, context)
    unit = float(block["unit"][0])
    hinges = (len(out) - features) // (features + 2)
    rows = out[: hinges * (features + 1)].reshape(hinges, features + 1)
    v, q = np.split(out[hinges * (features + 1) :], [hinges])
    return rows[:, :-1], -softplus(rows[:, -1]), unit * softplus(v), unit * softplus(q)


def perceptron_input(phi: Array, context: Array, scale: Array) -> Array:
    """Input of the free networks, (P, F + C), from raw features (P, F) and normalised contexts (P, C)."""
    return np.concatenate([np.log(phi / scale + LOG_FLOOR), context], axis=1)


def perceptron(block: Block, inputs: Array) -> Array:
    """Outputs of an ensemble of two-layer perceptrons, (E, P, O), in natural units of the targets.

    Single precision, as trained, and plain 2-D products over cache-sized chunks: an order of magnitude faster than
    one broadcast product in double precision.
    """
    x = ((inputs - block["in_mean"]) / block["in_std"]).astype(np.float32)
    layers = [(block[f"weight_{k}"].astype(np.float32), block[f"bias_{k}"].astype(np.float32)) for k in (1, 2, 3)]
    nets, outputs = len(block["weight_1"]), block["weight_3"].shape[-1]
    result = np.empty((nets, len(x), outputs), dtype=np.float32)
    for first in range(0, len(x), _CHUNK):
        chunk = x[first : first + _CHUNK]
        for e in range(nets):
            h = chunk
            for weight, bias in layers[:-1]:
                h = h @ weight[e]
                h += bias[e]
                np.maximum(h, 0.0, out=h)
            result[e, first : first + _CHUNK] = h @ layers[-1][0][e] + layers[-1][1][e]
    return np.asarray(result * block["out_std"] + block["out_mean"])
