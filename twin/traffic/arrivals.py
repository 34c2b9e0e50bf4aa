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

from twin.config.ranges import Range, check
from twin.errors import InputError
from twin.traffic.lengths import LengthSampler
from twin.traffic.renewal import Progress, Sources, begin_all, draw_until, order_of, progress_at_start, sources_of
from twin.traffic.streams import ARRIVALS, LENGTHS, stream_keys
from twin.workload.adapter import Adapter
from twin.workload.rates import OnOff, mean_factor
from twin.workload.requests import Requests

#: Most requests drawn at once: some 10 GB while they are sorted.
MOST_REQUESTS = 200_000_000


def _started(adapters: Sequence[Adapter], seed: int, max_model_len: int) -> tuple[Sources, Progress, LengthSampler]:
    """The adapters as arrays, at time 0, and what draws their lengths."""
    keys = stream_keys([a.adapter_id for a in adapters], seed)
    sources = sources_of(adapters)
    progress = progress_at_start(sources, keys[:, ARRIVALS].copy(), _phase_keys(adapters, seed))
    begin_all(sources, progress)
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
            keys[a] = int.from_bytes(
                hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
            )
    return keys


def _check(
    adapters: Sequence[Adapter], horizon_s: float, seed: int, max_model_len: int, window_s: float | None = None
) -> None:
    check(horizon_s, "horizon_s", Range(above=0, unit="seconds", hint="e.g. 3600"))
    check(seed, "seed", Range(0, whole=True))
    check(max_model_len, "max_model_len", Range(2, whole=True, unit="tokens", hint="a prompt and an answer"))
    if not adapters:
        raise InputError("no adapters: there is nobody to send requests", remedy="give at least one adapter")
    drawn_s = horizon_s if window_s is None else min(window_s, horizon_s)
    expected = _expected(adapters, drawn_s)
    if expected > MOST_REQUESTS:
        raise InputError(
            f"about {expected:.3g} requests in {drawn_s:g} s are more than fit in memory",
            remedy=f"shorten the window or lower the rates: at most {MOST_REQUESTS:.3g} requests are drawn at once",
        )
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
    _check(adapters, horizon_s, seed, max_model_len)
    sources, progress, lengths = _started(adapters, seed, max_model_len)
    return _window(sources, progress, lengths, 0.0, float(horizon_s), _expected(adapters, horizon_s))


def _expected(adapters: Sequence[Adapter], time_s: float) -> int:
    """About how many requests come in this time, rather more."""
    rate = sum(a.rate_req_per_s * mean_factor(a.rate_process) for a in adapters)
    return int(rate * time_s * 1.05) + 64


def _window(
    sources: Sources, progress: Progress, lengths: LengthSampler, start_s: float, end_s: float, size: int
) -> Requests:
    """The next requests, those before `end_s`, in order of time."""
    times, counts = draw_until(sources, progress, end_s, size)
    who = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
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
    check(window_s, "window_s", Range(above=0, unit="seconds", hint="e.g. 600"))
    _check(adapters, horizon_s, seed, max_model_len, window_s)
    return _windows(adapters, float(horizon_s), float(window_s), seed, max_model_len)


def _windows(
    adapters: Sequence[Adapter], horizon_s: float, window_s: float, seed: int, max_model_len: int
) -> Iterator[Requests]:
    sources, progress, lengths = _started(adapters, seed, max_model_len)
    size = _expected(adapters, window_s)
    windows = int(np.ceil(horizon_s / window_s))
    for w in range(windows):
        end_s = min((w + 1) * window_s, horizon_s) if w + 1 < windows else horizon_s
        yield _window(sources, progress, lengths, w * window_s, end_s, size)
