"""An adapter: its rank, its traffic, and the promise made about it.

    support = Adapter(
        "support-de", rank=16, rate_req_per_s=0.4, prompt_tokens=Lengths(350, 1.1), output_tokens=Lengths(180, 1.06)
    )
    base = Adapter("base-model", rank=0, ...)      # requests to the base model itself: no slot, never gated

Everything that decides what a server has to do for an adapter is a number of its own here, so that adapters can be
added, split (`scaled`) and moved without looking anything up. Adapters are values: equal numbers, equal adapter.
Nothing in this file draws a request; that is `twin.traffic`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from twin.errors import InputError
from twin.workload.rates import RateProcess, mean_factor, planned_at

#: Coefficients of variation of the request lengths of arXiv 2602.24044 (ShareGPT): what a table without spreads gets.
PUBLISHED_PROMPT_CV = 1.1
PUBLISHED_OUTPUT_CV = 1.06
#: Promise of an adapter that makes none: at most 1 % of its requests wait longer for their first token, seconds.
DEFAULT_TTFT_P99_S = 5.0
#: Shapes of a length distribution, see `Lengths`.
LENGTH_SHAPES = ("gamma", "lognormal", "constant", "empirical")
#: Points of an empirical quantile function, see `Lengths.quantiles`.
QUANTILE_POINTS, QUANTILE_Z_MAX = 201, 4.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Distribution of a request length, in tokens.

    Samples are integers >= 1 whose mean and spread are the ones given here (`twin.traffic.lengths`).

    Args:
        mean: mean length in tokens, >= 1.
        cv: coefficient of variation, standard deviation / mean; 0 = constant.
        shape: `gamma`; `lognormal`, with a longer tail; `constant` (cv 0); or `empirical`, that of recorded lengths.
        quantiles: for `empirical` only, quantiles of those lengths at 201 evenly spaced points -4..4 of the standard
            normal, >= 1, ascending. What is drawn is scaled to `mean`; `cv` is theirs (`twin.traffic.length_shapes`).
    """

    mean: float
    cv: float
    shape: str = "gamma"
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and self.mean >= 1):
            raise InputError(
                f"mean length {self.mean!r} is not a number of tokens >= 1",
                remedy="give the mean prompt and output length in tokens",
            )
        if not (math.isfinite(self.cv) and 0 <= self.cv <= 20):
            raise InputError(
                f"length spread (CV) {self.cv!r} is outside 0..20",
                remedy="give standard deviation / mean, e.g. 1.1",
            )
        if self.shape != "gamma":
            self._check_shape()
        elif self.quantiles:
            raise InputError("quantiles belong to lengths of shape 'empirical'", remedy="give that shape")

    def _check_shape(self) -> None:
        if self.shape not in LENGTH_SHAPES:
            raise InputError(
                f"{self.shape!r} is not a shape of lengths", remedy=f"use one of {', '.join(LENGTH_SHAPES)}"
            )
        if self.shape == "constant" and self.cv != 0:
            raise InputError(f"constant lengths have no spread, but their CV is {self.cv!r}", remedy="give cv 0")
        if (self.shape == "empirical") != bool(self.quantiles):
            raise InputError(
                f"lengths of shape {self.shape!r} with {len(self.quantiles)} quantiles",
                remedy="give quantiles with shape 'empirical', and with no other",
            )
        if self.quantiles:
            rising = all(a <= b for a, b in pairwise(self.quantiles))
            if len(self.quantiles) != QUANTILE_POINTS or not rising or self.quantiles[0] < 1:
                raise InputError(
                    f"{len(self.quantiles)} quantiles from {self.quantiles[0]!r} to {self.quantiles[-1]!r} tokens do "
                    "not describe lengths",
                    remedy=f"give {QUANTILE_POINTS} ascending numbers of tokens >= 1",
                )
            if not math.isfinite(self.quantiles[-1]):
                raise InputError(
                    f"quantile {self.quantiles[-1]!r} is not a number of tokens", remedy="give finite lengths"
                )

    @property
    def second_moment(self) -> float:
        """E[length^2] in tokens^2."""
        return self.mean**2 * (1 + self.cv**2)


