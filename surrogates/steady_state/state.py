"""`SteadyState`: what the physics says about a batch of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.steady_state.solve import LIMITS, STATE

Floats = NDArray[np.float64]

#: Where a figure is among those of a column.
PLACE: dict[str, int] = {name: k for k, name in enumerate(STATE.names or ())}


class _Figure:
    """A figure of all columns, (P,), by its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._place = PLACE[name]

    def __get__(self, state: SteadyState, owner: type | None = None) -> Floats:
        return state.figures[:, self._place]


@dataclass(frozen=True, slots=True)
class SteadyState:
    """P columns; figures of shape (P,), NaN where there is no steady state (`healthy` is 0 and `limit` says why).

    Of a GPU, where several servers share one: their sum for counts and rates, one server's for shares and times.

    Args:
        figures: all of the following, (P, len(PLACE)).
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

    figures: Floats
    rate_req_per_s = _Figure()
    adapters = _Figure()
    pace_s = _Figure()
    requests_in_system = _Figure()
    running = _Figure()
    decoding = _Figure()
    ttft_mean_s = _Figure()
    ttft_p99_s = _Figure()
    itl_mean_s = _Figure()
    itl_p99_s = _Figure()
    e2e_mean_s = _Figure()
    kv_share = _Figure()
    kv_share_spread = _Figure()
    distinct_adapters = _Figure()
    distinct_spread = _Figure()
    loads_per_s = _Figure()
    disk_loads_per_s = _Figure()
    blocked_share = _Figure()
    cached_for_s = _Figure()
    slots_full = _Figure()
    slot_wait_s = _Figure()
    kv_wait_chance = _Figure()
    seqs_use = _Figure()
    budget_use = _Figure()
    late_share = _Figure()
    adapter_late_share = _Figure()
    promise_use = _Figure()
    elasticity = _Figure()
    decoding_variance = _Figure()
    decode_share = _Figure()
    kv_read_share = _Figure()
    prompt_share = _Figure()
    lora_share = _Figure()
    past_graph_share = _Figure()
    prompt_tokens_per_step = _Figure()
    second_pace_s = _Figure()
    escapes_per_h = _Figure()
    arrival_cv = _Figure()
    effective_adapters = _Figure()
    stay_steps = _Figure()
    base_s = _Figure()
    max_loras = _Figure()
    ttft_slo_s = _Figure()
    limit = _Figure()
    healthy = _Figure()

    def __len__(self) -> int:
        return len(self.figures)

    def __getitem__(self, which: slice) -> SteadyState:
        """Some of the columns."""
        return SteadyState(self.figures[which])

    def replaced(self, **changed: Floats) -> SteadyState:
        """The same with other figures, (P,) each, by name."""
        figures = self.figures.copy()
        for name, values in changed.items():
            figures[:, PLACE[name]] = values
        return SteadyState(figures)

    def verdict(self, p: int) -> str:
        """What limits column p, in a word of `LIMITS`; empty if it is healthy."""
        return "" if self.healthy[p] else LIMITS[int(self.limit[p])]


def state_of(records: Any) -> SteadyState:
    """From records `STATE`, (P,), whose memory it keeps."""
    return SteadyState(records.view(np.float64).reshape(len(records), len(PLACE)))


def unsolved(columns: int) -> Any:
    """Records `STATE` of which nothing is known, (P,)."""
    return np.full(columns * len(PLACE), np.nan).view(STATE)
