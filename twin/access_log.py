"""A workload estimated from an access log and a registry of adapter ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.arguments import number
from twin.errors import InputError
from twin.request_log import RequestLog, estimate
from twin.table import Table, read_table
from twin.wording import counted
from twin.workload import Adapter, Slo, Workload

LOG_REQUIRED = ("timestamp", "adapter_id", "prompt_tokens", "output_tokens")
LOG_OPTIONAL = ("cached_tokens",)
REGISTRY_REQUIRED = ("adapter_id", "rank")
REGISTRY_OPTIONAL = ("slo_ttft_p99_s", "pinned_gpu")
#: Seconds since 1970 stay below this for the next 3,000 years; milliseconds since 1973 do not.
MILLISECONDS_ABOVE = 1e11


def read_access_log(
    path: str | Path,
    registry: str | Path,
    quantile: float | None = None,
    window_s: float = 600.0,
    duration_s: float | None = None,
    idle_rate_req_per_s: float | None = None,
) -> Workload:
    """Reads `timestamp,adapter_id,prompt_tokens,output_tokens[,cached_tokens]`, one row a request, in any order.

    How rates, burstiness, lengths and cache hits are estimated: `twin.request_log.estimate`.

    Args:
        path: log, CSV, plain or gzip-packed; timestamps in seconds or ISO 8601 (without offset: UTC).
        registry: CSV with `adapter_id,rank` (optional: `slo_ttft_p99_s, pinned_gpu`); rank 0 = the base model.
        quantile: plan for this quantile of each adapter's rate over windows, in (0, 1]; None = the mean.
        window_s: length of such a window, seconds.
        duration_s: time that the log covers, seconds; None = from its first to its last request.
        idle_rate_req_per_s: rate of registered adapters without requests; None = they are left out.

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    option = "workload.quantile"
    chosen = None if quantile is None else number(quantile, option, above=0.0, high=1.0)
    window = number(window_s, "workload.window_s", above=0.0)
    idle = None if idle_rate_req_per_s is None else number(
        idle_rate_req_per_s, "workload.idle_rate_req_per_s", above=0.0
    )  # fmt: skip
    if not str(registry or "").strip():
        raise InputError(
            "no registry of adapter ranks is given",
            where="option workload.registry",
            remedy="name a CSV file with the columns adapter_id,rank",
        )
    known = read_table(registry, REGISTRY_REQUIRED, REGISTRY_OPTIONAL, what="adapter registry", extra_columns=True)
    ids = known.unique("adapter_id", remedy="keep one row an adapter")
    ranks = known.numbers("rank", low=0, whole=True, remedy="give a whole number; 0 stands for the base model")
    table = read_table(path, LOG_REQUIRED, LOG_OPTIONAL, what="access log", extra_columns=True)
    log = _requests(table, {adapter_id: i for i, adapter_id in enumerate(ids)}, known.path)
    covered_s = log.duration_s if duration_s is None else number(duration_s, "workload.duration_s", above=0.0)
    span_s = float(np.ptp(log.time_s))
    if covered_s < span_s:
        raise InputError(
            f"duration_s {covered_s:g} is shorter than the log, whose requests span {span_s:.6g} s",
            where="option workload.duration_s",
            remedy="leave it out, or give the whole time that was logged",
        )
    found = estimate(log, len(ids), quantile=chosen, window_s=window, duration_s=covered_s)
    silent = int(np.count_nonzero(found.count == 0))
    rates = np.where(found.count > 0, found.rate_req_per_s, idle or 0.0)
    adapters = _with_promises(found.adapters(ids, [int(r) for r in ranks], rates), known)
    notes = [
        f"{counted(len(adapters), 'adapter')} estimated from {counted(len(log), 'request')} over {covered_s:.6g} s "
        f"in {table.path}.",
        *found.notes,
    ]
    if silent:
        what = "left out" if idle is None else f"given {idle:g} req/s"
        notes.append(f"{counted(silent, 'adapter')} of {known.path} without requests in the log: {what}.")
    notes += [
        f"Columns of {source.path} that were not used: {', '.join(source.ignored)}."
        for source in (table, known)
        if source.ignored
    ]
    return Workload(adapters, table.path.name.split(".")[0], tuple(notes))