@dataclass(frozen=True, slots=True)
class Slo:
    """Service-level objective: at most 1 % of requests wait longer than this for their first token."""

    ttft_p99_s: float = DEFAULT_TTFT_P99_S

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ttft_p99_s) and self.ttft_p99_s > 0):
            raise InputError(
                f"TTFT SLO {self.ttft_p99_s!r} s is not a positive number of seconds",
                remedy="use a value such as 5.0",
            )


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter, or a share of one, with its traffic.

    Args:
        adapter_id: name that a client puts into the request's `model` field.
        rank: LoRA rank; **0 = requests to the base model** (no slot, never gated).
        rate_req_per_s: mean arrival rate, requests per second, > 0 (or what `rate_process` says it stands for).
        prompt_tokens: prompt length distribution.
        output_tokens: output length distribution.
        arrival_cv: coefficient of variation of the gaps between arrivals; 1 = Poisson. With a `rate_process`: of the
            gaps that are left when its changes are taken out.
        cached_prompt_fraction: share of the prompt found in the prefix cache, 0..1 (exclusive).
        length_correlation: correlation of prompt and output length, -1..1 (Gaussian copula).
        slo: latency promise; None = the constraint's default.
        pinned_gpu: GPU that must host the adapter; None = any.
        rate_process: how the rate changes over time; None = it does not.
    """

    adapter_id: str
    rank: int
    rate_req_per_s: float
    prompt_tokens: Lengths
    output_tokens: Lengths
    arrival_cv: float = 1.0
    cached_prompt_fraction: float = 0.0
    length_correlation: float = 0.0
    slo: Slo | None = None
    pinned_gpu: str | None = None
    rate_process: RateProcess | None = None

    def __post_init__(self) -> None:
        def wrong(problem: str, remedy: str) -> InputError:
            return InputError(f"adapter {self.adapter_id!r}: {problem}", remedy=remedy)

        if not self.adapter_id:
            raise wrong("the adapter id is empty", "give every adapter a name")
        if not math.isfinite(self.rank) or self.rank != int(self.rank) or self.rank < 0:
            raise wrong(f"rank {self.rank!r} is not a whole number >= 0", "0 stands for the base model")
        if not (math.isfinite(self.rate_req_per_s) and self.rate_req_per_s > 0):
            raise wrong(
                f"rate {self.rate_req_per_s!r} req/s is not positive",
                "leave out adapters without traffic, or give them a small rate",
            )
        if not (math.isfinite(self.arrival_cv) and 0 < self.arrival_cv <= 20):
            raise wrong(f"arrival CV {self.arrival_cv!r} is outside 0..20", "1 is Poisson; bursty tenants have 2-6")
        if not 0 <= self.cached_prompt_fraction < 1:
            raise wrong(f"cached prompt fraction {self.cached_prompt_fraction!r} is outside [0, 1)", "use e.g. 0.3")
        if not -1 <= self.length_correlation <= 1:
            raise wrong(f"length correlation {self.length_correlation!r} is outside -1..1", "use e.g. -0.4 or 0")
        if self.in_out_moment <= 0:
            raise wrong(
                f"length correlation {self.length_correlation!r} is impossible with spreads (CV) "
                f"{self.prompt_tokens.cv:g} and {self.output_tokens.cv:g}",
                f"lengths are positive: use a value above {-1 / (self.prompt_tokens.cv * self.output_tokens.cv):.3f}",
            )

    @property
    def in_out_moment(self) -> float:
        """E[prompt * output] in tokens^2."""
        p, o = self.prompt_tokens, self.output_tokens
        return p.mean * o.mean * (1 + self.length_correlation * p.cv * o.cv)

    def scaled(self, factor: float) -> Adapter:
        """The same adapter with `factor` times the rate (a share of it, or growth)."""
        return replace(self, rate_req_per_s=self.rate_req_per_s * factor)

    @property
    def mean_rate_req_per_s(self) -> float:
        """Mean over time of the rate that is simulated: `rate_req_per_s` unless that stands for a peak."""
        return self.rate_req_per_s * mean_factor(self.rate_process)

    def planned_at(self, plan_rate: str | float) -> Adapter:
        """The same traffic, with `rate_req_per_s` its `mean`, `peak` or a quantile over time: the rate planned for."""
        if self.rate_process is None:
            return self
        process, factor = planned_at(self.rate_process, plan_rate)
        return replace(self, rate_process=process, rate_req_per_s=self.rate_req_per_s * factor)

    def ttft_slo_s(self, default_s: float) -> float:
        """TTFT promise in seconds, `default_s` where the adapter has none of its own."""
        return self.slo.ttft_p99_s if self.slo is not None else default_s
