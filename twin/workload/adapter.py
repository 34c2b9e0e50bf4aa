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
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated

from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.workload.rates import MAX_CV, MIN_ARRIVAL_CV, RateProcess, mean_factor, planned_at

#: Coefficients of variation of the request lengths of arXiv 2602.24044 (ShareGPT): what a table without spreads gets.
PUBLISHED_PROMPT_CV = 1.1
PUBLISHED_OUTPUT_CV = 1.06
#: Promise of an adapter that makes none: at most 1 % of its requests wait longer for their first token, seconds.
DEFAULT_TTFT_P99_S = 5.0
#: Shapes of a length distribution, see `Lengths`.
LENGTH_SHAPES = ("gamma", "lognormal", "constant", "empirical")
#: Points of an empirical quantile function, see `Lengths.quantiles`.
QUANTILE_POINTS, QUANTILE_Z_MAX = 201, 4.0


#: What the fields are called in messages.
_WORDS = {
    "rate_req_per_s": "rate",
    "arrival_cv": "arrival CV",
    "cached_prompt_fraction": "cached prompt fraction",
    "length_correlation": "length correlation",
}


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

    mean: Annotated[float, Range(1, unit="tokens")]
    cv: Annotated[float, Range(0, MAX_CV, hint="standard deviation / mean, e.g. 1.1")]
    shape: str = "gamma"
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, {"mean": "mean length", "cv": "length spread (CV)"}.__getitem__)
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
        return self.mean * self.mean * (1 + self.cv * self.cv)


#: What can be promised to an adapter, as fields of `Slo`, and what they are called in sentences.
PROMISES = {
    "ttft_p99_s": "TTFT p99",
    "itl_mean_ms": "mean ITL",
    "tpot_mean_ms": "mean TPOT",
    "e2e_mean_s": "mean E2E",
}


@dataclass(frozen=True, slots=True)
class Slo:
    """Service-level objective of an adapter; or, as `constraint.slo`, of all adapters without one of their own.

    Each promise stands for itself: None = none of the adapter's own, so that the constraint's holds, if there is one.
    docs/metrics.md defines the figures.

    Args:
        ttft_p99_s: at most 1 % of requests wait longer than this for their first token.
        default_binds: promises of which the default of the constraint holds as well, and the stricter of the two
            counts: some of the adapter's tenants have none of their own (`twin.workload.workload.merge_tenants`).
            True = all that are given here.
        itl_mean_ms: most milliseconds between two tokens, mean over all tokens but the first of each request.
        tpot_mean_ms: most milliseconds per output token, mean over requests (of (E2E - TTFT) / (output tokens - 1)).
        e2e_mean_s: most seconds from a request to its last token, mean over requests.
    """

    ttft_p99_s: Annotated[float | None, Range(above=0, unit="seconds", hint="e.g. 5.0")] = DEFAULT_TTFT_P99_S
    default_binds: bool | tuple[str, ...] = False
    itl_mean_ms: Annotated[float | None, Range(above=0, unit="milliseconds", hint="e.g. 40.0")] = None
    tpot_mean_ms: Annotated[float | None, Range(above=0, unit="milliseconds", hint="e.g. 40.0")] = None
    e2e_mean_s: Annotated[float | None, Range(above=0, unit="seconds", hint="e.g. 10.0")] = None

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"SLO on {PROMISES[name]}")
        asked = self.default_binds
        binding = tuple(PROMISES) if asked is True else asked or ()
        for name in binding:
            if name not in PROMISES:
                raise InputError(f"{name!r} is not a promise", remedy=f"use some of {', '.join(PROMISES)}")
        # One spelling for one meaning: of a promise that is not given here the default holds anyway.
        given = tuple(name for name in PROMISES if name in binding and getattr(self, name) is not None)
        object.__setattr__(self, "default_binds", given)

    def binding(self, promise: str) -> bool:
        """Whether the constraint's default of this promise holds beside the one given here."""
        return isinstance(self.default_binds, tuple) and promise in self.default_binds


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
        path: where a server finds its weights; None = the exporter decides. It changes no figure, so that adapters are
            equal whatever it is.
    """

    adapter_id: str
    rank: Annotated[int, Range(0, hint="0 stands for the base model")]
    rate_req_per_s: Annotated[
        float,
        Range(
            above=0, high=1e12, unit="requests/s", hint="leave out adapters without traffic, or give them a small rate"
        ),
    ]
    prompt_tokens: Lengths
    output_tokens: Lengths
    arrival_cv: Annotated[float, Range(MIN_ARRIVAL_CV, MAX_CV, hint="1 is Poisson; bursty tenants have 2-6")] = 1.0
    cached_prompt_fraction: Annotated[float, Range(0, below=1)] = 0.0
    length_correlation: Annotated[float, Range(-1, 1)] = 0.0
    slo: Slo | None = None
    pinned_gpu: str | None = None
    rate_process: RateProcess | None = None
    path: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        def wrong(problem: str, remedy: str) -> InputError:
            return InputError(f"adapter {self.adapter_id!r}: {problem}", remedy=remedy)

        if not self.adapter_id:
            raise wrong("the adapter id is empty", "give every adapter a name")
        check_fields(self, lambda name: f"adapter {self.adapter_id!r}: {_WORDS.get(name, name)}")
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

    def promised(self, promise: str, default: float | None) -> float:
        """The limit of one of `PROMISES` that holds: the adapter's own, the default, or the stricter; inf = none."""
        own: float | None = None if self.slo is None else getattr(self.slo, promise)
        fallback = math.inf if default is None else default
        if self.slo is None or own is None:
            return fallback
        return min(own, fallback) if self.slo.binding(promise) else own

    def ttft_slo_s(self, default_s: float | None) -> float:
        """TTFT promise in seconds: `default_s` where the adapter has none of its own, or where that binds too."""
        return self.promised("ttft_p99_s", default_s)
