"""Workloads made from a few numbers: the published shape, and popularity by a power law."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.config.arguments import number, sequence, whole_number
from twin.errors import InputError
from twin.sources.dealing import adapter_names, deal_ranks, lora_ranks, power_law_shares
from twin.traffic.options import with_traffic_options
from twin.wording import counted, percent
from twin.workload.adapter import PUBLISHED_OUTPUT_CV, PUBLISHED_PROMPT_CV, Adapter, Lengths
from twin.workload.workload import Workload

#: Request lengths of the Placement publication (ShareGPT): 223 tokens in, 197-200 out, negatively correlated.
PUBLISHED_PROMPT_MEAN = 223.0
PUBLISHED_OUTPUT_MEAN = 198.0
PUBLISHED_LENGTH_CORRELATION = -0.4
BASE_MODEL_ID = "base-model"


def discrete_rates(
    n_adapters: int,
    rates: Any,
    ranks: Any,
    seed: int = 0,
    prompt_mean: float = PUBLISHED_PROMPT_MEAN,
    prompt_cv: float = PUBLISHED_PROMPT_CV,
    output_mean: float = PUBLISHED_OUTPUT_MEAN,
    output_cv: float = PUBLISHED_OUTPUT_CV,
    length_correlation: float = PUBLISHED_LENGTH_CORRELATION,
    arrival_cv: float = 1.0,
    length_shape: str = "gamma",
    drift: Any = None,
    plan_rate: str | float = "mean",
) -> Workload:
    """The shape of the publications: adapter i has rate `rates[i mod len(rates)]`, Poisson arrivals.

    Ranks are `ranks[i mod len(ranks)]` over a shuffled order, as the published benchmark does, so that rate and rank
    are independent. The same seed gives the same workload.

    Args:
        n_adapters: number of adapters.
        rates: arrival rates of an adapter, requests per second.
        ranks: LoRA ranks, dealt evenly.
        seed: of the shuffle.
        prompt_mean, output_mean: tokens.
        prompt_cv, output_cv: standard deviation / mean of the lengths.
        length_correlation: of prompt and output length of a request.
        arrival_cv: of the gaps between an adapter's arrivals; 1 = Poisson.
        length_shape: `gamma`, `lognormal`, `constant` or `published` (`twin.traffic.length_shapes`).
        drift: how rates change, a `twin.traffic.drift.Drift`; None = they do not.
        plan_rate: which rate of a changing one is planned for: `mean`, `peak` or a quantile over time.

    Raises:
        InputError: an option is out of range.
    """
    n = whole_number(n_adapters, "workload.n_adapters", low=1)
    option = "workload.rates"
    values = [number(r, option, above=0.0) for r in sequence(rates, option, example="[0.1, 0.05, 0.025]")]
    kinds = lora_ranks(ranks)
    rng = np.random.default_rng(whole_number(seed, "workload.seed"))
    dealt = rng.permutation(np.resize(kinds, n))
    prompt, output = _lengths("prompt", prompt_mean, prompt_cv), _lengths("output", output_mean, output_cv)
    correlation = _checked_correlation(length_correlation, prompt, output)
    cv = number(arrival_cv, "workload.arrival_cv", above=0.0, high=20.0)
    adapters = tuple(
        Adapter(name, int(dealt[i]), values[i % len(values)], prompt, output, cv, 0.0, correlation)
        for i, name in enumerate(adapter_names(n))
    )
    adapters, added = with_traffic_options(adapters, length_shape, drift, plan_rate)
    rate_text = " / ".join(f"{v:g}" for v in values)
    rank_text = "/".join(map(str, kinds))
    return Workload(
        adapters,
        "published",
        (
            f"{counted(n, 'adapter')} with rates of {rate_text} req/s in turn and ranks {rank_text}, "
            f"shuffled with seed {seed}.",
            *added,
        ),
    )


def power_law(
    n_adapters: int,
    total_rate_req_per_s: float,
    exponent: float,
    ranks: Any,
    rank_weights: Any = None,
    arrival_cv: Any = 1.0,
    bursty_share: float = 1.0,
    prompt_mean: float = PUBLISHED_PROMPT_MEAN,
    prompt_cv: float = PUBLISHED_PROMPT_CV,
    output_mean: float = PUBLISHED_OUTPUT_MEAN,
    output_cv: float = PUBLISHED_OUTPUT_CV,
    length_correlation: float = PUBLISHED_LENGTH_CORRELATION,
    length_scale_cv: float = 0.0,
    base_model_share: float = 0.0,
    cached_prompt_fraction: float = 0.0,
    seed: int = 0,
    name: str = "power law",
    length_shape: str = "gamma",
    drift: Any = None,
    plan_rate: str | float = "mean",
) -> Workload:
    """Popularity by a power law: the k-th most popular adapter has a rate proportional to `k ** -exponent`.

    Rates, ranks, burstiness and length scale are independent of each other. The same seed gives the same workload.

    Args:
        n_adapters: number of adapters (base-model traffic not counted).
        total_rate_req_per_s: arrivals of all adapters and the base model together, requests per second.
        exponent: 0 = all alike; real tenants have 1.3-1.8 in their popular half (ServeGen).
        ranks, rank_weights: LoRA ranks and their relative frequencies (None = equal).
        arrival_cv: of the gaps between an adapter's arrivals, 1 = Poisson; or `[low, high]`, drawn log-uniformly.
        bursty_share: share of adapters that get `arrival_cv`; the others are Poisson.
        prompt_mean, output_mean: tokens, mean over *requests* (also when adapters differ).
        prompt_cv, output_cv: standard deviation / mean of an adapter's lengths.
        length_correlation: of prompt and output length of a request.
        length_scale_cv: spread of mean lengths between adapters (lognormal, prompt and output separately); 0 = alike.
        base_model_share: share of the total rate that asks for the base model (one entry of rank 0, Poisson).
        cached_prompt_fraction: share of a prompt found in the prefix cache.
        seed: of everything drawn.
        name: of the workload.
        length_shape: `gamma`, `lognormal`, `constant` or `published` (`twin.traffic.length_shapes`).
        drift: how rates change, a `twin.traffic.drift.Drift`; None = they do not.
        plan_rate: which rate of a changing one is planned for: `mean`, `peak` or a quantile over time.

    Raises:
        InputError: an option is out of range.
    """
    n = whole_number(n_adapters, "workload.n_adapters", low=1)
    total = number(total_rate_req_per_s, "workload.total_rate_req_per_s", above=0.0)
    power = number(exponent, "workload.exponent", low=0.0, high=10.0)
    base_share = number(base_model_share, "workload.base_model_share", low=0.0, high=0.99)
    rng = np.random.default_rng(whole_number(seed, "workload.seed"))
    prompt, output = _lengths("prompt", prompt_mean, prompt_cv), _lengths("output", output_mean, output_cv)
    cached = number(cached_prompt_fraction, "workload.cached_prompt_fraction", low=0.0, high=0.99)
    correlation = _checked_correlation(length_correlation, prompt, output)

    shares = power_law_shares(n, power)
    rates = total * (1.0 - base_share) * shares
    dealt = deal_ranks(n, ranks, rank_weights, rng)
    cvs = _arrival_cvs(n, arrival_cv, number(bursty_share, "workload.bursty_share", low=0.0, high=1.0), rng)
    scale_cv = number(length_scale_cv, "workload.length_scale_cv", low=0.0, high=5.0)
    prompt_means = _mean_lengths(prompt.mean, scale_cv, shares, rng)
    output_means = _mean_lengths(output.mean, scale_cv, shares, rng)
    adapters = [
        Adapter(
            adapter_id,
            int(dealt[i]),
            float(rates[i]),
            Lengths(float(prompt_means[i]), prompt.cv),
            Lengths(float(output_means[i]), output.cv),
            float(cvs[i]),
            cached,
            correlation,
        )
        for i, adapter_id in enumerate(adapter_names(n))
    ]
    notes = [
        f"{counted(n, 'adapter')} share {rates.sum():.4g} req/s by a power law with exponent {power:g}; "
        f"the most popular tenth makes {percent(shares[: max(1, n // 10)].sum())} of their requests."
    ]
    bursty = int(np.count_nonzero(cvs != 1.0))
    if bursty:
        changed = cvs[cvs != 1.0]
        notes.append(
            f"{counted(bursty, 'adapter')} of {n} do not arrive as Poisson: the arrival CV is {changed.min():.2g} to "
            f"{changed.max():.2g}."
        )
    if base_share > 0:
        adapters.append(Adapter(BASE_MODEL_ID, 0, total * base_share, prompt, output, 1.0, cached, correlation))
        notes.append(f"{percent(base_share)} of all requests ask for the base model (rank 0, no adapter slot).")
    shaped, added = with_traffic_options(adapters, length_shape, drift, plan_rate)
    return Workload(shaped, name, (*notes, *added))


def _lengths(side: str, mean_tokens: float, cv: float) -> Lengths:
    return Lengths(
        number(mean_tokens, f"workload.{side}_mean", low=1.0), number(cv, f"workload.{side}_cv", low=0.0, high=20.0)
    )


def _checked_correlation(correlation: float, prompt: Lengths, output: Lengths) -> float:
    option = "workload.length_correlation"
    value = number(correlation, option, low=-1.0, high=1.0)
    if 1.0 + value * prompt.cv * output.cv <= 0:
        raise InputError(
            f"correlation {value:g} cannot hold for lengths >= 1 with CVs {prompt.cv:g} and {output.cv:g}: "
            "E[prompt * output] would be negative",
            where=f"option {option}",
            remedy=f"use a value above {-1 / (prompt.cv * output.cv):.3f}",
        )
    return value


def _arrival_cvs(n: int, arrival_cv: Any, bursty_share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    option = "workload.arrival_cv"
    if isinstance(arrival_cv, int | float):
        low = high = number(arrival_cv, option, above=0.0, high=20.0)
    else:
        limits = sequence(arrival_cv, option, example="1.0 or [1.0, 5.0]")
        if len(limits) != 2 or limits[0] > limits[1]:
            raise InputError(
                f"{limits} is not a range of arrival CVs", where=f"option {option}", remedy="give e.g. [1.0, 5.0]"
            )
        low, high = (number(v, option, above=0.0, high=20.0) for v in limits)
    drawn = np.exp(rng.uniform(np.log(low), np.log(high), n)) if low < high else np.full(n, low)
    cvs = np.ones(n)
    chosen = rng.permutation(n)[: round(bursty_share * n)]
    cvs[chosen] = drawn[chosen]
    return cvs


def _mean_lengths(
    mean_tokens: float, scale_cv: float, shares: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Mean length of each adapter, tokens, (n,): lognormal, >= 1, with a mean over requests of `mean_tokens`."""
    sigma = np.sqrt(np.log1p(scale_cv**2))
    scale = np.exp(sigma * rng.standard_normal(len(shares)))
    # Scaling what exceeds one token keeps both the floor and the mean over requests exactly.
    return np.asarray(1.0 + (mean_tokens - 1.0) * scale / (shares @ scale))
