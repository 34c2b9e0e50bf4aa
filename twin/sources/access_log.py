"""A workload estimated from an access log and a registry of adapter ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.config.arguments import number
from twin.errors import InputError
from twin.sources.estimates import estimate
from twin.sources.registry import Registry, as_form, read_registry
from twin.sources.requests import RequestTable, matched, read_requests
from twin.sources.tables.files import Paths
from twin.sources.tables.layout import Form
from twin.traffic.length_shapes import RECORDED_CHOICES, check_length_shape, length_note, with_length_shape
from twin.wording import counted
from twin.workload.adapter import Adapter
from twin.workload.recording import Recording
from twin.workload.workload import ReadWorkload, Workload

COLD = ("deploy", "leave_out")
#: Requests of an adapter that was never seen, at most: half of one in the time of the log.
UNSEEN_REQUESTS = 0.5


def read_access_log(
    path: Paths,
    registry: Any,
    quantile: float | None = None,
    window_s: float = 600.0,
    duration_s: float | None = None,
    cold: str = "deploy",
    idle_rate_req_per_s: float | None = None,
    length_shape: str = "gamma",
    columns: Any = None,
    decimal: str | None = None,
    time_unit: str | None = None,
    time_zone: str = "UTC",
    adapter_id: str | None = None,
    base: str | None = None,
    base_names: Sequence[str] = (),
) -> Workload:
    """Reads a log: `timestamp,adapter_id,prompt_tokens,output_tokens[,cached_tokens]`, one row a request, in any order.

    Known formats are recognised, other names of columns found or given; requests that failed are left out and counted
    (`twin.sources.requests`). How rates, burstiness, lengths and cache hits are estimated:
    `twin.sources.estimates.estimate`.

    Args:
        path: file, pattern, `-` for standard input, or several: CSV, JSON lines, Parquet, packed or not.
        registry: table with `adapter_id,rank` (optional: `slo_ttft_p99_s` and the other promises, `pinned_gpu`);
            rank 0 = the base model. Or a folder of PEFT adapters, or several.
        quantile: plan for this quantile of each adapter's rate over windows, in (0, 1]; None = the mean.
        window_s: length of such a window, seconds.
        duration_s: time that the log covers, seconds; None = from its first to its last request.
        cold: `deploy` or `leave_out` registered adapters without requests.
        idle_rate_req_per_s: rate of these; None = `cold_rate`.
        length_shape: `gamma`, `lognormal`, `constant`, `published`, or `empirical`: the quantiles of an adapter's own
            requests, tail included (`twin.traffic.length_shapes`).
        columns: our column -> the log's, where it is neither recognised nor found by name.
        decimal, time_unit, time_zone: how numbers and times are written (`twin.sources.tables.layout.Form`).
        adapter_id: whose all requests are, where the log has no such column.
        base: model that the fleet serves; adapters of another one are refused.
        base_names: names under which requests go to the base model itself.

    The workload's `recording` holds the requests for an exact replay (`twin.workload.recording`).

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    shape = check_length_shape(length_shape, RECORDED_CHOICES)
    chosen = None if quantile is None else number(quantile, "workload.quantile", above=0.0, high=1.0)
    window = number(window_s, "workload.window_s", above=0.0)
    idle = None if idle_rate_req_per_s is None else number(
        idle_rate_req_per_s, "workload.idle_rate_req_per_s", above=0.0
    )  # fmt: skip
    if cold not in COLD:
        raise InputError(
            f"{cold!r} is nothing to do with cold adapters",
            where="option workload.cold",
            remedy="use deploy or leave_out",
        )
    known = read_registry(registry, base=base, base_names=base_names)
    table = read_requests(path, as_form(columns, decimal, time_unit, time_zone), adapter_id=adapter_id)
    log = replace(table.log, adapter=_registered(table, known)[table.log.adapter])
    covered_s = log.duration_s if duration_s is None else number(duration_s, "workload.duration_s", above=0.0)
    if covered_s < table.reading.span_s:
        raise InputError(
            f"duration_s {covered_s:g} is shorter than the log, whose requests span {table.reading.span_s:.6g} s",
            where="option workload.duration_s",
            remedy="leave it out, or give the whole time that was logged",
        )
    if covered_s <= 0:
        raise InputError(
            f"{counted(len(log), 'request')} at one time: no rate can be told. " + table.reading.sentences()[0],
            where="option workload.path",
            remedy="all have the same time; give the time the log covers: workload.duration_s=3600",
        )
    n = len(known.ids)
    found = estimate(log, n, quantile=chosen, window_s=window, duration_s=covered_s, keep_lengths=shape == "empirical")
    silent = found.count == 0
    if idle is None:
        silent &= np.array(known.ranks) > 0
        idle = cold_rate(found.count, int(silent.sum()), covered_s)
    deployed = cold == "deploy"
    rates = np.where(silent & deployed, idle, found.rate_req_per_s)
    adapters = _with_promises(found.adapters(known.ids, known.ranks, rates), known)
    adapters = with_length_shape(adapters, "gamma" if shape == "empirical" else shape)
    reading = replace(
        table.reading,
        cold_adapters=tuple(known.ids[i] for i in np.flatnonzero(silent)),
        cold=f"deployed all the same, as cold ones of {idle:.3g} req/s" if deployed else "left out, as told",
    )
    notes = [
        f"{counted(len(adapters), 'adapter')} estimated from {counted(len(log), 'request')} over {covered_s:.6g} s "
        f"in {reading.source}.",
        *known.notes,
        *found.notes,
        *([length_note(shape)] if shape != "gamma" else []),
        *([f"Columns of {known.title} that were not used: {', '.join(known.ignored)}."] if known.ignored else []),
    ]
    name = reading.source.rpartition("/")[2].split(".")[0]
    return ReadWorkload(adapters, name, tuple(notes), Recording(known.ids, log, reading.source), reading)


