"""What the readers of traces share: finding files, cutting long requests, dealing requests to adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.config.arguments import number, whole_number
from twin.errors import InputError
from twin.sources.dealing import adapter_names, deal_ranks, power_law_shares
from twin.sources.estimates import FEW_REQUESTS, estimate
from twin.traffic.length_shapes import RECORDED_CHOICES, check_length_shape, length_note, with_length_shape
from twin.wording import counted, percent
from twin.workload.reading import Reading
from twin.workload.recording import Recording, RequestLog
from twin.workload.workload import ReadWorkload, Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def find_file(path: str | Path, file_names: Sequence[str], folder: str, *, what: str, choices: str) -> Path:
    """The trace file: `path` itself, or one of `file_names` in the folder `path` or in `path/folder`.

    Args:
        choices: what the option `trace` can name, for the message.

    Raises:
        InputError: nothing is there.
    """
    if not str(path or "").strip():
        raise InputError(f"no {what} is given", where="option workload.path", remedy="name its folder or file")
    given = Path(str(path)).expanduser()
    if not given.is_dir():
        return given
    for place in (given, given / folder):
        for name in file_names:
            if (place / name).is_file():
                return place / name
    raise InputError(
        f"{str(path)!r} holds no {file_names[0]}",
        where="options workload.path and workload.trace",
        remedy=f"name the folder of the {what} with workload.path, and one of {choices} with workload.trace",
    )


def request_limit(max_request_tokens: Any) -> float:
    """Checks the option `max_request_tokens`; None = no limit (infinity)."""
    if max_request_tokens is None:
        return float("inf")
    return float(whole_number(max_request_tokens, "workload.max_request_tokens", low=2))


@dataclass(frozen=True, slots=True)
class TraceRequests:
    """R requests of a trace, without adapters; arrays as in `RequestLog`, (R,)."""

    time_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats

    def cut(self, limit: float) -> tuple[TraceRequests, int, float]:
        """Requests with prompt + output <= `limit` tokens (the prompt's end is cut first), how many were cut, and the
        share of all tokens that went."""
        output = np.minimum(self.output_tokens, limit - 1)
        prompt = np.minimum(self.prompt_tokens, limit - output)
        long = int(np.count_nonzero((output < self.output_tokens) | (prompt < self.prompt_tokens)))
        if not long:
            return self, 0, 0.0
        lost = 1 - (prompt.sum() + output.sum()) / (self.prompt_tokens.sum() + self.output_tokens.sum())
        return TraceRequests(self.time_s, prompt, output), long, float(lost)


@dataclass(frozen=True, slots=True)
class Deal:
    """How the requests of a trace are dealt to adapters: the options that `azure` and `mooncake` share.

    Args:
        n_adapters, exponent: how many adapters share the requests, with shares ~ popularity rank ** -exponent.
        ranks, rank_weights: LoRA ranks and their relative frequencies (None = equal).
        total_rate_req_per_s: rates are scaled to this total; None = the trace's own rate.
        max_request_tokens: longer requests are cut to this; None = never.
        seed: of the dealing.
        length_shape: of the adapters' lengths, `twin.traffic.length_shapes`.
    """

    n_adapters: int
    exponent: float
    ranks: Any
    rank_weights: Any
    total_rate_req_per_s: float | None
    max_request_tokens: int | None
    seed: int
    length_shape: str


def dealt_workload(
    requests: TraceRequests, deal: Deal, *, name: str, notes: Sequence[str], reading: Reading,
    cached_tokens: Callable[[Ints], Floats] | None = None, group: Ints | None = None,
) -> Workload:  # fmt: skip
    """Deals the requests of a trace to adapters at random, with shares that follow a power law.

    An adapter's rate is its share of the total, exactly. Its arrival CV, lengths and cache hits are those of the
    requests dealt to it, or of the whole trace where these are fewer than `FEW_REQUESTS`.

    Args:
        reading: what was done to the requests before.
        cached_tokens: `adapter (R,) -> cached prompt tokens (R,)`; None = nothing is cached.
        group: label of each request; requests with one label go to one adapter, (R,). None = each on its own.

    The workload's `recording` holds the requests as they were dealt and cut, to be replayed at the workload's rate.
    """
    shape = check_length_shape(deal.length_shape, RECORDED_CHOICES)
    n = whole_number(deal.n_adapters, "workload.n_adapters", low=1)
    rng = np.random.default_rng(whole_number(deal.seed, "workload.seed"))
    shares = power_law_shares(n, number(deal.exponent, "workload.exponent", low=0.0, high=10.0))
    dealt_ranks = deal_ranks(n, deal.ranks, deal.rank_weights, rng)
    size = len(requests.time_s)
    if group is None:
        adapter = rng.choice(n, size, p=shares)
    else:
        labels, of = np.unique(group, return_inverse=True)
        adapter = rng.choice(n, len(labels), p=shares)[of]
    cached = np.zeros(size) if cached_tokens is None else cached_tokens(adapter)
    limit = request_limit(deal.max_request_tokens)
    cut, long, lost = requests.cut(limit)
    cut_note = (
        f"{counted(long, 'request')} ({percent(long / size)}) of more than {limit:.0f} tokens cut to that, "
        f"which takes away {percent(lost)} of all tokens."
    )
    reading = replace(reading, cut_requests=long, cut_tokens_share=lost)
    log = RequestLog(cut.time_s, adapter, cut.prompt_tokens, cut.output_tokens, cached)
    found = estimate(log, n, quantile=None, window_s=1.0, duration_s=log.duration_s, keep_lengths=shape == "empirical")
    few = found.count < FEW_REQUESTS
    found = replace(
        found,
        prompt_mean=np.where(few, np.maximum(log.prompt_tokens, 1).mean(), found.prompt_mean),
        output_mean=np.where(few, np.maximum(log.output_tokens, 1).mean(), found.output_mean),
    )
    own_total = size / log.duration_s
    total = target_rate(deal.total_rate_req_per_s, own_total)
    names = adapter_names(n)
    adapters = found.adapters(names, [int(r) for r in dealt_ranks], shares * total)
    adapters = with_length_shape(adapters, "gamma" if shape == "empirical" else shape)
    described = [
        *notes,
        f"The trace has no adapters: its {size} requests were dealt to {counted(n, 'adapter')} by a power law "
        f"with exponent {deal.exponent:g} and seed {deal.seed}.",
        scaling_note(total, own_total),
        *([cut_note] if long else []),
        *found.notes,
        *([length_note(shape)] if shape != "gamma" else []),
    ]
    return ReadWorkload(
        adapters, name, tuple(described), Recording(tuple(names), log, name, total / own_total), reading
    )


def target_rate(total_rate_req_per_s: Any, own_total: float) -> float:
    """The total rate asked for, requests per second; None = the trace's own."""
    if total_rate_req_per_s is None:
        return own_total
    return number(total_rate_req_per_s, "workload.total_rate_req_per_s", above=0.0)


def scaling_note(total: float, own_total: float) -> str:
    """Says what was done to the rates."""
    if total == own_total:
        return f"Rates add up to {own_total:.4g} req/s, as recorded."
    return f"Rates were scaled from the recorded {own_total:.4g} req/s to {total:.4g} req/s in total."
