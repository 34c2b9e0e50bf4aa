"""Shapes of length distributions: how a workload chooses one, and how recorded lengths become one.

`gamma` (default) and `lognormal` have the mean and CV that an adapter gives; the lognormal has the longer tail.
`constant` has no spread. `empirical` keeps the quantiles of recorded lengths, with their tail up to the longest.
`published` is the length histogram of the publications (ShareGPT), scaled to each adapter's mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.errors import InputError
from twin.traffic.histogram import COPULA, published_quantiles
from twin.workload.adapter import QUANTILE_POINTS, QUANTILE_Z_MAX, Adapter, Lengths

#: What a workload's option `length_shape` may be; `empirical` needs recorded requests.
CHOICES = ("gamma", "lognormal", "constant", "published")
RECORDED_CHOICES = (*CHOICES, "empirical")


@lru_cache
def _probabilities() -> NDArray[np.float64]:
    """Probabilities of `Lengths.quantiles`, (201,)."""
    from twin import portable  # compiled code: only where it is asked for

    return portable.normal_cdf(np.linspace(-QUANTILE_Z_MAX, QUANTILE_Z_MAX, QUANTILE_POINTS))


def check_length_shape(shape: Any, choices: tuple[str, ...] = CHOICES) -> str:
    """Checks the option `workload.length_shape`."""
    if shape in choices:
        return str(shape)
    needs = " (empirical needs recorded requests)" if shape == "empirical" else ""
    raise InputError(
        f"{shape!r} is not a shape of lengths here{needs}",
        where="option workload.length_shape",
        remedy=f"use one of {', '.join(choices)}",
    )


def recorded_quantiles(tokens: ArrayLike) -> tuple[float, ...]:
    """The 201 quantiles of `Lengths.quantiles` for R recorded lengths (tokens; less than 1 counts as 1).

    Raises:
        InputError: no lengths, or some that are no numbers.
    """
    values = np.asarray(tokens, np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        wrong = "no recorded lengths" if values.size == 0 else "a recorded length is not a number"
        raise InputError(f"{wrong}: a distribution cannot be made from them", remedy="give numbers of tokens")
    # Hazen's rule: the ends are the shortest and the longest, so that the tail is kept.
    quantiles = np.quantile(np.maximum(values, 1.0), _probabilities(), method="hazen")
    return tuple(np.maximum.accumulate(quantiles).tolist())


def empirical_lengths(tokens: ArrayLike, mean: float | None = None) -> Lengths:
    """The distribution of R recorded lengths in tokens, or the same stretched to another mean."""
    quantiles = recorded_quantiles(tokens)
    values = np.maximum(np.asarray(tokens, np.float64), 1.0)
    own = float(values.mean())
    return Lengths(own if mean is None else mean, float(values.std()) / own, "empirical", quantiles)


def published_lengths(mean_prompt: float, mean_output: float) -> tuple[Lengths, Lengths, float]:
    """Prompt and output lengths with the published histogram's shape and these means (tokens); their correlation."""
    from twin.traffic.lengths import copula_correlation, form_of  # compiled code: only where it is asked for

    prompt, output = (
        Lengths(mean, cv, "empirical", quantiles)
        for mean, (cv, quantiles) in ((mean_prompt, _published("prompt")), (mean_output, _published("output")))
    )
    correlation = copula_correlation(form_of(prompt)[1], form_of(output)[1], COPULA)
    return prompt, output, round(correlation, 3)


@lru_cache
def _published(side: str) -> tuple[float, tuple[float, ...]]:
    """CV and quantiles of the published lengths of one side."""
    # Fine steps of probability: 201 points would miss the tail's share of the variance.
    steps = np.asarray(published_quantiles(side, (np.arange(100_000) + 0.5) / 100_000))
    quantiles = published_quantiles(side, _probabilities())
    return float(steps.std() / steps.mean()), tuple(np.asarray(quantiles).tolist())


def with_length_shape(adapters: Iterable[Adapter], shape: str) -> tuple[Adapter, ...]:
    """The adapters with lengths of another shape and the same means.

    `constant` sets the CVs to 0; `published` sets CVs and correlation to those of the published lengths.
    Adapters whose lengths have a shape already (other than `gamma`) keep it.
    """
    check_length_shape(shape)
    if shape == "gamma":
        return tuple(adapters)
    shaped = []
    for adapter in adapters:
        prompt, output, correlation = adapter.prompt_tokens, adapter.output_tokens, adapter.length_correlation
        if (prompt.shape, output.shape) != ("gamma", "gamma"):
            shaped.append(adapter)
            continue
        if shape == "lognormal":
            prompt, output = replace(prompt, shape=shape), replace(output, shape=shape)
        elif shape == "constant":
            prompt, output = Lengths(prompt.mean, 0.0, shape), Lengths(output.mean, 0.0, shape)
        else:
            prompt, output, correlation = published_lengths(prompt.mean, output.mean)
        shaped.append(replace(adapter, prompt_tokens=prompt, output_tokens=output, length_correlation=correlation))
    return tuple(shaped)


def length_note(shape: str) -> str:
    """What an option other than `gamma` means, for a workload's notes."""
    return {
        "lognormal": "Lengths are lognormal, with the given means and spreads.",
        "constant": "Lengths are constant: each adapter's mean, without any spread.",
        "published": "Lengths have the published shape, spread and correlation, scaled to each adapter's mean.",
        "empirical": "Lengths have the quantiles of the recorded ones, tail included.",
    }[shape]