def _requests(table: Table, index: dict[str, int], registry: Path) -> RequestLog:
    ids = table.texts("adapter_id")
    try:
        adapter = np.fromiter(map(index.__getitem__, ids), np.int64, len(ids))
    except KeyError as error:
        row = next(r for r, adapter_id in enumerate(ids) if adapter_id not in index)
        others = len(set(ids) - index.keys()) - 1
        also = f" (and {others} other adapters of the log)" if others else ""
        raise InputError(
            f"adapter {ids[row]!r}{also} is not in the registry",
            where=table.where(row, "adapter_id"),
            remedy=f"add it with its rank to {registry} (rank 0 = the base model)",
        ) from error
    prompt = table.numbers("prompt_tokens", low=0, remedy="give the number of prompt tokens")
    output = table.numbers("output_tokens", low=0, remedy="give the number of output tokens")
    cached = np.zeros(len(table))
    if "cached_tokens" in table:
        cached = table.numbers("cached_tokens", low=0, empty=0.0, remedy="give the cached prompt tokens, 0 for none")
        too_many = cached > prompt
        if too_many.any():
            row = int(np.argmax(too_many))
            raise InputError(
                f"cached_tokens {cached[row]:g} is more than prompt_tokens {prompt[row]:g}",
                where=table.where(row, "cached_tokens"),
                remedy="cached tokens are a part of the prompt's tokens",
            )
    return RequestLog(timestamps_s(table, "timestamp"), adapter, prompt, output, cached)


def timestamps_s(table: Table, column: str) -> NDArray[np.float64]:
    """Times in seconds, (R,): numbers of seconds, or ISO 8601; all rows alike.

    Raises:
        InputError: a cell is neither, or the numbers are milliseconds.
    """
    first = table.cells[column][0].strip()
    try:
        float(first)
    except ValueError:
        return _iso_times_s(table, column)
    times = table.numbers(column, remedy="give seconds as a number, or ISO 8601, the same way on all lines")
    if np.abs(times).max() > MILLISECONDS_ABOVE:
        row = int(np.argmax(np.abs(times) > MILLISECONDS_ABOVE))
        raise InputError(
            f"{column} {table.cells[column][row].strip()!r} is not a time in seconds (milliseconds?)",
            where=table.where(row, column),
            remedy="divide by 1000, or use ISO 8601",
        )
    return times


def _iso_times_s(table: Table, column: str) -> NDArray[np.float64]:
    cells = table.texts(column)
    times = np.empty(len(cells))
    zoned = None
    for row, cell in enumerate(cells):
        try:
            time = datetime.fromisoformat(cell)
        except ValueError as error:
            raise InputError(
                f"{column} {cell!r} is neither a number of seconds nor an ISO 8601 time",
                where=table.where(row, column),
                remedy="write e.g. 1700000000.25 or 2026-11-23T18:00:00.250Z, the same way on all lines",
            ) from error
        if zoned is None:
            zoned = time.tzinfo is not None
        elif zoned != (time.tzinfo is not None):
            raise InputError(
                f"{column} {cell!r} {'has no' if zoned else 'has a'} UTC offset, unlike the first row's {cells[0]!r}",
                where=table.where(row, column),
                remedy="write all times with an offset, or all without (taken as UTC)",
            )
        # Without an offset: UTC, not the zone of the machine that plans.
        times[row] = (time if zoned else time.replace(tzinfo=UTC)).timestamp()
    return times


def _with_promises(adapters: tuple[Adapter, ...], registry: Table) -> tuple[Adapter, ...]:
    """Adds SLOs and pins of the registry."""
    ids = registry.texts("adapter_id")
    slos = [math.nan] * len(ids)
    if "slo_ttft_p99_s" in registry:
        slos = [float(v) for v in registry.numbers("slo_ttft_p99_s", above=0, empty=math.nan)]
    pins = registry.texts("pinned_gpu", required=False) if "pinned_gpu" in registry else [""] * len(ids)
    row_of = {adapter_id: row for row, adapter_id in enumerate(ids)}
    promised = []
    for adapter in adapters:
        row = row_of[adapter.adapter_id]
        slo = None if math.isnan(slos[row]) else Slo(slos[row])
        promised.append(replace(adapter, slo=slo, pinned_gpu=pins[row] or None))
    return tuple(promised)
