"""Rates over time from a file: one row an adapter and window, e.g. exported from monitoring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from twin.config.arguments import number
from twin.errors import InputError
from twin.sources.table import Table, read_table
from twin.sources.timestamps import timestamps_s
from twin.wording import counted
from twin.workload.adapter import Adapter
from twin.workload.rates import RateProfile

REQUIRED = ("adapter_id", "start_s", "rate_req_per_s")
OPTIONAL = ("arrival_cv",)


def with_recorded_rates(
    adapters: Sequence[Adapter], path: str | Path, *, end_s: Any = None
) -> tuple[tuple[Adapter, ...], str]:
    """Gives adapters the rates of a CSV file `adapter_id,start_s,rate_req_per_s[,arrival_cv]`, rows in any order.

    A rate holds from its start to the adapter's next start, the last one to the end of the file's time. Before its
    first row an adapter has rate 0. Time starts at the earliest row. An adapter's `rate_req_per_s` becomes the mean
    over the file's time; after its end the rates repeat. Adapters without rows keep their constant rate.

    Args:
        end_s: end of the file's time, in its own seconds; None = as long after the last start as that is after the
            start before it (of any adapter).

    Returns:
        The adapters, and a note.

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    table = read_table(path, REQUIRED, OPTIONAL, what="file of rates")
    ids = table.texts("adapter_id")
    index = {a.adapter_id: i for i, a in enumerate(adapters)}
    for row, adapter_id in enumerate(ids):
        if adapter_id not in index:
            raise InputError(
                f"adapter {adapter_id!r} is not in the adapter file",
                where=table.where(row, "adapter_id"),
                remedy="add it there with its rank and lengths, or remove its rates",
            )
    start = timestamps_s(table, "start_s")
    rate = table.numbers("rate_req_per_s", low=0, remedy="give requests per second, 0 for none")
    cvs = None
    if "arrival_cv" in table:
        cvs = table.numbers("arrival_cv", above=0, high=20, empty=np.nan, remedy="1 is Poisson")
    begin, end = float(start.min()), _end(table, start, end_s)
    changed = list(adapters)
    order = np.argsort(start, kind="stable")
    rows_of: dict[str, list[int]] = {}
    for row in order.tolist():
        rows_of.setdefault(ids[row], []).append(row)
    for adapter_id, rows in rows_of.items():
        adapter = adapters[index[adapter_id]]
        if adapter.rate_process is not None:
            raise InputError(
                f"adapter {adapter_id!r} has phases (on_s, off_s) in the adapter file and rates over time here",
                where=table.where(rows[0]),
                remedy="keep one of the two",
            )
        starts = start[rows]
        twice = np.flatnonzero(np.diff(starts) == 0)
        if len(twice):
            raise InputError(
                f"adapter {adapter_id!r} has two rates from the same time on",
                where=table.where(rows[int(twice[0]) + 1], "start_s"),
                remedy="keep one of them",
            )
        if not rate[rows].any():
            raise InputError(
                f"all rates of adapter {adapter_id!r} are 0",
                where=table.where(rows[0], "rate_req_per_s"),
                remedy="leave out adapters without traffic in both files",
            )
        silent = starts[0] > begin
        edges = np.concatenate([[begin] if silent else [], starts, [end]]) - begin
        factors = np.concatenate([[0.0] if silent else [], rate[rows]])
        own_cvs: tuple[float, ...] = ()
        if cvs is not None:
            own = np.where(np.isnan(cvs[rows]), adapter.arrival_cv, cvs[rows])
            own_cvs = tuple(np.concatenate([own[:1] if silent else [], own]).tolist())
        profile = RateProfile(tuple(edges.tolist()), tuple(factors.tolist()), own_cvs)
        mean = math.fsum(factors * np.diff(edges)) / (end - begin)
        changed[index[adapter_id]] = replace(adapter, rate_req_per_s=mean, rate_process=profile)
    return tuple(changed), (
        f"Rates of {counted(len(rows_of), 'adapter')} change over {end - begin:g} s as in {table.path}, and repeat "
        "after that; their mean rates are those of that file."
    )


def _end(table: Table, start: np.ndarray, end_s: Any) -> float:
    times = np.unique(start)
    if end_s is None:
        if len(times) < 2:
            raise InputError(
                f"all rates start at {times[0]:g}: how long they hold is unknown",
                where=str(table.path),
                remedy="give the end of the last window: workload.rates_end_s=3600",
            )
        return float(2 * times[-1] - times[-2])
    end = number(end_s, "workload.rates_end_s")
    if end <= times[-1]:
        raise InputError(
            f"rates_end_s {end:g} is not after the last start, {times[-1]:g} s",
            where="option workload.rates_end_s",
            remedy="give the end of the last window in the file's seconds, or leave it out",
        )
    return end
