"""The networks in torch, for training only; `surrogates.model.forward` evaluates their weights in NumPy."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Array = NDArray[np.float64]


class Hypernetwork(nn.Module):
    """One hidden layer from a setting's context (S, C) to the weights (S, O) of a convex function."""

    def __init__(self, contexts: int, hidden: int, out_bias: Tensor) -> None:
        super().__init__()
        self.hidden = nn.Linear(contexts, hidden)
        self.out = nn.Linear(hidden, len(out_bias))
        with torch.no_grad():
            self.out.weight.mul_(0.3)
            self.out.bias.copy_(out_bias)

    def forward(self, context: Tensor) -> Tensor:
        return torch.as_tensor(self.out(torch.tanh(self.hidden(context))))

    def block(self) -> dict[str, Array]:
        """Weights as `surrogates.model.forward.hypernetwork` reads them."""
        return {
            "hidden_weight": _numpy(self.hidden.weight.T),
            "hidden_bias": _numpy(self.hidden.bias),
            "out_weight": _numpy(self.out.weight.T),
            "out_bias": _numpy(self.out.bias),
        }


class MaxAffine(nn.Module):
    """Gauge `max_j (W_j . phi + b_j)` of normalised features, with weights from the setting's context.

    The hypernetwork gives the facets and one positive factor per feature that all facets share: what a setting
    changes most is how much of each kind of load a GPU can take.
    A soft maximum with a temperature trains all facets; annealing it ends at the hard maximum that solvers use.
    """

    def __init__(self, features: int, contexts: int, facets: int, hidden: int) -> None:
        super().__init__()
        start = torch.cat([torch.rand(facets, features) * 2 / features, -0.5 * torch.ones(facets, 1)], dim=1)
        self.features = features
        self.hyper = Hypernetwork(contexts, hidden, torch.cat([start.flatten(), torch.zeros(features)]))

    def facets(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """W (S, J, F) and b (S, J) for contexts (S, C)."""
        out = self.hyper(context)
        rows = out[:, : -self.features].unflatten(1, (-1, self.features + 1))
        return rows[..., :-1] * torch.exp(out[:, None, -self.features :]), rows[..., -1]

    def forward(self, phi: Tensor, context: Tensor, setting: Tensor, temperature: float = 0.0) -> Tensor:
        """Gauge of columns phi (B, F) under settings `setting` (B,) of contexts (S, C): shape (B,)."""
        W, b = self.facets(context)
        z = torch.einsum("bjf,bf->bj", W[setting], phi) + b[setting]
        if temperature <= 0:
            return z.amax(dim=1)
        return temperature * torch.logsumexp(z / temperature, dim=1) - temperature * math.log(z.shape[1])


class HingeSum(nn.Module):
    """Convex load `v . max(W phi + b, 0) + q . phi`, v, q >= 0 >= b, with weights from the setting's context."""

    def __init__(self, features: int, contexts: int, hinges: int, hidden: int, unit: float) -> None:
        super().__init__()
        rows = torch.cat([torch.rand(hinges, features) * 2 / features, torch.zeros(hinges, 1)], dim=1)
        start = torch.cat([rows.flatten(), torch.zeros(hinges), torch.full((features,), -2.0)])
        self.features, self.hinges = features, hinges
        self.unit = unit
        self.hyper = Hypernetwork(contexts, hidden, start)

    def forward(self, phi: Tensor, context: Tensor, setting: Tensor) -> Tensor:
        """Load of columns phi (B, F): shape (B,)."""
        out = self.hyper(context)[setting]
        split = self.hinges * (self.features + 1)
        rows = out[:, :split].unflatten(1, (self.hinges, self.features + 1))
        v, q = functional.softplus(out[:, split:]).split([self.hinges, self.features], dim=1)
        z = torch.einsum("bhf,bf->bh", rows[..., :-1], phi) - functional.softplus(rows[..., -1])
        load: Tensor = self.unit * ((v * torch.relu(z)).sum(dim=1) + (q * phi).sum(dim=1))
        return load

    def block(self) -> dict[str, Array]:
        return {**self.hyper.block(), "unit": np.array([self.unit])}


class Perceptron(nn.Module):
    """Free network with two hidden layers on standardised inputs and outputs."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.layers(x))

    def block(self) -> dict[str, Array]:
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        weights = {f"weight_{k}": _numpy(layer.weight.T) for k, layer in enumerate(linear, 1)}
        return weights | {f"bias_{k}": _numpy(layer.bias) for k, layer in enumerate(linear, 1)}


def stack_blocks(blocks: list[dict[str, Array]]) -> dict[str, Array]:
    """An ensemble: the blocks of its nets along a leading axis."""
    return {name: np.stack([block[name] for block in blocks]) for name in blocks[0]}


def _numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
