"""`requests=100 concurrency=32 trace=log.csv`: a load that ends, as a benchmark sends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from twin.engine.closed_loop import closed_loop, end_s
from twin.engine.input_check import check_requests
from twin.errors import InputError
from twin.server.column import Column
from twin.server.memory import max_model_len
from twin.sources.requests import RequestTable, matched, read_requests
from twin.sources.tables.layout import Form
from twin.traffic.arrivals import draw_requests
from twin.wording import counted
from twin.workload.adapter import Adapter
from twin.workload.recording import Recording
from twin.workload.requests import Requests

if TYPE_CHECKING:
    from twin.command.options import Command

#: How much longer a window than needed on average is drawn at first.
DRAWN = 1.2


@dataclass(frozen=True, slots=True)
class FiniteLoad:
    """What every simulation of a command sends.

    Args:
        table: requests of a trace; None = drawn from the workload.
        requests: how many; None = all of the trace.
        concurrency: how many are open at a time; None = they are sent when they are due.
    """

    table: RequestTable | None
    requests: int | None
    concurrency: int | None

    def note(self) -> str:
        """What the figures are of."""
        how = "when they are due" if self.concurrency is None else f"{self.concurrency} at a time"
        what = "the trace" if self.table is not None else "the workload"
        count = "all requests" if self.requests is None else counted(self.requests, "request")
        return (
            f"a finite load, {count} of {what}, sent {how}: the window ends with the last of them, and queue and drift "
            "say nothing of a load that goes on"
        )

    def sent(self, column: Column, command: Command, seed: int) -> tuple[Requests, float]:
        """The requests of one simulation and when the last is done, seconds.

        Raises:
            InputError: the trace and the workload do not fit, a request is too long, or one is never done.
        """
        longest = max_model_len(column.setting, command.calibration)
        requests = self._due(column, longest, seed)
        check_requests(requests, column.adapters, longest=longest)
        if self.concurrency is not None:
            requests = closed_loop(requests, column, command.calibration, concurrency=self.concurrency, seed=seed)
        return requests, end_s(requests, column, command.calibration, seed=seed)

    def _due(self, column: Column, longest: int, seed: int) -> Requests:
        if self.table is not None:
            requests = _recorded(self.table, column.adapters, longest, seed)
            if self.requests is not None and self.requests > len(requests):
                raise InputError(
                    f"the trace has {counted(len(requests), 'request')}, fewer than the {self.requests} asked for",
                    where="requests",
                    remedy="leave requests out for all of them",
                )
            return _first(requests, len(requests) if self.requests is None else self.requests)
        assert self.requests is not None
        horizon_s = DRAWN * self.requests / sum(a.rate_req_per_s for a in column.adapters) + 1.0
        while True:
            requests = draw_requests(column.adapters, horizon_s=horizon_s, seed=seed, max_model_len=longest)
            if len(requests) >= self.requests:
                return _first(requests, self.requests)
            horizon_s *= 2


def finite_load(command: Command) -> FiniteLoad | None:
    """What the options ask for; None = a window of traffic.

    Raises:
        InputError: the trace is wrong, or nothing says how many requests there are.
    """
    options = command.options
    if options.trace is None and options.requests is None:
        if options.concurrency is not None:
            raise InputError(
                f"concurrency={options.concurrency} without a number of requests",
                where="concurrency",
                remedy="say how many: requests=1000, or trace=log.csv",
            )
        return None
    table = None if options.trace is None else read_requests(options.trace, Form(), what="trace")
    return FiniteLoad(table, options.requests, options.concurrency)


def _first(requests: Requests, count: int) -> Requests:
    return Requests(
        requests.arrival_s[:count], requests.adapter[:count], requests.prompt[:count], requests.cached[:count],
        requests.output[:count],
    )  # fmt: skip


def _recorded(table: RequestTable, adapters: Sequence[Adapter], longest: int, seed: int) -> Requests:
    """The trace's requests; where it names no adapters, they are dealt by the workload's rates."""
    index = {a.adapter_id: i for i, a in enumerate(adapters)}
    if table.has_names:
        known = matched(table.names, index, prefixed=table.prefixed)
        missing = [name for name in table.names if name not in known]
        if missing:
            raise InputError(
                f"the trace names {missing[0]!r}, which is no adapter of this server",
                where=table.first.get(missing[0], table.reading.source),
                remedy="give it in the workload: workload=file workload.path=... (rank 0 = the base model)",
            )
        codes = np.array([index[known[name]] for name in table.names], np.int64)[table.log.adapter]
    else:
        rates = np.array([a.rate_req_per_s for a in adapters])
        codes = np.random.default_rng(seed).choice(len(adapters), len(table.log), p=rates / rates.sum())
    present = np.unique(codes)
    log = replace(table.log, adapter=codes)
    recording = Recording(tuple(a.adapter_id for a in adapters), log, table.reading.source)
    found = recording.requests(
        [adapters[i] for i in present], horizon_s=table.reading.span_s + 1.0, max_model_len=longest
    )
    return replace(found, adapter=present[found.adapter].astype(np.int32))
