"""A workload estimated from an access log and a registry of adapter ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from twin.config.arguments import number
from twin.errors import InputError
from twin.sources.estimates import estimate
from twin.sources.promises import SLO_COLUMNS, slos
from twin.sources.table import Table, read_table
from twin.sources.timestamps import timestamps_s
from twin.traffic.length_shapes import RECORDED_CHOICES, check_length_shape, length_note, with_length_shape
from twin.wording import counted
from twin.workload.adapter import Adapter
from twin.workload.recording import Recording, RequestLog
from twin.workload.workload import Workload

LOG_REQUIRED = ("timestamp", "adapter_id", "prompt_tokens", "output_tokens")
LOG_OPTIONAL = ("cached_tokens",)
REGISTRY_REQUIRED = ("adapter_id", "rank")
REGISTRY_OPTIONAL = (*SLO_COLUMNS, "pinned_gpu")


def read_access_log(
    path: str | Path,
    registry: str | Path,
    quantile: float | None = None,
    window_s: float = 600.0,
    duration_s: float | None = None,
    idle_rate_req_per_s: float | None = None,
    length_shape: str = "gamma",
) -> Workload:
    """Reads `timestamp,adapter_id,prompt_tokens,output_tokens[,cached_tokens]`, one row a request, in any order.

    How rates, burstiness, lengths and cache hits are estimated: `twin.sources.estimates.estimate`.

    Args:
        path: log, CSV, plain or gzip-packed; timestamps in seconds or ISO 8601 (without offset: UTC).
        registry: CSV with `adapter_id,rank` (optional: `slo_ttft_p99_s` and the other promises,
            `pinned_gpu`); rank 0 = the base model.
        quantile: plan for this quantile of each adapter's rate over windows, in (0, 1]; None = the mean.
        window_s: length of such a window, seconds.
        duration_s: time that the log covers, seconds; None = from its first to its last request.
        idle_rate_req_per_s: rate of registered adapters without requests; None = they are left out.
        length_shape: `gamma`, `lognormal`, `constant`, `published`, or `empirical`: the quantiles of an adapter's own
            requests, tail included (`twin.traffic.length_shapes`).

    The workload's `recording` holds the requests for an exact replay (`twin.workload.recording`).

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    shape = check_length_shape(length_shape, RECORDED_CHOICES)
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
    found = estimate(
        log, len(ids), quantile=chosen, window_s=window, duration_s=covered_s, keep_lengths=shape == "empirical"
    )
    silent = int(np.count_nonzero(found.count == 0))
    rates = np.where(found.count > 0, found.rate_req_per_s, idle or 0.0)
    adapters = _with_promises(found.adapters(ids, [int(r) for r in ranks], rates), known)
    adapters = with_length_shape(adapters, "gamma" if shape == "empirical" else shape)
    notes = [
        f"{counted(len(adapters), 'adapter')} estimated from {counted(len(log), 'request')} over {covered_s:.6g} s "
        f"in {table.path}.",
        *found.notes,
        *([length_note(shape)] if shape != "gamma" else []),
    ]
    if silent:
        what = "left out" if idle is None else f"given {idle:g} req/s"
        notes.append(f"{counted(silent, 'adapter')} of {known.path} without requests in the log: {what}.")
    notes += [
        f"Columns of {source.path} that were not used: {', '.join(source.ignored)}."
        for source in (table, known)
        if source.ignored
    ]
    recording = Recording(tuple(ids), log, str(table.path))
    return Workload(adapters, table.path.name.split(".")[0], tuple(notes), recording)


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


def _with_promises(adapters: tuple[Adapter, ...], registry: Table) -> tuple[Adapter, ...]:
    """Adds SLOs and pins of the registry."""
    ids = registry.texts("adapter_id")
    promised_by_row = slos(registry)
    pins = registry.texts("pinned_gpu", required=False) if "pinned_gpu" in registry else [""] * len(ids)
    row_of = {adapter_id: row for row, adapter_id in enumerate(ids)}
    promised = []
    for adapter in adapters:
        row = row_of[adapter.adapter_id]
        promised.append(replace(adapter, slo=promised_by_row[row], pinned_gpu=pins[row] or None))
    return tuple(promised)


def read_recording(
    path: str | Path,
    *,
    time: str = "timestamp",
    adapter_id: str = "adapter_id",
    prompt_tokens: str = "prompt_tokens",
    output_tokens: str = "output_tokens",
    cached_tokens: str | None = None,
) -> Recording:
    """Reads any CSV file with a row a request; the arguments name its columns.

    Times are seconds or ISO 8601 (`twin.sources.timestamps`). No registry is needed: ranks belong to the adapters that
    it is replayed for.

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    required = [time, adapter_id, prompt_tokens, output_tokens, *([cached_tokens] if cached_tokens else [])]
    table = read_table(path, required, what="recording", extra_columns=True)
    names = table.texts(adapter_id)
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    tokens = [
        table.numbers(column, low=0, remedy="give a number of tokens")
        for column in (prompt_tokens, output_tokens, *([cached_tokens] if cached_tokens else []))
    ]
    log = RequestLog(
        timestamps_s(table, time),
        np.fromiter(map(index.__getitem__, names), np.int64, len(names)),
        tokens[0],
        tokens[1],
        tokens[2] if cached_tokens else np.zeros(len(names)),
    )
    return Recording(tuple(index), log, str(table.path))
