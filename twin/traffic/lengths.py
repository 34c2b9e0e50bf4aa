"""Request lengths: integers >= 1 whose mean, spread and correlation are the ones asked for.

A length is `1 + round(Y)` with Y of the shape asked for (Gamma unless said otherwise) and rounded at random to a
neighbour, which keeps the mean exactly. (Redrawing from a normal clipped at 1, as the published twin does, inflates
tokens by 11 %.) Prompt and output of a request are joined by a Gaussian copula whose parameter is solved for, so that
the *correlation of the lengths* is the one asked for, up to what two such distributions of that spread can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_hermitenorm, gammaincinv, gammaln, ndtr

from twin.workload.adapter import QUANTILE_POINTS, QUANTILE_Z_MAX, Adapter, Lengths

Array = NDArray[np.float64]

#: Grid of standard normal quantiles on which log-quantile tables are kept.
Z_MAX, Z_POINTS = 5.0, 401
_Z = np.linspace(-Z_MAX, Z_MAX, Z_POINTS)
_DENSITY = np.exp(-0.5 * _Z**2)
_WEIGHTS = _DENSITY / _DENSITY.sum()
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
    variance = max(0.0, (lengths.cv * lengths.mean) ** 2 - ROUNDING_VARIANCE)
    return mean, min(round(float(np.sqrt(variance)) / mean, 3), 30.0)


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
        table = np.sqrt(np.log1p(cv**2)) * _Z
    elif shape_name == "empirical":
        grid = np.linspace(-QUANTILE_Z_MAX, QUANTILE_Z_MAX, QUANTILE_POINTS)
        table = np.interp(_Z, grid, np.log(np.maximum(np.array(recorded) - 1.0, _LEAST_TOKENS)))
    else:
        shape = 1.0 / cv**2
        with np.errstate(divide="ignore", under="ignore"):
            quantiles = gammaincinv(shape, ndtr(_Z)) / shape
        table = np.log(np.maximum(quantiles, 1e-12))
    return np.asarray(table - np.log(np.exp(table) @ _WEIGHTS))


def _cv(form: Form) -> float:
    """CV of Y as drawn."""
    if form[0] == GAMMA or form[1] < 1e-6:
        return form[1]
    return float(np.sqrt(np.maximum(0.0, np.exp(2 * log_quantiles(form)) @ _WEIGHTS - 1.0)))


@lru_cache(maxsize=4096)
def _hermite(form: Form) -> Array:
    """Hermite coefficients of the quantile function, normalised so that their squares sum to the variance."""
    values = np.exp(log_quantiles(form))
    return np.array(
        [
            (values * eval_hermitenorm(k, _Z)) @ _WEIGHTS / np.exp(0.5 * gammaln(k + 1.0))
            for k in range(1, _HERMITE_TERMS + 1)
        ]
    )


@lru_cache(maxsize=4096)
def copula_parameter(prompt: Form, output: Form, correlation: float) -> float:
    """Normal correlation that gives lengths of these forms the asked correlation (Mehler's expansion)."""
    prompt_cv, output_cv = _cv(prompt), _cv(output)
    if correlation == 0.0 or prompt_cv < 1e-6 or output_cv < 1e-6:
        return 0.0
    grid = np.linspace(-0.99, 0.99, 199)
    products = _hermite(prompt) * _hermite(output)
    powers = grid[:, None] ** np.arange(1, _HERMITE_TERMS + 1)
    return float(np.interp(correlation, powers @ products / (prompt_cv * output_cv), grid))


def copula_correlation(prompt: Form, output: Form, parameter: float) -> float:
    """Correlation of lengths of these forms under a normal copula with this parameter: `copula_parameter` inverted."""
    prompt_cv, output_cv = _cv(prompt), _cv(output)
    if prompt_cv < 1e-6 or output_cv < 1e-6:
        return 0.0
    powers = parameter ** np.arange(1, _HERMITE_TERMS + 1)
    return float(powers @ (_hermite(prompt) * _hermite(output)) / (prompt_cv * output_cv))


@nb.njit(cache=True, nogil=True)
def _draw(
    rng: np.random.Generator,
    adapter: NDArray[np.int32],
    mean: Array,
    table_of: NDArray[np.int32],
    tables: Array,
    copula: Array,
    prompt: NDArray[np.int32],
    output: NDArray[np.int32],
) -> None:
    step = 2.0 * Z_MAX / (Z_POINTS - 1)
    for r in range(len(adapter)):
        a = adapter[r]
        z0 = rng.standard_normal()
        z1 = copula[a] * z0 + np.sqrt(1.0 - copula[a] ** 2) * rng.standard_normal()
        for side in range(2):
            z = min(max(z0 if side == 0 else z1, -Z_MAX), Z_MAX - 1e-9)
            position = (z + Z_MAX) / step
            i = int(position)
            table = tables[table_of[2 * a + side]]
            y = mean[2 * a + side] * np.exp(table[i] + (position - i) * (table[i + 1] - table[i]))
            whole = np.floor(y)
            tokens = 1 + int(whole) + (1 if rng.random() < y - whole else 0)
            if side == 0:
                prompt[r] = tokens
            else:
                output[r] = tokens


class LengthSampler:
    """Draws the lengths of requests of A adapters.

    Args:
        adapters: whose length distributions are prepared once.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        means, table_of, copula = [], [], []
        index: dict[Form, int] = {}
        for a in adapters:
            (prompt_mean, prompt), (output_mean, output) = form_of(a.prompt_tokens), form_of(a.output_tokens)
            means += [prompt_mean, output_mean]
            table_of += [index.setdefault(form, len(index)) for form in (prompt, output)]
            copula.append(copula_parameter(prompt, output, round(a.length_correlation, 3)))
        self.cached_fraction = np.array([a.cached_prompt_fraction for a in adapters])
        self._means, self._table_of, self._copula = np.array(means), np.array(table_of, np.int32), np.array(copula)
        self._tables = np.stack([log_quantiles(form) for form in index])

    def draw(self, adapter: NDArray[np.int32], rng: np.random.Generator) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Prompt and output tokens of each request, shapes (N,), for `adapter` (N,) indices."""
        prompt, output = np.empty(len(adapter), np.int32), np.empty(len(adapter), np.int32)
        _draw(rng, adapter, self._means, self._table_of, self._tables, self._copula, prompt, output)
        return prompt, output
