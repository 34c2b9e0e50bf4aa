"""Request lengths: integers >= 1 whose mean, spread and correlation are the ones asked for.

A length is `1 + round(Y)` with Y of the shape asked for (Gamma unless said otherwise) and rounded at random to a
neighbour, which keeps the mean exactly. (Redrawing from a normal clipped at 1, as the published twin does, inflates
tokens by 11 %.) Prompt and output of a request are joined by a Gaussian copula whose parameter is solved for, so that
the *correlation of the lengths* is the one asked for, up to what two such distributions of that spread can have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from twin import portable
from twin.compiled import allocating
from twin.traffic import streams
from twin.traffic.gamma_quantiles import log_gamma_quantiles
from twin.workload.adapter import QUANTILE_POINTS, QUANTILE_Z_MAX, Adapter, Lengths

Array = NDArray[np.float64]
Words = NDArray[np.uint64]

#: Grid of standard normal quantiles on which log-quantile tables are kept.
Z_MAX, Z_POINTS = 5.0, 401
_Z = np.linspace(-Z_MAX, Z_MAX, Z_POINTS)
_DENSITY = portable.exps(-0.5 * _Z * _Z)
_WEIGHTS = _DENSITY / math.fsum(_DENSITY)
#: Variance that random rounding adds on average, tokens^2.
ROUNDING_VARIANCE = 1.0 / 6.0
_HERMITE_TERMS = 16
#: Least part of a recorded length above 1 token, as logarithms need one.
_LEAST_TOKENS = 0.05

#: What decides the form of Y: shape, CV, and the quantiles of recorded lengths.
Form = tuple[str, float, tuple[float, ...]]
GAMMA = "gamma"


def variable_part(lengths: Lengths) -> tuple[float, float]:
    """Mean and CV of the variable Y behind a length `1 + round(Y)`."""
    mean = lengths.mean - 1.0
    if mean <= 1e-9:
        return 0.0, 0.0
    deviation = lengths.cv * lengths.mean
    variance = max(0.0, deviation * deviation - ROUNDING_VARIANCE)
    return mean, min(round(math.sqrt(variance) / mean, 3), 30.0)


def form_of(lengths: Lengths) -> tuple[float, Form]:
    """Mean and form of Y."""
    mean, cv = variable_part(lengths)
    if lengths.shape == "empirical":
        return mean, ("empirical", cv, lengths.quantiles)
    return mean, (lengths.shape if lengths.shape == "lognormal" else GAMMA, cv, ())


@lru_cache(maxsize=4096)
def log_quantiles(form: Form) -> Array:
    """log of the quantile function of Y / mean, on the grid of normal quantiles; shape (401,)."""
    shape_name, cv, recorded = form
    if cv < 1e-6:
        return np.zeros(Z_POINTS)
    if shape_name == "lognormal":
        table = math.sqrt(portable.log1p(cv * cv)) * _Z
    elif shape_name == "empirical":
        grid = np.linspace(-QUANTILE_Z_MAX, QUANTILE_Z_MAX, QUANTILE_POINTS)
        logs = portable.logs(np.maximum(np.array(recorded) - 1.0, _LEAST_TOKENS))
        table = portable.interpolate(_Z, grid, logs)
    else:
        table = log_gamma_quantiles(1.0 / (cv * cv), _Z)
    return np.asarray(table - portable.log(portable.dot(portable.exps(table), _WEIGHTS)))


def _cv(form: Form) -> float:
    """CV of Y as drawn."""
    if form[0] == GAMMA or form[1] < 1e-6:
        return form[1]
    return math.sqrt(max(0.0, portable.dot(portable.exps(2.0 * log_quantiles(form)), _WEIGHTS) - 1.0))


@lru_cache(maxsize=4096)
def _hermite(form: Form) -> Array:
    """Hermite coefficients of the quantile function, normalised so that their squares sum to the variance."""
    weighted = portable.exps(log_quantiles(form)) * _WEIGHTS
    coefficients, scale = [], 1.0
    before, polynomial = np.ones(Z_POINTS), _Z
    for k in range(1, _HERMITE_TERMS + 1):
        scale *= math.sqrt(k)
        coefficients.append(portable.dot(weighted, polynomial) / scale)
        before, polynomial = polynomial, _Z * polynomial - k * before
    return np.array(coefficients)


@lru_cache(maxsize=4096)
def copula_parameter(prompt: Form, output: Form, correlation: float) -> float:
    """Normal correlation that gives lengths of these forms the asked correlation (Mehler's expansion)."""
    prompt_cv, output_cv = _cv(prompt), _cv(output)
    if correlation == 0.0 or prompt_cv < 1e-6 or output_cv < 1e-6:
        return 0.0
    grid = np.linspace(-0.99, 0.99, 199)
    reached, powers = np.zeros(len(grid)), np.ones(len(grid))
    for product in (_hermite(prompt) * _hermite(output) / (prompt_cv * output_cv)).tolist():
        powers = powers * grid
        reached = reached + product * powers
    return float(portable.interpolate(correlation, reached, grid))


def copula_correlation(prompt: Form, output: Form, parameter: float) -> float:
    """Correlation of lengths of these forms under a normal copula with this parameter: `copula_parameter` inverted."""
    prompt_cv, output_cv = _cv(prompt), _cv(output)
    if prompt_cv < 1e-6 or output_cv < 1e-6:
        return 0.0
    powers = np.multiply.accumulate(np.full(_HERMITE_TERMS, parameter))
    return portable.dot(powers, _hermite(prompt) * _hermite(output)) / (prompt_cv * output_cv)


def length_classes(lengths: Lengths, longest: int) -> tuple[Array, Array, Array]:
    """400 classes of drawn lengths, shortest first: least and most tokens of each, and its probability; (400,) each.

    For sums that are certainly not above, or not below, what a simulation draws.

    Args:
        longest: most tokens; longer lengths are cut.
    """
    mean, form = form_of(lengths)
    y = mean * portable.exps(log_quantiles(form))
    below = portable.normal_cdf(_Z)
    below[0], below[-1] = 0.0, 1.0  # beyond the grid its ends are drawn
    low, high = 1.0 + np.floor(y[:-1] * (1 - 1e-12)), 1.0 + np.ceil(y[1:] * (1 + 1e-12))
    return np.minimum(low, longest), np.minimum(high, longest), np.diff(below)


@allocating
def _draw(
    stream: Words, adapter: NDArray[np.int32], mean: Array, table_of: NDArray[np.int32], tables: Array, copula: Array,
    cached_fraction: Array, longest: int, prompt: NDArray[np.int32], cached: NDArray[np.int32],
    output: NDArray[np.int32],
) -> None:  # fmt: skip
    step = 2.0 * Z_MAX / (Z_POINTS - 1)
    for r in range(len(adapter)):
        a = adapter[r]
        z0 = streams.normal(stream, a)
        z1 = copula[a] * z0 + np.sqrt(1.0 - copula[a] * copula[a]) * streams.normal(stream, a)
        u0, u1 = streams.uniform_pair(stream, a)
        tokens = 0
        for side in range(2):
            z = min(max(z0 if side == 0 else z1, -Z_MAX), Z_MAX - 1e-9)
            position = (z + Z_MAX) / step
            i = int(position)
            table = tables[table_of[2 * a + side]]
            y = mean[2 * a + side] * (table[i] + (position - i) * (table[i + 1] - table[i]))
            whole = np.floor(y)
            drawn = 1 + int(whole) + (1 if (u0 if side == 0 else u1) < y - whole else 0)
            # vLLM refuses longer prompts and cuts outputs.
            if side == 0:
                tokens = min(drawn, longest - 1)
                prompt[r] = tokens
                cached[r] = min(int(tokens * cached_fraction[a]), tokens - 1)
            else:
                output[r] = min(drawn, longest - tokens)


class LengthSampler:
    """Draws the lengths of requests of A adapters, each from a stream of its own.

    Args:
        adapters: whose length distributions are prepared once.
        keys: of their streams of lengths, (A,).
        max_model_len: longest request, tokens.
    """

    def __init__(self, adapters: Sequence[Adapter], keys: Words, max_model_len: int) -> None:
        means, table_of, copula = [], [], []
        index: dict[Form, int] = {}
        for a in adapters:
            (prompt_mean, prompt), (output_mean, output) = form_of(a.prompt_tokens), form_of(a.output_tokens)
            means += [prompt_mean, output_mean]
            table_of += [index.setdefault(form, len(index)) for form in (prompt, output)]
            copula.append(copula_parameter(prompt, output, round(a.length_correlation, 3)))
        self._longest = max_model_len
        self._cached_fraction = np.array([a.cached_prompt_fraction for a in adapters])
        self._means, self._table_of, self._copula = np.array(means), np.array(table_of, np.int32), np.array(copula)
        self._tables = np.stack([portable.exps(log_quantiles(form)) for form in index])
        self._streams = streams.streams(keys)

    def draw(self, adapter: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Prompt, cached and output tokens of the next requests of these adapters, (N,) each; `adapter` (N,)."""
        prompt, cached, output = (np.empty(len(adapter), np.int32) for _ in range(3))
        _draw(
            self._streams, adapter, self._means, self._table_of, self._tables, self._copula, self._cached_fraction,
            self._longest, prompt, cached, output,
        )  # fmt: skip
        return prompt, cached, output
