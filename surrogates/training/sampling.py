"""Random mixes of adapters, and columns such as solvers propose, under settings of a grid.

`sample(seed, index, settings)` depends on its arguments alone, so a data set can be made in any order and resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from surrogates.model.features import AdapterArrays
from twin.server.settings import EngineSetting

Array = NDArray[np.float64]

MAX_ADAPTERS = 384
MIN_RATE, MAX_RATE = 0.002, 6.0
ADAPTER_RANKS = (8, 16, 32, 64)
#: Mean lengths and spreads of the publications (ShareGPT).
PUBLISHED_PROMPT, PUBLISHED_OUTPUT = (223.0, 1.1), (197.0, 1.06)
SHORTEST, LONGEST = 8.0, 3000.0

#: Share of each kind of mix. All but the first imitate columns that solvers propose.
KINDS: dict[str, float] = {
    "random": 0.45,
    "homogeneous": 0.12,
    "hot_and_cold": 0.16,
    "cold": 0.06,
    "hot": 0.06,
    "even_split": 0.15,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A mix of adapters under a setting; rays scale its rates."""

    adapters: AdapterArrays
    setting_index: int
    kind: str


def sample(seed: int, index: int, settings: Sequence[EngineSetting]) -> Sample:
    """The `index`-th mix of a seed: settings evenly over `max_loras`, half of them with adapters <= slots."""
    rng = np.random.default_rng([seed, index])
    slots = rng.choice(sorted({s.max_loras for s in settings}))
    setting_index = int(rng.choice([k for k, s in enumerate(settings) if s.max_loras == slots]))
    setting = settings[setting_index]
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    count = _count(rng, setting.max_loras, kind)
    rates = _rates(rng, count, kind)
    adapters = _traffic(rng, rates, _ranks(rng, count, setting.max_lora_rank), alike=kind == "homogeneous")
    if rng.random() < 0.15:
        adapters = _with_base_model(rng, adapters)
    return Sample(adapters, setting_index, kind)


def _count(rng: np.random.Generator, slots: int, kind: str) -> int:
    if kind == "hot":
        return int(rng.integers(1, 17))
    few = slots >= MAX_ADAPTERS or rng.random() < 0.5
    if kind == "cold":
        few = slots >= MAX_ADAPTERS or rng.random() < 0.3
    if few:
        # Half spread evenly, half in orders of magnitude: one adapter on 384 slots occurs as well.
        high = min(slots, MAX_ADAPTERS)
        return int(rng.integers(1, high + 1)) if rng.random() < 0.6 else round(float(_log_uniform(rng, 1, high)))
    return min(MAX_ADAPTERS, round(float(_log_uniform(rng, slots + 1, MAX_ADAPTERS))))


def _log_uniform(rng: np.random.Generator, low: float, high: float, size: int | None = None) -> Array:
    return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), size)))


def _rates(rng: np.random.Generator, count: int, kind: str) -> Array:
    if kind == "homogeneous":
        return np.full(count, float(_log_uniform(rng, MIN_RATE, MAX_RATE)))
    if kind == "cold":
        return _log_uniform(rng, MIN_RATE, 0.02, count)
    if kind == "hot":
        return _log_uniform(rng, 0.5, MAX_RATE, count)
    if kind == "hot_and_cold":
        hot = int(np.ceil(count * rng.uniform(0.02, 0.5)))
        low = float(_log_uniform(rng, MIN_RATE, 0.05))
        rates = np.full(count, low)
        rates[:hot] = low * float(_log_uniform(rng, 10, 1000))
        return np.asarray(np.clip(rates, MIN_RATE, MAX_RATE))
    if kind == "even_split":
        # One GPU's share when a skewed workload is dealt out by falling rate.
        gpus = int(rng.integers(2, 21))
        whole = np.sort(_skewed(rng, count * gpus))[::-1]
        return np.clip(whole[int(rng.integers(gpus)) :: gpus][:count], MIN_RATE, MAX_RATE)
    shape = rng.choice(["power_law", "discrete", "log_uniform"])
    if shape == "power_law":
        return np.clip(_skewed(rng, count), MIN_RATE, MAX_RATE)
    if shape == "discrete":
        return np.asarray(rng.choice(_log_uniform(rng, MIN_RATE, 3.2, int(rng.integers(2, 5))), count))
    low, high = np.sort(_log_uniform(rng, MIN_RATE, MAX_RATE, 2))
    return _log_uniform(rng, float(low), float(high), count)


