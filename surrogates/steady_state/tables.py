"""Tables (adapter x pace): everything about a column that is a sum over its adapters once the pace is known.

A *pace* s is the mean time of a step, so that a request with o output tokens stays for o s seconds. At a fixed pace
the adapters of a column act independently, and their contributions add: a column is a sum of rows, and what a move
changes is a difference of rows. `linear` holds what is proportional to the pace or does not depend on it, `paced` what
is looked up at a pace, `aside` what is looked up at a pace and a time after the last request (few slots).

All that is looked up depends on rate x time alone. A column whose rates are multiplied by a load factor theta is
therefore looked up at the pace theta s, and its rates multiplied: a factor costs no new table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.arrivals import EXPONENTIAL_CV, activity, log_absence, variance_factor
from surrogates.steady_state.items import Items
from twin.compiled import compiled

Floats = NDArray[np.float64]

#: Cells of the grid of paces in a factor of two, and how far it reaches below and above the shortest step.
CELLS, BELOW, ABOVE = 4, 4, 8
#: Paces are looked up in `aside` at every so many points; times after a request, s: the first, their ratio and number.
STRIDE, FIRST_S, TIMES = 2, 0.02, 20

#: Columns of `linear`: requests/s; output tokens/s after the first of each request; rate x output; computed prompt
#: tokens/s; rate x (E[p o] + E[o^2]/2), KV tokens per second of pace; adapters in slots; their rate x output;
#: rate x E[c^2]; rate x E[o^2], and rate x output^2; rate x arrival CV^2; (rate x output)^2; then counts of adapters by
#: rank, and requests/s by level of the TTFT promise.
RATE, DECODE, STAY, PROMPT, KV, COUNT, SLOT_STAY, LUMP, STAY_2, MEAN_2, BURST, SQUARE, BY_RANK = range(13)
#: Columns of `paced`, with x = rate x output x pace and f the variance factor of `arrivals`:
#: A = P(a request in service), needs a slot; A (1 - A); dA / dlog(pace); x (f - 1); x f; variances of the KV tokens,
#: of independent requests with their burst companions, and of the number alone; log P(no arrival for one pace);
#: computed prompt tokens/s x burst companions within two paces; activations/s of slots; A x activations/s; then by
#: level of the TTFT promise requests/s, their rate x requests/s, and adapters, that find no request of their adapter.
ACTIVE, SPREAD, RISE, COMPANIONS, NUMBER, KV_SPREAD, KV_NUMBER, QUIET, PREFILL, STARTS, AGAIN, ASKS = range(12)
#: Levels of the TTFT promise that are told apart; more distinct promises are rounded down to these.
LEVELS = 6
#: A rate below this, requests/s, is taken for it: one request in 30,000 years. Squares of smaller ones are no numbers.
LEAST_RATE = 1e-12


@dataclass(frozen=True, slots=True)
class Tables:
    """N adapters at G paces.

    Args:
        base_s: shortest step: the grid reaches from 1/16 to 256 times it.
        linear: (N, BY_RANK + R + J), for R distinct ranks > 0 and J levels of the TTFT promise.
        paced: (G, N, ASKS + 3 J): the adapters of a pace lie together, as they are summed.
        aside: A and activations/s with a further time after the last request, (G / STRIDE, TIMES, N, 2); of no time
            and no pace (0, 0, N, 2) where no column has more adapters than slots.
        ranks: the distinct ranks > 0, (R,).
        slo_s: the levels of the TTFT promise, ascending, (J,).
        pace_limit_s: longest pace that an adapter's ITL and E2E promises allow, (N,).
        token_limit_s: longest time per computed prompt token that its TTFT promise allows, (N,).
    """

    base_s: float
    linear: Floats
    paced: Floats
    aside: Floats
    ranks: Floats
    slo_s: Floats
    pace_limit_s: Floats
    token_limit_s: Floats


def tables_of(items: Items, *, base_s: float, servers: int = 1, crowded: bool = True) -> Tables:
    """Tables of N adapters.

    Args:
        base_s: `base` of the calibration's step-time law, seconds.
        servers: equal servers among which every adapter's requests are dealt; the tables are those of one.
        crowded: some column has more adapters than slots (or than `max_cpu_loras`).
    """
    rate = np.maximum(items.rate_req_per_s, LEAST_RATE) / servers
    # Every servers-th request of a stream that others mix with: a thinned renewal process.
    cv2 = 1.0 + (items.cv**2 - 1.0) / servers
    in_slot = items.rank > 0
    ranks, slo_s = np.unique(items.rank[in_slot]), _levels(items.ttft_slo_s)
    level = np.maximum(np.searchsorted(slo_s, items.ttft_slo_s, side="right") - 1, 0)
    linear = np.zeros((len(items), BY_RANK + len(ranks) + len(slo_s)))
    kv = items.prompt_output + 0.5 * items.output_2
    linear[:, :BY_RANK] = np.stack(
        [
            rate, rate * np.maximum(items.output - 1.0, 0.0), rate * items.output, rate * items.computed, rate * kv,
            in_slot, rate * items.output * in_slot, rate * items.computed_2, rate * items.output_2,
            rate * items.output**2, rate * cv2, (rate * items.output) ** 2,
        ],
        axis=1,
    )  # fmt: skip
    linear[:, BY_RANK : BY_RANK + len(ranks)] = items.rank[:, None] == ranks
    linear[np.arange(len(items)), BY_RANK + len(ranks) + level] = rate
    cells = CELLS * (BELOW + ABOVE) + 1
    paced = np.zeros((cells, len(items), ASKS + 3 * len(slo_s)))
    crowd = (cells + STRIDE - 1) // STRIDE if crowded else 0
    aside = np.zeros((crowd, TIMES if crowded else 0, len(items), 2))
    request_kv = kv / items.output
    own_kv = items.prompt_2 * items.output + items.prompt * items.output_2 + items.output_3 / 3.0
    output_cv2 = np.maximum(items.output_2 / items.output**2 - 1.0, 0.0)
    exponential = np.minimum(np.sqrt(output_cv2) / EXPONENTIAL_CV, 1.0)
    _fill(
        base_s, rate, 1.0 / cv2, exponential, output_cv2, items.output, items.computed * rate, request_kv,
        own_kv * rate, in_slot.astype(np.float64), level, len(slo_s), paced, aside,
    )  # fmt: skip
    stay = np.maximum(items.output + 0.5, 1.5)
    return Tables(
        base_s, linear, paced, aside, ranks.astype(np.float64), slo_s,
        np.minimum(items.itl_slo_s, items.e2e_slo_s / stay), items.ttft_slo_s / items.long_prompt,
    )  # fmt: skip


def _levels(slo_s: Floats) -> Floats:
    """Distinct promises, or evenly chosen ones (the strictest among them) where there are more than `LEVELS`."""
    distinct = np.unique(slo_s)
    if len(distinct) <= LEVELS:
        return distinct
    return distinct[np.arange(LEVELS) * len(distinct) // LEVELS]


@compiled
def _overlap(cv2: float) -> float:
    """How much two requests that came together overlap, 2 E[min] / E[stay]: 1 for exponential, 2 for constant stays.

    For Gamma stays of shape a = 1 / cv2, E[min] / E[stay] = 1 - Gamma(a + 1/2) / (sqrt(pi) Gamma(a + 1)).
    """
    a = 1.0 / max(cv2, 1e-6)
    return 2.0 - 2.0 * math.exp(math.lgamma(a + 0.5) - math.lgamma(a + 1.0)) / math.sqrt(math.pi)


@compiled
def _fill(
    base_s: float, rate: Floats, k: Floats, exponential: Floats, output_cv2: Floats, output: Floats,
    prompt_rate: Floats, request_kv: Floats, own_kv: Floats, in_slot: Floats, level: NDArray[np.int64], levels: int,
    paced: Floats, aside: Floats,
) -> None:  # fmt: skip
    for n in range(len(rate)):
        overlap = _overlap(output_cv2[n])
        for g in range(len(paced)):
            pace = base_s * 2.0 ** (g / CELLS - BELOW)
            x = rate[n] * output[n] * pace
            row = paced[g, n]
            f = 1.0 + (variance_factor(x, k[n]) - 1.0) * overlap
            active, slope = activity(x, k[n], exponential[n])
            needs = in_slot[n]
            row[ACTIVE] = active * needs
            row[SPREAD] = active * (1.0 - active) * needs
            row[RISE] = x * slope * needs
            row[COMPANIONS] = x * (f - 1.0)
            row[NUMBER] = x * f
            number_kv = x * request_kv[n] * request_kv[n]
            row[KV_SPREAD] = own_kv[n] * pace + (f - 1.0) * number_kv
            row[KV_NUMBER] = f * number_kv
            row[QUIET] = log_absence(rate[n] * pace, k[n])
            row[PREFILL] = prompt_rate[n] * (variance_factor(2.0 * rate[n] * pace, k[n]) - 1.0)
            row[STARTS] = rate[n] * slope * needs
            row[AGAIN] = active * rate[n] * slope * needs
            row[ASKS + level[n]] = rate[n] * (1.0 - active) * needs
            row[ASKS + levels + level[n]] = rate[n] * rate[n] * (1.0 - active) * needs
            row[ASKS + 2 * levels + level[n]] = (1.0 - active) * needs
        for g in range(len(aside)):
            stay = rate[n] * output[n] * base_s * 2.0 ** (g * STRIDE / CELLS - BELOW)
            for t in range(aside.shape[1]):
                x = stay + rate[n] * FIRST_S * 2.0**t
                active, slope = activity(x, k[n], exponential[n] * stay / x)
                aside[g, t, n, 0] = active * in_slot[n]
                aside[g, t, n, 1] = rate[n] * slope * in_slot[n]
