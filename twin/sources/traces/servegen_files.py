"""The two files of a ServeGen trace: what each client sent, in windows, and how long its requests were."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.sources.estimates import ARRIVAL_CV_RANGE, LENGTH_CV_MAX
from twin.sources.table import Table, read_table
from twin.sources.traces.cut_lognormal import cut_lognormal, sigma_of_quantiles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WINDOW_S = 600.0
LENGTH_WINDOW_S = 21600.0
#: Two years; more is a start in milliseconds.
MOST_WINDOWS = 105_120
WINDOW_COLUMNS = ("client_id", "window_start_s", "rate_rps", "cv")
LENGTH_COLUMNS = (
    "client_id", "window_start_s", "in_mean", "in_p50", "in_p95", "out_mean", "out_p50", "out_p95",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clients:
    """C clients with traffic over W windows of `WINDOW_S`; arrays (C, W), rate 0 where a client rests.

    `cut_cvs` is the share of windows whose arrival CV was cut to `ARRIVAL_CV_RANGE`.
    """

    ids: list[str]
    start_s: float
    rate_req_per_s: Floats
    arrival_cv: Floats
    cut_cvs: float


@dataclass(frozen=True, slots=True)
class ClientLengths:
    """Mean and CV of the prompt and output lengths of C clients, (C,); `known` where the trace has them."""

    known: NDArray[np.bool_]
    prompt_mean: Floats
    prompt_cv: Floats
    output_mean: Floats
    output_cv: Floats
    cut_share: float


def lengths_file(windows: Path) -> Path:
    if "_windows" not in windows.name:
        raise InputError(
            f"{windows.name!r} does not tell where the clients' lengths are",
            where=str(windows),
            remedy="name the file *_clients_windows.csv[.gz], with *_clients_lengths.csv[.gz] beside it",
        )
    beside = windows.with_name(windows.name.replace("_windows", "_lengths"))
    other = beside.with_suffix("") if beside.suffix == ".gz" else beside.with_name(beside.name + ".gz")
    return other if other.is_file() and not beside.is_file() else beside


def read_windows(file: Path) -> Clients:
    table = read_table(file, WINDOW_COLUMNS, ("pattern",), what="ServeGen windows file", extra_columns=True)
    start = table.numbers("window_start_s")
    rate = table.numbers("rate_rps", low=0, remedy="give requests per second")
    cv = table.numbers("cv", low=0, remedy="give the CV of the gaps between requests")
    if not (rate > 0).any():
        raise InputError("no client has any requests", where=str(file), remedy="give rates above 0")
    names = table.texts("client_id")
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    client = np.fromiter(map(index.__getitem__, names), np.int64, len(names))
    window = window_of(start, float(start.min()), table.where(int(np.argmax(start)), "window_start_s"))
    size = int(window.max()) + 1
    cells = client * size + window
    _check_once(table, cells)
    rates, cvs = np.zeros(len(index) * size), np.ones(len(index) * size)
    rates[cells] = rate
    # A few windows hold CVs of several hundred (an outage, then everything at once).
    cvs[cells] = np.clip(cv, *ARRIVAL_CV_RANGE)
    shape = (len(index), size)
    cut_cvs = float(np.mean(cvs[cells] != cv))
    active = np.flatnonzero(rates.reshape(shape).max(axis=1))
    clients = list(index)
    ids = [clients[i] for i in active]
    return Clients(ids, float(start.min()), rates.reshape(shape)[active], cvs.reshape(shape)[active], cut_cvs)


def window_of(start_s: Floats, first_s: float, where: str) -> Ints:
    """Number of the 10-minute window of each start."""
    window = np.rint((start_s - first_s) / WINDOW_S).astype(np.int64)
    if window.max() >= MOST_WINDOWS:
        raise InputError(
            f"window_start_s {start_s.max():g} lies {window.max() + 1} windows after the first",
            where=where,
            remedy=f"give starts in seconds, at most {MOST_WINDOWS} windows of {WINDOW_S:g} s apart",
        )
    return window


def _check_once(table: Table, cells: Ints) -> None:
    values, first, counts = np.unique(cells, return_index=True, return_counts=True)
    if (counts > 1).any():
        twice = int(np.argmax(counts > 1))
        rows = np.flatnonzero(cells == values[twice])
        raise InputError(
            f"client {table.texts('client_id')[first[twice]]!r} has one window twice, "
            f"on {table.line(int(rows[0]))} and {table.line(int(rows[1]))}",
            where=table.where(int(rows[1])),
            remedy="keep one row a client and window",
        )


def read_lengths(file: Path, clients: Clients, limit: float) -> ClientLengths:
    table = read_table(file, LENGTH_COLUMNS, what="ServeGen lengths file", extra_columns=True)
    index = {name: i for i, name in enumerate(clients.ids)}
    row_client = np.array([index.get(name, -1) for name in table.texts("client_id")])
    start = table.numbers("window_start_s")
    columns = {name: table.numbers(name, low=0) for name in LENGTH_COLUMNS[2:]}
    used = row_client >= 0
    if not used.any():
        raise InputError(
            "no client of the windows file has lengths here", where=str(file), remedy="give the files of one trace"
        )
    client, start = row_client[used], start[used]
    output_mean, output_second, output_cut = cut_lognormal(
        columns["out_mean"][used], sigma_of_quantiles(columns["out_p50"][used], columns["out_p95"][used]), limit - 1
    )
    prompt_mean, prompt_second, prompt_cut = cut_lognormal(
        columns["in_mean"][used],
        sigma_of_quantiles(columns["in_p50"][used], columns["in_p95"][used]),
        np.maximum(1.0, limit - output_mean),
    )
    cut = np.maximum(prompt_cut, output_cut)
    return mixed_lengths(clients, client, start, prompt_mean, prompt_second, output_mean, output_second, cut)


def mixed_lengths(
    clients: Clients,
    client: Ints,
    start: Floats,
    prompt_mean: Floats,
    prompt_second: Floats,
    output_mean: Floats,
    output_second: Floats,
    cut: Floats,
) -> ClientLengths:
    """Lengths of each client, (C,), from its 6-hour windows, (L,), weighted by requests.

    Args:
        client: whose window it is, an index.
        start: of the window, seconds.
        prompt_mean, prompt_second, output_mean, output_second: first and second moments in the window.
        cut: share of its requests that were cut.
    """
    weight = _requests_of(clients, client, start)
    total = np.bincount(client, weights=weight, minlength=len(clients.ids))
    known = total > 0

    def mixed(values: Floats, missing: float = 0.0) -> Floats:
        """Means over the requests of each client, (C,)."""
        sums = np.bincount(client, weights=weight * values, minlength=len(clients.ids))
        means: Floats = np.divide(sums, total, out=np.full(len(total), missing), where=known)
        return means

    def described(mean: Floats, second: Floats) -> tuple[Floats, Floats]:
        means, seconds = np.maximum(mixed(mean, 1.0), 1.0), mixed(second, 1.0)
        cvs = np.minimum(np.sqrt(np.maximum(0.0, seconds / means**2 - 1.0)), LENGTH_CV_MAX)
        return np.where(known, means, np.median(means[known])), np.where(known, cvs, np.median(cvs[known]))

    cut_share = float((weight * cut).sum() / weight.sum())
    return ClientLengths(
        known, *described(prompt_mean, prompt_second), *described(output_mean, output_second), cut_share
    )


def _requests_of(clients: Clients, client: Ints, start_s: Floats) -> Floats:
    """Weight of each length row, (L,): requests of its client in its 6 hours; a trickle where none were recorded."""
    sums = np.concatenate([np.zeros((len(clients.ids), 1)), clients.rate_req_per_s.cumsum(axis=1)], axis=1)
    last = sums.shape[1] - 1
    first = np.clip(np.rint((start_s - clients.start_s) / WINDOW_S), 0, last).astype(np.int64)
    end = np.clip(np.rint((start_s + LENGTH_WINDOW_S - clients.start_s) / WINDOW_S), 0, last).astype(np.int64)
    requests: Floats = np.maximum((sums[client, end] - sums[client, first]) * WINDOW_S, 1e-6)
    return requests