def _skewed(rng: np.random.Generator, count: int) -> Array:
    """Pareto-like rates: the top tenth makes up to four fifths of the requests."""
    exponent = rng.uniform(0.6, 2.0)
    return np.asarray(float(_log_uniform(rng, 0.1, 6.0)) * rng.permutation(np.arange(1, count + 1) ** -exponent))


def _ranks(rng: np.random.Generator, count: int, max_lora_rank: int) -> Array:
    allowed = [r for r in ADAPTER_RANKS if r <= max_lora_rank]
    if rng.random() < 0.4:
        return np.full(count, float(max_lora_rank))
    return rng.choice(np.array(allowed, dtype=np.float64), count, p=rng.dirichlet(np.ones(len(allowed))))


def _traffic(rng: np.random.Generator, rates: Array, ranks: Array, *, alike: bool) -> AdapterArrays:
    """Lengths, burstiness and prefix caching: published values for about a half, wide ranges for the rest."""
    n = len(rates)
    (prompt, prompt_cv), (output, output_cv) = PUBLISHED_PROMPT, PUBLISHED_OUTPUT
    jitter = np.zeros((2, n))
    style = rng.choice(["published", "scaled", "mixed"], p=[0.4, 0.3, 0.3])
    if style != "published":
        prompt, output = float(_log_uniform(rng, 30, 1500)), float(_log_uniform(rng, 20, 700))
        prompt_cv, output_cv = rng.uniform(0.0, 1.5, 2)
    if style == "mixed" and not alike:
        jitter = rng.normal(0.0, rng.uniform(0.2, 0.9), (2, n))
    correlation = rng.uniform(-0.5, 0.5) if rng.random() < 0.3 else 0.0
    # Wide spreads leave no room for a strong negative correlation of positive lengths.
    correlation = max(correlation, -0.8 / max(prompt_cv * output_cv, 1e-9))
    arrival_cv = np.ones(n)
    if rng.random() < 0.3:
        arrival_cv = np.clip(np.exp(rng.normal(np.log(1.5), 0.0 if alike else 0.5, n)) * rng.uniform(0.7, 2.5), 1, 5)
    cached = np.zeros(n)
    if rng.random() < 0.2:
        cached = np.full(n, rng.uniform(0.1, 0.8)) if rng.random() < 0.5 or alike else rng.uniform(0, 0.8, n)
    return AdapterArrays(
        rank=ranks,
        rate_req_per_s=rates,
        prompt_mean=np.clip(prompt * np.exp(jitter[0]), SHORTEST, LONGEST),
        prompt_cv=np.full(n, prompt_cv),
        output_mean=np.clip(output * np.exp(jitter[1]), SHORTEST, LONGEST),
        output_cv=np.full(n, output_cv),
        arrival_cv=arrival_cv,
        cached_prompt_fraction=cached,
        length_correlation=np.full(n, correlation),
    )


def _with_base_model(rng: np.random.Generator, adapters: AdapterArrays) -> AdapterArrays:
    """Adds requests to the base model (rank 0): 5-60 % of all, lengths of a random adapter."""
    share = rng.uniform(0.05, 0.6)
    row = adapters.matrix()[int(rng.integers(len(adapters)))].copy()
    base = replace(
        AdapterArrays.from_matrix(row[None]),
        rank=np.zeros(1),
        rate_req_per_s=np.array([adapters.rate_req_per_s.sum() * share / (1 - share)]),
    )
    return AdapterArrays.from_matrix(np.concatenate([adapters.matrix(), base.matrix()]))