def cold_rate(counts: NDArray[np.int64], unseen: int, duration_s: float) -> float:
    """Rate of each adapter without requests, req/s.

    Good and Turing's estimate: what was never seen makes up as much of the traffic as what was seen once (I. J. Good,
    Biometrika 40, 1953), shared by those that there are; at most half a request each in the time of the log.
    """
    once = max(float(np.count_nonzero(counts == 1)), UNSEEN_REQUESTS)
    return min(once / max(unseen, 1), UNSEEN_REQUESTS) / duration_s


def _registered(table: RequestTable, registry: Registry) -> NDArray[np.int64]:
    """Index in the registry of each of the log's names."""
    if not table.has_names:
        raise InputError(
            f"the log names no adapters{f' (it is a {table.reading.format})' if table.reading.format else ''}",
            where=table.reading.source,
            remedy="name the column, workload.columns={adapter_id: ...}; or say whose all requests are, "
            "workload.adapter_id=...; workload=trace deals them to made-up adapters",
        )
    index = {adapter_id: i for i, adapter_id in enumerate(registry.ids)}
    known = matched(table.names, index, prefixed=table.prefixed)
    missing = [name for name in table.names if name not in known]
    if missing:
        others = len(missing) - 1
        also = f" (and {others} other adapters of the log)" if others else ""
        raise InputError(
            f"adapter {missing[0]!r}{also} is not in the registry",
            where=table.first.get(missing[0], "option workload.adapter_id"),
            remedy=f"add it with its rank to {registry.title} (rank 0 = the base model; "
            f"'workload.base_names=[{missing[0]}]' says so too)",
        )
    return np.array([index[known[name]] for name in table.names], np.int64)


def _with_promises(adapters: tuple[Adapter, ...], registry: Registry) -> tuple[Adapter, ...]:
    """Adds SLOs and pins of the registry."""
    row_of = {adapter_id: row for row, adapter_id in enumerate(registry.ids)}
    rows = [row_of[adapter.adapter_id] for adapter in adapters]
    return tuple(
        replace(adapter, slo=registry.slos[row], pinned_gpu=registry.pins[row] or None)
        for adapter, row in zip(adapters, rows, strict=True)
    )


def read_recording(
    path: Paths,
    *,
    time: str | None = None,
    adapter_id: str | None = None,
    prompt_tokens: str | None = None,
    output_tokens: str | None = None,
    cached_tokens: str | None = None,
) -> Recording:
    """Reads any log of one row a request, as `read_access_log` does; the arguments name columns.

    No registry is needed: ranks belong to the adapters that it is replayed for.

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    given = {
        "timestamp": time, "adapter_id": adapter_id, "prompt_tokens": prompt_tokens, "output_tokens": output_tokens,
        "cached_tokens": cached_tokens,
    }  # fmt: skip
    form = Form({ours: theirs for ours, theirs in given.items() if theirs is not None})
    table = read_requests(path, form, what="recording")
    if not table.has_names:
        raise InputError(
            "the recording names no adapters", where=table.reading.source, remedy="give adapter_id=, its column"
        )
    return Recording(table.names, table.log, table.reading.source)
