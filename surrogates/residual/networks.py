"""The ensemble in torch, for training only; `surrogates.residual.forward` evaluates its weights in NumPy."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from surrogates.residual.forward import LEAST_LOG_SCALE, MOST_LOG_SCALE


class Ensemble(nn.Module):
    """E perceptrons with two hidden layers, trained side by side: a median and a scale for each of O outputs."""

    def __init__(self, members: int, inputs: int, outputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.outputs, self.dropout = outputs, dropout
        self.weight_1, self.bias_1 = _layer(members, inputs, hidden)
        self.weight_2, self.bias_2 = _layer(members, hidden, hidden)
        self.weight_3, self.bias_3 = _layer(members, hidden, 2 * outputs)
        with torch.no_grad():
            # Starts at the physics: no correction.
            self.weight_3.mul_(0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Medians and logarithms of the scales, (E, B, O) each, for inputs (B, F) or (E, B, F)."""
        h = functional.relu(torch.matmul(x, self.weight_1) + self.bias_1)
        h = functional.relu(
            torch.matmul(functional.dropout(h, self.dropout, self.training), self.weight_2) + self.bias_2
        )
        out = torch.matmul(functional.dropout(h, self.dropout, self.training), self.weight_3) + self.bias_3
        return out[..., : self.outputs], out[..., self.outputs :].clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Weights as `surrogates.residual.forward.Network` holds them."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.named_parameters()}


def laplace_loss(mean: Tensor, log_scale: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted negative log-likelihood of a Laplace distribution, () from (E, B, O), (E, B, O), (B, O), (E, B, O).

    Its median is fitted by absolute errors, which the few columns in another state do not draw away.
    """
    loss = (target - mean).abs() * torch.exp(-log_scale) + log_scale
    return (weight * loss).sum() / weight.sum()


def _layer(members: int, inputs: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    limit = math.sqrt(3.0 / inputs)
    weight = torch.empty(members, inputs, outputs).uniform_(-limit, limit)
    return nn.Parameter(weight), nn.Parameter(torch.zeros(members, 1, outputs))
