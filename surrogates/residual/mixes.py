"""Random mixes of adapters under settings of a grid, and columns such as solvers propose.

A draw depends on its generator and the settings alone, so that rays can be made in any order and resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twin.server.settings import EngineSetting
from twin.workload.adapter import DEFAULT_TTFT_P99_S, PUBLISHED_OUTPUT_CV, PUBLISHED_PROMPT_CV, Adapter, Lengths

Floats = NDArray[np.float64]

MAX_ADAPTERS = 384
MIN_RATE, MAX_RATE = 0.002, 6.0
ADAPTER_RANKS = (8, 16, 32, 64)
#: Mean lengths of the publications (ShareGPT), tokens.
PUBLISHED_PROMPT, PUBLISHED_OUTPUT = 223.0, 197.0
SHORTEST, LONGEST = 8.0, 3000.0
#: Most slots of settings that have few, and the largest CV of the gaps between arrivals.
FEW_SLOTS, MAX_BURSTY_CV = 32, 10.0

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
class Emphasis:
    """How often a draw is what.

    Args:
        few_slots: share with at most `FEW_SLOTS` slots; None = slots as the settings have them.
        within_slots: share with no more adapters than slots.
        bursty: share with bursty arrivals. bursty_cv: their least typical CV.
        other_promise: share with another TTFT promise than the default. promises_s: these, drawn log-uniformly, s.
    """

    few_slots: float | None = None
    within_slots: float = 0.5
    bursty: float = 0.3
    bursty_cv: float = 1.0
    other_promise: float = 0.15
    promises_s: tuple[float, float] = (1.0, 20.0)


#: Draws as they come, and where the physics is weakest.
USUAL = Emphasis()
HARD = Emphasis(
    few_slots=0.45, within_slots=0.3, bursty=0.5, bursty_cv=2.5, other_promise=0.6, promises_s=(0.2, 90.0)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mix:
    """N adapters as arrays of shape (N,): the fields of `twin.workload.adapter.Adapter`, spread of lengths as CV."""

    rank: Floats
    rate_req_per_s: Floats
    prompt_mean: Floats
    prompt_cv: Floats
    output_mean: Floats
    output_cv: Floats
    arrival_cv: Floats
    cached_prompt_fraction: Floats
    length_correlation: Floats

    def __len__(self) -> int:
        return len(self.rate_req_per_s)

    def adapters(self, factor: float = 1.0) -> tuple[Adapter, ...]:
        """The adapters with all rates multiplied by a factor."""
        columns = (
            self.rank, self.rate_req_per_s, self.prompt_mean, self.prompt_cv, self.output_mean, self.output_cv,
            self.arrival_cv, self.cached_prompt_fraction, self.length_correlation,
        )  # fmt: skip
        return tuple(
            Adapter(
                f"adapter-{k}", int(rank), factor * rate, Lengths(prompt, prompt_cv), Lengths(output, output_cv),
                arrival_cv=cv, cached_prompt_fraction=cached, length_correlation=correlation,
            )
            for k, (rank, rate, prompt, prompt_cv, output, output_cv, cv, cached, correlation) in enumerate(
                zip(*(c.tolist() for c in columns), strict=True)
            )
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Draw:
    """A mix under a setting, whose rates a ray scales.

    Args:
        slo_s: TTFT promise of all its adapters.
        simulation_seed: of the twin. One for each ray: with one for all, all rays would have the same luck.
    """

    mix: Mix
    setting: EngineSetting
    kind: str
    slo_s: float
    simulation_seed: int


def draw(rng: np.random.Generator, settings: Sequence[EngineSetting], emphasis: Emphasis = USUAL) -> Draw:
    """A mix and a setting: these evenly over `max_loras`, half of them with adapters <= slots."""
    choices = sorted({s.max_loras for s in settings})
    if emphasis.few_slots is not None and rng.random() < emphasis.few_slots:
        choices = [slots for slots in choices if slots <= FEW_SLOTS] or choices
    slots = rng.choice(choices)
    fitting = [s for s in settings if s.max_loras == slots]
    setting = fitting[int(rng.integers(len(fitting)))]
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    count = _count(rng, setting.max_loras, kind, emphasis)
    rates, ranks = _rates(rng, count, kind), _ranks(rng, count, setting.max_lora_rank)
    mix = _traffic(rng, rates, ranks, kind == "homogeneous", emphasis)
    if rng.random() < 0.15:
        mix = _with_base_model(rng, mix)
    slo_s = DEFAULT_TTFT_P99_S
    if rng.random() < emphasis.other_promise:
        slo_s = round(_log_uniform_number(rng, *emphasis.promises_s), 2)
    return Draw(mix, setting, kind, slo_s, int(rng.integers(2**31)))


def _count(rng: np.random.Generator, slots: int, kind: str, emphasis: Emphasis) -> int:
    if kind == "hot":
        return int(rng.integers(1, 17))
    few = slots >= MAX_ADAPTERS or rng.random() < (
        min(0.3, emphasis.within_slots) if kind == "cold" else emphasis.within_slots
    )
    if few:
        # Half spread evenly, half in orders of magnitude: one adapter on 384 slots occurs as well.
        high = min(slots, MAX_ADAPTERS)
        return int(rng.integers(1, high + 1)) if rng.random() < 0.6 else round(_log_uniform_number(rng, 1, high))
    return min(MAX_ADAPTERS, round(_log_uniform_number(rng, slots + 1, MAX_ADAPTERS)))


def _log_uniform(rng: np.random.Generator, low: float, high: float, size: int) -> Floats:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def _log_uniform_number(rng: np.random.Generator, low: float, high: float) -> float:
    return float(_log_uniform(rng, low, high, 1)[0])


def _rates(rng: np.random.Generator, count: int, kind: str) -> Floats:
    if kind == "homogeneous":
        return np.full(count, _log_uniform_number(rng, MIN_RATE, MAX_RATE))
    if kind == "cold":
        return _log_uniform(rng, MIN_RATE, 0.02, count)
    if kind == "hot":
        return _log_uniform(rng, 0.5, MAX_RATE, count)
    if kind == "hot_and_cold":
        hot = int(np.ceil(count * rng.uniform(0.02, 0.5)))
        low = _log_uniform_number(rng, MIN_RATE, 0.05)
        rates = np.full(count, low)
        rates[:hot] = low * _log_uniform_number(rng, 10, 1000)
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
    low, high = np.sort(_log_uniform(rng, MIN_RATE, MAX_RATE, 2)).tolist()
    return _log_uniform(rng, low, high, count)


def _skewed(rng: np.random.Generator, count: int) -> Floats:
    """Pareto-like rates: the top tenth makes up to four fifths of the requests."""
    exponent = rng.uniform(0.6, 2.0)
    return np.asarray(_log_uniform_number(rng, 0.1, 6.0) * rng.permutation(np.arange(1, count + 1) ** -exponent))


def _ranks(rng: np.random.Generator, count: int, max_lora_rank: int) -> Floats:
    allowed = [float(r) for r in ADAPTER_RANKS if r <= max_lora_rank] or [float(max_lora_rank)]
    if rng.random() < 0.4:
        return np.full(count, float(max_lora_rank))
    return rng.choice(np.array(allowed), count, p=rng.dirichlet(np.ones(len(allowed))))


def _traffic(rng: np.random.Generator, rates: Floats, ranks: Floats, alike: bool, emphasis: Emphasis) -> Mix:
    """Lengths, burstiness and prefix caching: published values for about a half, wide ranges for the rest."""
    n = len(rates)
    prompt, output = PUBLISHED_PROMPT, PUBLISHED_OUTPUT
    prompt_cv, output_cv = PUBLISHED_PROMPT_CV, PUBLISHED_OUTPUT_CV
    jitter = np.zeros((2, n))
    style = rng.choice(["published", "scaled", "mixed"], p=[0.4, 0.3, 0.3])
    if style != "published":
        prompt, output = _log_uniform_number(rng, 30, 1500), _log_uniform_number(rng, 20, 700)
        prompt_cv, output_cv = rng.uniform(0.0, 1.5, 2).tolist()
    if style == "mixed" and not alike:
        jitter = rng.normal(0.0, rng.uniform(0.2, 0.9), (2, n))
    correlation = rng.uniform(-0.5, 0.5) if rng.random() < 0.3 else 0.0
    # Wide spreads leave no room for a strong negative correlation of positive lengths.
    correlation = max(correlation, -0.8 / max(prompt_cv * output_cv, 1e-9))
    arrival_cv = np.ones(n)
    if rng.random() < emphasis.bursty:
        typical = _log_uniform_number(rng, emphasis.bursty_cv, MAX_BURSTY_CV)
        spread = 0.0 if alike else rng.uniform(0.0, 0.6)
        arrival_cv = np.clip(typical * np.exp(rng.normal(0.0, spread, n)), 1.0, MAX_BURSTY_CV)
    cached = np.zeros(n)
    if rng.random() < 0.2:
        cached = np.full(n, rng.uniform(0.1, 0.8)) if rng.random() < 0.5 or alike else rng.uniform(0, 0.8, n)
    return Mix(
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


def _with_base_model(rng: np.random.Generator, mix: Mix) -> Mix:
    """Adds requests to the base model (rank 0): 5-60 % of all, lengths of a random adapter."""
    share, like = rng.uniform(0.05, 0.6), int(rng.integers(len(mix)))
    arrays = {name: np.append(getattr(mix, name), getattr(mix, name)[like]) for name in Mix.__slots__}
    arrays["rank"][-1] = 0.0
    arrays["rate_req_per_s"][-1] = mix.rate_req_per_s.sum() * share / (1 - share)
    return replace(mix, **arrays)
