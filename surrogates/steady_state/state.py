"""`SteadyState`: what the physics says about a batch of columns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.solve import LIMITS, STATE

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SteadyState:
    """P columns; arrays of shape (P,), NaN where there is no steady state (`healthy` is 0 and `limit` says why).

    Of a GPU, where several servers share one: their sum for counts and rates, one server's for shares and times.

    Args:
        rate_req_per_s: requests arriving per second. adapters: those that need a slot.
        pace_s: mean time of a step, as tokens see it; it is the mean ITL.
        requests_in_system: running and waiting; by Little's law rate x mean E2E latency.
        running, decoding: requests in the batch, with and without those in prefill.
        ttft_mean_s, ttft_p99_s, itl_mean_s, itl_p99_s, e2e_mean_s: as in `twin.figures.prediction.Prediction`.
        kv_share, kv_share_spread: share of the KV cache in use, its mean and standard deviation.
        distinct_adapters, distinct_spread: adapters with a request in the batch, mean and standard deviation.
        loads_per_s, disk_loads_per_s: adapters copied into slots, and from disk. blocked_share: of the time, by these.
        cached_for_s: time for which an idle adapter keeps its slot; inf where every adapter has one.
        slots_full: P(an adapter that becomes active waits for a slot). slot_wait_s: mean of those waits, 0 included.
        kv_wait_chance: P(a request waits for KV blocks). seqs_use: running requests / `max_num_seqs`.
        budget_use: prompt tokens / those that steps full of them would compute.
        late_share, adapter_late_share: of all requests, and of an adapter's on average, later than their TTFT promise.
        promise_use: pace / what the strictest promise on ITL, E2E or on the time of a long prompt allows.
        elasticity: d log(step) / d log(number in service); towards 1 a server slows down as fast as it fills up.
        decoding_variance: variance of the number decoding.
        decode_share, kv_read_share, prompt_share, lora_share, past_graph_share: of the pace. LoRA's part of the first
            three is in both.
        prompt_tokens_per_step: mean.
        second_pace_s: pace of a second state, in which adapters are reloaded; 0 = none. escapes_per_h: how often the
            first one is left for it. If that is more than 0.5, all figures are those of the second.
        arrival_cv: of the gaps of an adapter, root mean square over requests. effective_adapters: that many equal
            adapters would be as concentrated. stay_steps: mean output tokens. base_s: the shortest step.
        max_loras: of the setting. ttft_slo_s: the strictest promise among all adapters of the model.
        limit: index into `LIMITS`, what limits the column, or comes nearest to it.
        healthy: 1 or 0, by the constraint asked for.
    """

    rate_req_per_s: Floats
    adapters: Floats
    pace_s: Floats
    requests_in_system: Floats
    running: Floats
    decoding: Floats
    ttft_mean_s: Floats
    ttft_p99_s: Floats
    itl_mean_s: Floats
    itl_p99_s: Floats
    e2e_mean_s: Floats
    kv_share: Floats
    kv_share_spread: Floats
    distinct_adapters: Floats
    distinct_spread: Floats
    loads_per_s: Floats
    disk_loads_per_s: Floats
    blocked_share: Floats
    cached_for_s: Floats
    slots_full: Floats
    slot_wait_s: Floats
    kv_wait_chance: Floats
    seqs_use: Floats
    budget_use: Floats
    late_share: Floats
    adapter_late_share: Floats
    promise_use: Floats
    elasticity: Floats
    decoding_variance: Floats
    decode_share: Floats
    kv_read_share: Floats
    prompt_share: Floats
    lora_share: Floats
    past_graph_share: Floats
    prompt_tokens_per_step: Floats
    second_pace_s: Floats
    escapes_per_h: Floats
    arrival_cv: Floats
    effective_adapters: Floats
    stay_steps: Floats
    base_s: Floats
    max_loras: Floats
    ttft_slo_s: Floats
    limit: Floats
    healthy: Floats

    def __len__(self) -> int:
        return len(self.pace_s)

    def verdict(self, p: int) -> str:
        """What limits column p, in a word of `LIMITS`; empty if it is healthy."""
        return "" if self.healthy[p] else LIMITS[int(self.limit[p])]


def state_of(records: Any) -> SteadyState:
    """From records `STATE`, (P,)."""
    return SteadyState(**{f.name: np.ascontiguousarray(records[f.name]) for f in fields(SteadyState)})


def unsolved(columns: int) -> Any:
    """Records `STATE` of which nothing is known, (P,)."""
    return np.full((columns, len(STATE.names or ())), np.nan).view(STATE)[:, 0]
