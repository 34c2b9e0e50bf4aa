"""What the steady state knows of an adapter: rates and moments of lengths, its burstiness, rank and promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.figures.promises import limit_of
from twin.workload.adapter import DEFAULT_TTFT_P99_S, Adapter, Lengths, Slo

Floats = NDArray[np.float64]

#: A prompt of this quantile must be computed within the promise: at most 5 % of an adapter's requests may be late.
LONG_PROMPT_Z = 1.645


@dataclass(frozen=True, slots=True)
class Items:
    """N adapters as arrays of shape (N,). Lengths in tokens, as a server with this `max_model_len` sees them.

    Args:
        rate_req_per_s: planned rate of requests.
        cv: coefficient of variation of the gaps between arrivals.
        rank: 0 = requests to the base model, which need no slot.
        output, output_2, output_3: E[o], E[o^2], E[o^3] of the output length.
        prompt, prompt_2: E[p], E[p^2] of the prompt length.
        prompt_output: E[p o].
        computed, computed_2: the same of the part of the prompt that no prefix cache holds, E[c], E[c^2].
        long_prompt: about the 95th percentile of c.
        ttft_slo_s, itl_slo_s, e2e_slo_s: promises on the 99th percentile of the TTFT, the mean ITL and the mean E2E
            latency, seconds; inf = none.
    """

    rate_req_per_s: Floats
    cv: Floats
    rank: Floats
    output: Floats
    output_2: Floats
    output_3: Floats
    prompt: Floats
    prompt_2: Floats
    prompt_output: Floats
    computed: Floats
    computed_2: Floats
    long_prompt: Floats
    ttft_slo_s: Floats
    itl_slo_s: Floats
    e2e_slo_s: Floats

    def __len__(self) -> int:
        return len(self.rate_req_per_s)


def items_of(adapters: Sequence[Adapter], *, max_model_len: int, default: Slo | None = None) -> Items:
    """Reads N adapters; those that are equal but for name and rate are read once.

    Args:
        max_model_len: prompts are cut to one token less, answers to what the prompt leaves.
        default: promises of adapters that have none of their own; None = a TTFT p99 of `DEFAULT_TTFT_P99_S`.
    """
    rows: dict[tuple[object, ...], tuple[float, ...]] = {}
    table = np.empty((len(adapters), 12))
    for n, a in enumerate(adapters):
        key = (a.prompt_tokens, a.output_tokens, a.cached_prompt_fraction, a.length_correlation)
        row = rows.get(key)
        if row is None:
            row = rows[key] = _lengths(a, max_model_len)
        table[n, :3] = a.rate_req_per_s, a.arrival_cv, a.rank
        table[n, 3:] = row
    default = default or Slo(DEFAULT_TTFT_P99_S)
    ttft_s, itl_ms, tpot_ms, e2e_s = (
        limit_of(name, adapters, default) for name in ("ttft_p99_s", "itl_mean_ms", "tpot_mean_ms", "e2e_mean_s")
    )
    # A mean over tokens or over requests: in a steady state every token takes the same time.
    itl_s = np.minimum(itl_ms, tpot_ms) / 1000.0
    columns = [*np.ascontiguousarray(table.T), ttft_s, itl_s, e2e_s]
    return Items(*columns)


def _lengths(a: Adapter, longest: int) -> tuple[float, ...]:
    """The nine moments of an adapter's lengths, in the order of the fields."""
    prompt, prompt_2, _ = _moments(a.prompt_tokens, longest - 1.0)
    output, output_2, output_3 = _moments(a.output_tokens, max(1.0, longest - prompt))
    spread = a.prompt_tokens.cv * a.output_tokens.cv * a.length_correlation
    computed = 1.0 - a.cached_prompt_fraction
    deviation = max(0.0, prompt_2 - prompt * prompt) ** 0.5
    long_prompt = min(longest - 1.0, prompt + LONG_PROMPT_Z * deviation)
    return (
        output, output_2, output_3, prompt, prompt_2, prompt * output * (1.0 + spread), max(1.0, prompt * computed),
        max(1.0, prompt_2 * computed * computed), max(1.0, long_prompt * computed),
    )  # fmt: skip


def _moments(lengths: Lengths, longest: float) -> tuple[float, float, float]:
    """E[min(X, c)^j], j = 1, 2, 3, of a length X; shapes other than lognormal and constant as Gamma."""
    mean, square = lengths.mean, lengths.cv * lengths.cv
    if square < 1e-12:
        cut = min(mean, longest)
        return cut, cut * cut, cut**3
    third = (1.0 + square) ** 3 if lengths.shape == "lognormal" else (1.0 + square) * (1.0 + 2.0 * square)
    whole = (mean, mean * mean * (1.0 + square), mean**3 * third)
    if mean * (1.0 + 12.0 * lengths.cv) < longest:
        return whole
    # Where lengths are cut only: half of the time until a planning model answers first.
    from scipy.special import gammainc

    shape, x = 1.0 / square, longest / (mean * square)
    inside = gammainc(shape + np.arange(4), x)
    first, second, cube = (float(w * inside[j + 1] + longest ** (j + 1) * (1 - inside[0])) for j, w in enumerate(whole))
    return max(1.0, first), max(1.0, second), max(1.0, cube)
