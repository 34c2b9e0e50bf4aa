"""Request lengths drawn from a published histogram (`length_histogram.csv`).

The shape of the output lengths decides how long a slot is held; moments alone miss it. The first bin of the
histogram is coarse, so the published 25 % quantiles split it. Probabilities are tilted exponentially until the
mean is the one asked for, which keeps the support.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from profiling.runs import read_table
from twin.errors import InputError

Array = NDArray[np.float64]
#: 25 % quantiles of prompt and output lengths, read with the histogram from the same publication.
FIRST_QUARTILE_TOKENS = {"prompt": 23.0, "output": 27.0}
#: Normal-copula parameter that reproduces 356-365 resident tokens per running request (kv usage x capacity / running).
LENGTH_COPULA = -0.4


@dataclass(frozen=True, slots=True)
class LengthHistogram:
    """A piecewise uniform distribution: `edges` (n + 1,) tokens, `shares` (n,) adding up to 1."""

    edges: Array
    shares: Array

    @property
    def centres(self) -> Array:
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)

    @property
    def mean(self) -> float:
        return float(self.centres @ self.shares)

    def with_mean(self, mean: float) -> LengthHistogram:
        """The same support, probabilities tilted exponentially to another mean."""
        x = (self.centres - self.edges[0]) / (self.edges[-1] - self.edges[0])

        def tilted(tilt: float) -> Array:
            weights = self.shares * np.exp(tilt * x)
            return np.asarray(weights / weights.sum())

        def excess(tilt: float) -> float:
            return float(self.centres @ tilted(tilt)) - mean

        if not excess(-60.0) < 0 < excess(60.0):
            raise InputError(f"a mean length of {mean:g} tokens is outside the histogram's range")
        return LengthHistogram(self.edges, tilted(float(brentq(excess, -60.0, 60.0, xtol=1e-12))))

    def quantile(self, u: Array) -> Array:
        """Quantile function, tokens."""
        cumulative = np.concatenate([[0.0], np.cumsum(self.shares)])
        return np.interp(u, cumulative / cumulative[-1], self.edges)


def read_histogram(folder: Path, kind: str) -> LengthHistogram:
    """`kind` is `prompt` or `output`."""
    table = read_table(folder, "length_histogram.csv")
    rows = table[table["kind"] == kind]
    edges = np.append(rows["from_tokens"].to_numpy(float), float(rows["to_tokens"].iloc[-1]))
    shares = rows["share"].to_numpy(float)
    shares = shares / shares.sum()
    split = FIRST_QUARTILE_TOKENS[kind]
    if edges[0] < split < edges[1] and shares[0] > 0.25:
        edges = np.insert(edges, 1, split)
        shares = np.concatenate([[0.25, shares[0] - 0.25], shares[1:]])
    return LengthHistogram(edges, shares)


def draw_pair(
    prompt: LengthHistogram, output: LengthHistogram, size: int, rng: np.random.Generator, copula: float = LENGTH_COPULA
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Prompt and output tokens of `size` requests, integers >= 1 with the histograms' means, shapes (size,)."""
    z = rng.standard_normal(size)
    w = copula * z + np.sqrt(1.0 - copula**2) * rng.standard_normal(size)
    noise = rng.random((2, size))

    def whole(histogram: LengthHistogram, normal: Array, u: Array) -> NDArray[np.int32]:
        # Rounded at random to a neighbour, which keeps the mean.
        return np.maximum(1, np.floor(histogram.quantile(ndtr(normal)) + u)).astype(np.int32)

    return whole(prompt, z, noise[0]), whole(output, w, noise[1])
