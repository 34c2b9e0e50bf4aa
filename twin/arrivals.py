"""Arrival times: Poisson, or Gamma gaps for bursty tenants, in statistical equilibrium from the first second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from twin.lengths import draw_lengths
from twin.workload import Adapter


@dataclass(frozen=True, slots=True)
class Requests:
    """N requests in order of arrival.

    Args:
        arrival_s: arrival times, seconds from the start of the window, ascending, (N,).
        adapter: index into the column's adapters, (N,).
        prompt: prompt tokens, (N,).
        cached: prompt tokens found in the prefix cache, < prompt, (N,).
        output: output tokens, (N,).
    """

    arrival_s: NDArray[np.float64]
    adapter: NDArray[np.int32]
    prompt: NDArray[np.int32]
    cached: NDArray[np.int32]
    output: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.arrival_s)


@nb.njit(cache=True, nogil=True)
def _arrival_times(
    rng: np.random.Generator, rate: NDArray[np.float64], cv: NDArray[np.float64], horizon_s: float
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    size = int(rate.sum() * horizon_s * 1.05) + 64
    times, who = np.empty(size, np.float64), np.empty(size, np.int32)
    n = 0
    for a in range(len(rate)):
        shape = 1.0 / cv[a] ** 2
        scale = 1.0 / (rate[a] * shape)
        # A window opened at random meets a gap of length-biased size (Gamma with shape + 1) at a uniform point.
        t = rng.random() * rng.standard_gamma(shape + 1.0) * scale
        while t < horizon_s:
            if n == size:
                size *= 2
                wider, who_wider = np.empty(size, np.float64), np.empty(size, np.int32)
                wider[:n] = times[:n]
                who_wider[:n] = who[:n]
                times, who = wider, who_wider
            times[n] = t
            who[n] = a
            n += 1
            t += rng.standard_gamma(shape) * scale
    return times[:n], who[:n]


def draw_requests(
    adapters: Sequence[Adapter], *, horizon_s: float, rng: np.random.Generator, max_model_len: int
) -> Requests:
    """Draws the requests of one window; lengths beyond `max_model_len` are cut as vLLM does."""
    rate = np.array([a.rate_req_per_s for a in adapters])
    cv = np.array([a.arrival_cv for a in adapters])
    times, who = _arrival_times(rng, rate, cv, horizon_s)
    order = np.argsort(times, kind="stable")
    times, who = times[order], who[order]
    prompt, output = draw_lengths(adapters, who, rng)
    prompt = np.minimum(prompt, max_model_len - 1).astype(np.int32)
    output = np.minimum(output, max_model_len - prompt).astype(np.int32)
    fraction = np.array([a.cached_prompt_fraction for a in adapters])
    cached = np.minimum((prompt * fraction[who]).astype(np.int32), prompt - 1).astype(np.int32)
    return Requests(times, who, prompt, cached, output)
