"""Arrival times: Poisson or Gamma gaps in equilibrium from the first second, at rates that may change.

A stationary adapter has gaps of mean `1 / rate` and CV `arrival_cv`. With a `rate_process` the same gaps run in
operational time (`twin.traffic.renewal`). An adapter's requests are a function of the adapter and the seed alone, with
the same bytes on every processor (`twin.traffic.streams`): who else is there, and in which order, does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.traffic.lengths import LengthSampler
from twin.traffic.renewal import Progress, Sources, begin, draw_all, draw_some, order_of, progress_at_start, sources_of
from twin.traffic.streams import ARRIVALS, LENGTHS, stream_keys
from twin.workload.adapter import Adapter
from twin.workload.rates import OnOff, mean_factor
from twin.workload.requests import Requests


def _started(adapters: Sequence[Adapter], seed: int, max_model_len: int) -> tuple[Sources, Progress, LengthSampler]:
    """The adapters as arrays, before their first arrival, and what draws their lengths."""
    keys = stream_keys([a.adapter_id for a in adapters], seed)
    sources = sources_of(adapters)
    progress = progress_at_start(sources, keys[:, ARRIVALS].copy(), _phase_keys(adapters, seed))
    return sources, progress, LengthSampler(adapters, keys[:, LENGTHS].copy(), max_model_len)


def _phase_keys(adapters: Sequence[Adapter], seed: int) -> NDArray[np.uint64]:
    """A key for the phases of each on/off process, (A,): adapters of one group have the same."""
    keys = np.zeros(len(adapters), np.uint64)
    for a, adapter in enumerate(adapters):
        process = adapter.rate_process
        if isinstance(process, OnOff):
            # A group's key also tells its phases apart from those of groups with another rhythm.
            own = f"adapter {adapter.adapter_id}"
            shared = f"group {process.group} {process.on_s!r} {process.off_s!r} {process.phases}"
            text = f"{int(seed)} {shared if process.group else own}"
            keys[a] = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return keys


def _check(adapters: Sequence[Adapter], horizon_s: float, max_model_len: int) -> None:
    if not (np.isfinite(horizon_s) and horizon_s > 0):
        raise InputError(f"horizon_s {horizon_s!r} is not a positive number of seconds", remedy="use 3600")
    for adapter in adapters:
        for side, lengths in (("prompt", adapter.prompt_tokens), ("output", adapter.output_tokens)):
            if lengths.shape == "constant" and lengths.mean >= max_model_len:
                raise InputError(
                    f"adapter {adapter.adapter_id!r}: every {side} has {lengths.mean:g} tokens, and a request may have "
                    f"{max_model_len} in all",
                    remedy="shorten it, or raise engine.max_model_len",
                )


def draw_requests(adapters: Sequence[Adapter], *, horizon_s: float, seed: int, max_model_len: int) -> Requests:
    """Draws the requests of one window; lengths beyond `max_model_len` are cut as vLLM does.

    With one seed, adapters of an on/off group switch together although they are drawn apart, e.g. because they are
    served by different GPUs.

    Raises:
        InputError: the horizon is no time, or constant lengths are longer than a request may be.
    """
    _check(adapters, horizon_s, max_model_len)
    sources, progress, lengths = _started(adapters, seed, max_model_len)
    guess = sum(a.rate_req_per_s * mean_factor(a.rate_process) for a in adapters) * horizon_s
    times, counts = draw_all(sources, progress, float(horizon_s), int(guess * 1.05) + 64)
    return _in_order(
        times, np.repeat(np.arange(len(adapters), dtype=np.int32), counts), lengths, start_s=0.0, end_s=float(horizon_s)
    )


def _in_order(
    times: NDArray[np.float64], who: NDArray[np.int32], lengths: LengthSampler, *, start_s: float, end_s: float
) -> Requests:
    """Requests in order of time; `who` (N,) ascends and each adapter's times do."""
    prompt, cached, output = lengths.draw(who)
    order = order_of(times - start_s, end_s - start_s)
    return Requests(times[order], who[order], prompt[order], cached[order], output[order])


def stream_requests(
    adapters: Sequence[Adapter], *, horizon_s: float, window_s: float, seed: int, max_model_len: int
) -> Iterator[Requests]:
    """The very requests of `draw_requests`, one window of `window_s` seconds after the other.

    Only one window's requests are in memory at a time, and about 1 kB an adapter.

    Raises:
        InputError: as `draw_requests`, or `window_s` is no time.
    """
    _check(adapters, horizon_s, max_model_len)
    if not (np.isfinite(window_s) and window_s > 0):
        raise InputError(f"window_s {window_s!r} is not a positive number of seconds", remedy="use e.g. 600")
    return _windows(adapters, float(horizon_s), float(window_s), seed, max_model_len)


def _windows(
    adapters: Sequence[Adapter], horizon_s: float, window_s: float, seed: int, max_model_len: int
) -> Iterator[Requests]:
    sources, progress, lengths = _started(adapters, seed, max_model_len)
    for a in range(len(adapters)):
        begin(a, sources, progress)
    windows = int(np.ceil(horizon_s / window_s))
    for w in range(windows):
        end_s = min((w + 1) * window_s, horizon_s) if w + 1 < windows else horizon_s
        times, who = [np.empty(0)], [np.empty(0, np.int32)]
        # An adapter whose next arrival or change of rate lies later has nothing to draw.
        soonest = np.minimum(progress.until_s, _due(progress))
        for a in np.flatnonzero(soonest < end_s).tolist():
            drawn = draw_some(a, sources, progress, end_s)
            times.append(drawn)
            who.append(np.full(len(drawn), a, np.int32))
        yield _in_order(np.concatenate(times), np.concatenate(who), lengths, start_s=w * window_s, end_s=end_s)


def _due(progress: Progress) -> NDArray[np.float64]:
    """Time of the next arrival if the rate stayed, (A,)."""
    wait = np.divide(
        progress.due_s, progress.factor, out=np.full(len(progress.due_s), np.inf), where=progress.factor > 0
    )
    return np.asarray(progress.time_s + wait)
