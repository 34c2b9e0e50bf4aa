"""Replay: the very requests of an access log or trace, instead of ones drawn from what was estimated from it.

recording = read_recording("log.csv")                     # or Workload.recording of a log or trace
requests = recording.requests(column.adapters, start_s=7200, horizon_s=3600, max_model_len=2048)
simulate(column, calibration, requests=requests, horizon_s=3600)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range, check
from twin.errors import InputError
from twin.wording import counted
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RequestLog:
    """R recorded requests of N adapters, in any order.

    Args:
        time_s: arrival times in seconds, (R,).
        adapter: index of the adapter, 0..N-1, (R,).
        prompt_tokens, output_tokens: lengths, >= 0, (R,).
        cached_tokens: prompt tokens found in the prefix cache, <= prompt_tokens, (R,).
    """

    time_s: Floats
    adapter: Ints
    prompt_tokens: Floats
    output_tokens: Floats
    cached_tokens: Floats

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def duration_s(self) -> float:
        """Observed time in seconds: R requests in a row cover R - 1 gaps and on average one more."""
        span = float(self.time_s.max() - self.time_s.min())
        return span * len(self) / max(1, len(self) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """R recorded requests of N adapters.

    Args:
        adapter_ids: name of each adapter, N; `log.adapter` counts in them.
        log: the requests, in any order.
        source: where they come from, for messages.
        speed: how much faster than recorded they are replayed unless said otherwise: what scales a trace's rates to
            those of its workload.
    """

    adapter_ids: tuple[str, ...]
    log: RequestLog
    source: str
    speed: float = 1.0

    def __len__(self) -> int:
        return len(self.log)

    @property
    def span_s(self) -> float:
        """Recorded time from the first request to the last, seconds."""
        return float(np.ptp(self.log.time_s))

    def requests(
        self,
        adapters: Sequence[Adapter],
        *,
        horizon_s: float,
        max_model_len: int,
        start_s: float = 0.0,
        speed: float | None = None,
        cut: bool = False,
        shares: Sequence[float] | None = None,
    ) -> Requests:
        """The requests of these adapters in one window, for `simulate(..., requests=...)`.

        Times and lengths are the recorded ones; a length of 0 tokens counts as 1. Requests of other adapters are
        left out: they are served elsewhere.

        Args:
            adapters: found by their ids; `Requests.adapter` counts in them.
            horizon_s: length of the window in replayed seconds: `horizon_s * speed` of the recording.
            max_model_len: longest request in tokens, prompt and output.
            start_s: start of the window, recorded seconds after the first request of the whole recording.
            speed: 1 = as recorded, 2 = twice the rate in half the time; None = the recording's own.
            cut: cut longer requests, as vLLM cuts outputs, instead of refusing them.
            shares: of each adapter's requests that come here, dealt evenly over time; None = all of them.

        Raises:
            InputError: an adapter is not in the recording or is named twice, the window holds no request of theirs,
                or a request is too long.
        """
        speed = self.speed if speed is None else speed
        check(horizon_s, "horizon_s", Range(above=0, unit="seconds"), where=self.source)
        check(start_s, "start_s", Range(0, unit="seconds"), where=self.source)
        check(speed, "speed", Range(above=0, hint="1 = as recorded, 2 = twice as fast"), where=self.source)
        place = self._places(adapters)
        since_s = self.log.time_s - self.log.time_s.min() - start_s
        index = place[self.log.adapter]
        inside = np.flatnonzero((since_s >= 0) & (since_s < horizon_s * speed) & (index >= 0))
        if shares is not None:
            inside = inside[self._dealt(inside, index, since_s, np.asarray(shares, dtype=np.float64))]
        if not len(inside):
            end_s = start_s + horizon_s * speed
            raise InputError(
                f"{counted(len(adapters), 'adapter')} sent no request between {start_s:g} and {end_s:g} s of a "
                f"recording of {self.span_s:g} s",
                where=self.source,
                remedy="choose another start_s or a longer window, or leave these adapters out",
            )
        rows = inside[np.argsort(since_s[inside], kind="stable")]
        prompt = np.maximum(self.log.prompt_tokens[rows], 1).astype(np.int32)
        output = np.maximum(self.log.output_tokens[rows], 1).astype(np.int32)
        long = np.flatnonzero(prompt.astype(np.int64) + output > max_model_len)
        if len(long) and not cut:
            first = long[np.argmax(prompt[long].astype(np.int64) + output[long])]
            name = self.adapter_ids[int(self.log.adapter[rows[first]])]
            raise InputError(
                f"{counted(len(long), 'request')} of {len(rows)} are longer than the model's {max_model_len} tokens, "
                f"e.g. {prompt[first]} + {output[first]} tokens for {name!r}",
                where=self.source,
                remedy="cut them (cut=True, or workload.max_request_tokens), or raise engine.max_model_len",
            )
        prompt = np.minimum(prompt, max_model_len - 1).astype(np.int32)
        output = np.minimum(output, max_model_len - prompt).astype(np.int32)
        cached = np.clip(self.log.cached_tokens[rows], 0, prompt - 1).astype(np.int32)
        return Requests(since_s[rows] / speed, index[rows].astype(np.int32), prompt, cached, output)

    def busiest(
        self, adapters: Sequence[Adapter], *, window_s: float, count: int, shares: Sequence[float] | None = None
    ) -> list[tuple[float, float, NDArray[np.int64]]]:
        """The windows in which these adapters sent the most tokens, busiest first; windows do not overlap.

        Args:
            window_s: length of a window, recorded seconds.
            count: most windows.
            shares: of each adapter's requests that count; None = all. Windows in which they make no request are none.

        Returns:
            Start (s after the first request of the recording), tokens, and requests of each adapter, (A,), of each.
        """
        index = self._places(adapters)[self.log.adapter]
        rows = np.flatnonzero(index >= 0)
        since_s = self.log.time_s[rows] - self.log.time_s.min()
        order = np.argsort(since_s, kind="stable")
        since_s, rows = since_s[order], rows[order]
        part = np.ones(len(adapters)) if shares is None else np.asarray(shares, dtype=np.float64)
        tokens = (self.log.prompt_tokens + self.log.output_tokens)[rows] * part[index[rows]]
        upto = np.concatenate([[0.0], np.cumsum(tokens)])
        found: list[tuple[float, float, NDArray[np.int64]]] = []
        # The last window that fits begins `window_s` before the end; starts are the requests before it.
        starts = np.unique(np.minimum(since_s, max(0.0, self.span_s - window_s)))
        first, last = (np.searchsorted(since_s, t, side="left") for t in (starts, starts + window_s))
        weight = upto[last] - upto[first]
        free = np.ones(len(starts), np.bool_)
        while len(found) < count and free.any():
            best = int(np.argmax(np.where(free, weight, -1.0)))
            if weight[best] <= 0:
                break
            sent = np.bincount(index[rows[first[best] : last[best]]], minlength=len(adapters))
            if np.floor(sent * part).any():
                found.append((float(starts[best]), float(weight[best]), sent))
            free &= np.abs(starts - starts[best]) >= window_s
        return found

    def quantile_covering(
        self, adapters: Sequence[Adapter], *, start_s: float, window_s: float, part_s: float = 600.0
    ) -> float | None:
        """The least usual quantile of every adapter's rate at which these adapters' tokens reach those of a window.

        Rates are those over parts of `part_s` recorded seconds, as `workload.quantile` of an access log takes them.
        None where not even the largest rates do.
        """
        index = self._places(adapters)[self.log.adapter]
        rows = np.flatnonzero(index >= 0)
        since_s = self.log.time_s[rows] - self.log.time_s.min()
        tokens = (self.log.prompt_tokens + self.log.output_tokens)[rows]
        inside = (since_s >= start_s) & (since_s < start_s + window_s)
        needed = float(tokens[inside].sum()) / window_s
        # Whole parts only, as an estimate has them; a recording shorter than one is one.
        part_s = min(part_s, self.span_s)
        parts = int(self.span_s // part_s)
        part = np.floor(since_s / part_s).astype(np.int64)
        if parts == 1 and part_s == self.span_s:
            part = np.zeros_like(part)  # with the last request, which ends it
        whole = part < parts
        sent = np.zeros((len(adapters), parts))
        np.add.at(sent, (index[rows][whole], part[whole]), tokens[whole])
        mean = np.bincount(index[rows], tokens, len(adapters)) / self.span_s
        for quantile in (0.5, 0.75, 0.9, 0.95, 0.99, 1.0):
            rates = np.maximum(np.quantile(sent, quantile, axis=1) / part_s, mean)  # never planned for less
            if float(rates.sum()) >= needed:
                return quantile
        return None

    def _dealt(self, inside: Ints, index: Ints, since_s: Floats, shares: Floats) -> NDArray[np.bool_]:
        """Which of these requests come here, where only a share of an adapter's does: every n-th, in order of time."""
        order = inside[np.argsort(since_s[inside], kind="stable")]
        sent = np.zeros(len(shares), np.int64)
        taken = np.zeros(len(since_s), np.bool_)
        for row in order.tolist():
            a = index[row]
            taken[row] = np.floor((sent[a] + 1) * shares[a]) > np.floor(sent[a] * shares[a]) if shares[a] < 1 else True
            sent[a] += 1
        return taken[inside]

    def _places(self, adapters: Sequence[Adapter]) -> np.ndarray:
        """Position among `adapters` of each recorded adapter, -1 = not there, (N,)."""
        index = {name: i for i, name in enumerate(self.adapter_ids)}
        place = np.full(len(self.adapter_ids), -1, np.int64)
        for position, adapter in enumerate(adapters):
            known = index.get(adapter.adapter_id)
            if known is None:
                raise InputError(
                    f"adapter {adapter.adapter_id!r} is not in the recording",
                    where=self.source,
                    remedy="replay adapters of the recording, or draw the requests of this one",
                )
            if place[known] >= 0:
                raise InputError(
                    f"adapter {adapter.adapter_id!r} is named twice: its requests cannot be split by a replay",
                    where=self.source,
                    remedy="name it once, or split its requests before",
                )
            place[known] = position
        return place
