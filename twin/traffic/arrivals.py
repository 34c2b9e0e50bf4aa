"""Arrival times: Poisson or Gamma gaps in equilibrium from the first second, at rates that may change.

A stationary adapter has gaps of mean `1 / rate` and CV `arrival_cv`. With a `rate_process` the same gaps run in
operational time (`twin.traffic.renewal`). What is drawn is a function of the adapters, their order and the generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.traffic.lengths import LengthSampler
from twin.traffic.renewal import (
    Progress,
    Sources,
    begin as begin_adapter,
    draw_all,
    draw_some,
    progress_at_start,
    skip,
    sources_of,
)
from twin.workload.adapter import Adapter
from twin.workload.rates import OnOff, mean_factor
from twin.workload.requests import Requests


def _started(adapters: Sequence[Adapter], rng: np.random.Generator, phase_seed: int | None) -> tuple[Sources, Progress]:
    """Arrays of the adapters, with a key for the phases of each on/off process."""
    keys = np.zeros(len(adapters), np.uint64)
    switching = [(a, p) for a, adapter in enumerate(adapters) if isinstance(p := adapter.rate_process, OnOff)]
    if switching:
        seed = int(rng.integers(2**63)) if phase_seed is None else phase_seed
        for a, process in switching:
            # A group's key also tells its phases apart from those of groups with another rhythm.
            own = f"adapter {adapters[a].adapter_id}"
            shared = f"group {process.group} {process.on_s!r} {process.off_s!r} {process.phases}"
            text = f"{seed} {shared if process.group else own}"
            keys[a] = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    sources = sources_of(adapters)
    return sources, progress_at_start(sources, keys)


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


def draw_requests(
    adapters: Sequence[Adapter],
    *,
    horizon_s: float,
    rng: np.random.Generator,
    max_model_len: int,
    phase_seed: int | None = None,
) -> Requests:
    """Draws the requests of one window; lengths beyond `max_model_len` are cut as vLLM does.

    Args:
        phase_seed: of the phases of on/off adapters. With the same one, adapters of a group switch together although
            they are drawn apart, e.g. because they are served by different GPUs. None = drawn from `rng`.

    Raises:
        InputError: the horizon is no time, or constant lengths are longer than a request may be.
    """
    _check(adapters, horizon_s, max_model_len)
    sources, progress = _started(adapters, rng, phase_seed)
    guess = sum(a.rate_req_per_s * mean_factor(a.rate_process) for a in adapters) * horizon_s
    times, counts = draw_all(rng, sources, progress, float(horizon_s), int(guess * 1.05) + 64)
    who = np.repeat(np.arange(len(adapters), dtype=np.int32), counts)
    order = np.argsort(times, kind="stable")
    return _with_lengths(times[order], who[order], LengthSampler(adapters), rng, max_model_len)


def _with_lengths(
    times: NDArray[np.float64],
    who: NDArray[np.int32],
    lengths: LengthSampler,
    rng: np.random.Generator,
    max_model_len: int,
) -> Requests:
    prompt, output = lengths.draw(who, rng)
    prompt = np.minimum(prompt, max_model_len - 1).astype(np.int32)
    output = np.minimum(output, max_model_len - prompt).astype(np.int32)
    cached = np.minimum((prompt * lengths.cached_fraction[who]).astype(np.int32), prompt - 1).astype(np.int32)
    return Requests(times, who, prompt, cached, output)


def stream_requests(
    adapters: Sequence[Adapter],
    *,
    horizon_s: float,
    window_s: float,
    rng: np.random.Generator,
    max_model_len: int,
    phase_seed: int | None = None,
) -> Iterator[Requests]:
    """The very requests of `draw_requests`, one window of `window_s` seconds after the other.

    Only one window's requests are in memory at a time, and about 1 kB an adapter. Arrivals are drawn twice: first
    without keeping them, to find where in the random stream each adapter and the lengths begin.

    Raises:
        InputError: as `draw_requests`, or `window_s` is no time.
    """
    _check(adapters, horizon_s, max_model_len)
    if not (np.isfinite(window_s) and window_s > 0):
        raise InputError(f"window_s {window_s!r} is not a positive number of seconds", remedy="use e.g. 600")
    return _windows(adapters, float(horizon_s), float(window_s), rng, max_model_len, phase_seed)


def _windows(
    adapters: Sequence[Adapter],
    horizon_s: float,
    window_s: float,
    rng: np.random.Generator,
    max_model_len: int,
    phase_seed: int | None,
) -> Iterator[Requests]:
    sources, progress = _started(adapters, rng, phase_seed)
    scratch = Progress._make(field.copy() for field in progress)
    own = []
    for a in range(len(adapters)):
        own.append(_copy(rng))
        skip(rng, a, sources, scratch, horizon_s)
    for a in range(len(adapters)):
        begin_adapter(own[a], a, sources, progress)
    lengths = LengthSampler(adapters)
    windows = int(np.ceil(horizon_s / window_s))
    for w in range(windows):
        end_s = min((w + 1) * window_s, horizon_s) if w + 1 < windows else horizon_s
        times, who = [], []
        # An adapter whose next arrival or change of rate lies later has nothing to draw.
        soonest = np.minimum(progress.until_s, _due(progress))
        for a in np.flatnonzero(soonest < end_s).tolist():
            drawn = draw_some(own[a], a, sources, progress, end_s)
            times.append(drawn)
            who.append(np.full(len(drawn), a, np.int32))
        joined = np.concatenate([*times, np.empty(0)])
        order = np.argsort(joined, kind="stable")
        yield _with_lengths(
            joined[order], np.concatenate([*who, np.empty(0, np.int32)])[order], lengths, rng, max_model_len
        )


def _due(progress: Progress) -> NDArray[np.float64]:
    """Time of the next arrival if the rate stayed, (A,)."""
    wait = np.divide(
        progress.due_s, progress.factor, out=np.full(len(progress.due_s), np.inf), where=progress.factor > 0
    )
    return np.asarray(progress.time_s + wait)


def _copy(rng: np.random.Generator) -> np.random.Generator:
    """A generator that goes on as `rng` does, on its own."""
    bits = type(rng.bit_generator)(0)
    bits.state = rng.bit_generator.state
    return np.random.Generator(bits)
