"""Request lengths drawn from a published histogram (`twin.traffic.histogram`).

The shape of the output lengths decides how long a slot is held; moments alone miss it. To reach another mean all
lengths are stretched by one factor: another tokenizer cuts the same texts more or less finely. The spreads are then
those of the served data set (247 and 207 tokens); tilting the probabilities instead leaves them 6 and 8 % too wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr, ndtri

from twin.errors import InputError
from twin.traffic.histogram import COPULA, PROBABILITIES, published_quantiles

Array = NDArray[np.float64]
#: Probabilities of the quantiles that stand for a smooth distribution.
_GRID = np.concatenate([[1e-5, 1e-3], np.arange(1, 100) / 100, [0.995, 0.999, 0.9999, 0.99999]])


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
        """The same shares, all lengths stretched by one factor.

        Raises:
            InputError: not a positive number.
        """
        if not 0 < mean < math.inf:
            raise InputError(f"a mean length of {mean:g} tokens", remedy="use a number above 0")
        return LengthHistogram(self.edges * (mean / self.mean), self.shares)

    def quantile(self, u: Array) -> Array:
        """Quantile function, tokens."""
        cumulative = np.concatenate([[0.0], np.cumsum(self.shares)])
        return np.interp(u, cumulative / cumulative[-1], self.edges)


def constant_length(tokens: float) -> LengthHistogram:
    """One length, no spread."""
    return LengthHistogram(np.array([tokens, tokens]), np.array([1.0]))


def gamma_shape(mean: float, sd: float) -> LengthHistogram:
    """A Gamma distribution with this mean and standard deviation, tokens."""
    shape = (mean / sd) ** 2
    return _of_quantiles(gammaincinv(shape, _GRID) * mean / shape)


def lognormal_shape(mean: float, sd: float) -> LengthHistogram:
    """A lognormal distribution with this mean and standard deviation, tokens; its tail is the longest."""
    sigma = np.sqrt(np.log1p((sd / mean) ** 2))
    return _of_quantiles(mean * np.exp(sigma * ndtri(_GRID) - sigma**2 / 2))


def _of_quantiles(tokens: Array) -> LengthHistogram:
    return LengthHistogram(tokens, np.diff(_GRID))


def published_histogram(side: str) -> LengthHistogram:
    """The published shape; `side` is `prompt` or `output`."""
    return LengthHistogram(published_quantiles(side, PROBABILITIES), np.diff(PROBABILITIES))


def draw_pair(
    prompt: LengthHistogram, output: LengthHistogram, size: int, rng: np.random.Generator, copula: float = COPULA
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Prompt and output tokens of `size` requests, integers >= 1 with the histograms' means, shapes (size,)."""
    z = rng.standard_normal(size)
    w = copula * z + np.sqrt(1.0 - copula**2) * rng.standard_normal(size)
    noise = rng.random((2, size))

    def whole(histogram: LengthHistogram, normal: Array, u: Array) -> NDArray[np.int32]:
        # Rounded at random to a neighbour, which keeps the mean.
        return np.maximum(1, np.floor(histogram.quantile(ndtr(normal)) + u)).astype(np.int32)

    return whole(prompt, z, noise[0]), whole(output, w, noise[1])
