"""ServeGen: rates, burstiness and lengths of Alibaba's API clients over 14 days, in windows of 10 minutes.

Source: alibaba/ServeGen, Apache-2.0; cite ServeGen (NSDI 2026). Read in a tidy form, two files side by side:
`*_clients_windows.csv[.gz]` with `client_id,window_start_s,rate_rps,cv` (windows without requests left out) and
`*_clients_lengths.csv[.gz]` with `client_id,window_start_s,in_mean,in_p50,in_p95,out_mean,out_p50,out_p95` (6 hours).

Clients call one base model. Taking a client for the owner of an adapter is a modelling choice: it keeps how unequal
and how bursty real tenants are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.arguments import number, whole_number
from twin.dealing import apportion, deal_ranks, power_law_shares
from twin.errors import InputError
from twin.request_log import ARRIVAL_CV_RANGE, LENGTH_CV_MAX
from twin.table import Table, read_table
from twin.traces.cut_lognormal import cut_lognormal, sigma_of_quantiles
from twin.traces.source import find_file, request_limit, scaling_note, target_rate
from twin.workload import Adapter, Lengths, Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WINDOW_S = 600.0
LENGTH_WINDOW_S = 21600.0
WINDOW_COLUMNS = ("client_id", "window_start_s", "rate_rps", "cv")
LENGTH_COLUMNS = (
    "client_id", "window_start_s", "in_mean", "in_p50", "in_p95", "out_mean", "out_p50", "out_p95",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clients:
    """C clients over W windows of `WINDOW_S`; arrays (C, W), 0 where a client rests."""

    ids: list[str]
    start_s: float
    rate_req_per_s: Floats
    arrival_cv: Floats


@dataclass(frozen=True, slots=True)
class ClientLengths:
    """Mean and CV of the prompt and output lengths of C clients, (C,); `known` where the trace has them."""

    known: NDArray[np.bool_]
    prompt_mean: Floats
    prompt_cv: Floats
    output_mean: Floats
    output_cv: Floats
    cut_share: float


def read_servegen(
    path: str | Path,
    trace: str = "m-mid",
    n_adapters: int | None = None,
    split_exponent: float = 1.0,
    quantile: float | None = None,
    ranks: Any = (8, 16, 32),
    rank_weights: Any = None,
    total_rate_req_per_s: float | None = 40.0,
    max_request_tokens: int | None = 8192,
    length_correlation: float = 0.0,
    seed: int = 0,
) -> Workload:
    """One adapter a client, or several adapters a client where more are wanted.

    Rates and arrival CVs are means over all windows (windows left out count as rate 0), or a quantile of the
    client's own windows, with the rate at least its mean. Lengths are mixtures over the 6-hour windows, weighted by
    requests; within one, lognormal with the recorded mean and p95 / p50. Clients without recorded lengths get the
    median of the others.

    Args:
        path: the windows file (its lengths file lies beside it), or the folder that holds both.
        trace: `m-small`, `m-mid` or `m-large`, where `path` is a folder.
        n_adapters: None = one a client. Fewer: the busiest clients. More: the adapters are dealt evenly to the
            clients (busiest first); a client's requests go to its adapters at random, with shares
            ~ i ** -split_exponent, which makes their arrivals smoother than the client's.
        split_exponent: see above; 0 = equal shares.
        quantile: of the windows, in (0, 1]; 1 = every client's peak at once. None = means.
        ranks, rank_weights: LoRA ranks and their relative frequencies (None = equal), dealt with `seed`.
        total_rate_req_per_s: rates are scaled to this total; None = as recorded (m-mid: 1,800 req/s).
        max_request_tokens: length distributions are cut here (said in the notes); None = never.
        length_correlation: of prompt and output length; the trace does not tell.
        seed: of the ranks.

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    chosen = None if quantile is None else number(quantile, "workload.quantile", above=0.0, high=1.0)
    limit = request_limit(max_request_tokens)
    correlation = number(length_correlation, "workload.length_correlation", low=-1.0, high=1.0)
    file = find_file(
        path,
        [f"{trace}_clients_windows.csv.gz", f"{trace}_clients_windows.csv"],
        "servegen",
        what="ServeGen trace",
        choices="m-small, m-mid, m-large",
    )
    clients = _read_windows(file)
    lengths = _read_lengths(_lengths_file(file), clients, limit)
    rates, cvs = _rates_and_cvs(clients, chosen)
    own_total = float(rates.sum())
    total = target_rate(total_rate_req_per_s, own_total)

    wanted = len(clients.ids) if n_adapters is None else whole_number(n_adapters, "workload.n_adapters", low=1)
    busiest = np.argsort(-rates, kind="stable")[:wanted]
    kept_share = float(rates[busiest].sum()) / own_total
    client, share = _split(busiest, wanted, number(split_exponent, "workload.split_exponent", low=0.0, high=10.0))
    rng = np.random.default_rng(whole_number(seed, "workload.seed"))
    dealt = deal_ranks(wanted, ranks, rank_weights, rng)
    scale = total / (own_total * kept_share)
    # A random share p of arrivals with CV c has CV^2 = 1 + p (c^2 - 1): what is thinned enough is Poisson.
    split_cvs = np.sqrt(1.0 + share * (cvs[client] ** 2 - 1.0))
    label = file.name.split("_clients_windows")[0]
    ids = _adapter_ids(label, clients.ids, client)
    adapters = tuple(
        Adapter(
            ids[i],
            int(dealt[i]),
            float(rates[c] * share[i] * scale),
            Lengths(float(lengths.prompt_mean[c]), float(lengths.prompt_cv[c])),
            Lengths(float(lengths.output_mean[c]), float(lengths.output_cv[c])),
            float(split_cvs[i]),
            0.0,
            _possible_correlation(correlation, float(lengths.prompt_cv[c]), float(lengths.output_cv[c])),
        )
        for i, c in enumerate(client)
    )
    notes = [_mapping_note(file, len(clients.ids), wanted, kept_share)]
    if chosen is not None:
        notes.append(f"Rates and arrival CVs are the {chosen:g} quantile of each client's own 10-minute windows.")
    notes.append(scaling_note(total, own_total))
    unknown = int(np.count_nonzero(~lengths.known[busiest]))
    if unknown:
        share_unknown = float(rates[busiest][~lengths.known[busiest]].sum()) / float(rates[busiest].sum())
        notes.append(
            f"{unknown} clients ({share_unknown:.1%} of the requests) have no recorded lengths and were given the "
            "median of the others."
        )
    if lengths.cut_share > 0:
        notes.append(f"About {lengths.cut_share:.2%} of the requests were longer than {limit:.0f} tokens and were cut.")
    return Workload(adapters, f"servegen {label}", tuple(notes))


def _lengths_file(windows: Path) -> Path:
    if "_windows" not in windows.name:
        raise InputError(
            f"{windows.name!r} does not tell where the clients' lengths are",
            where=str(windows),
            remedy="name the file *_clients_windows.csv[.gz], with *_clients_lengths.csv[.gz] beside it",
        )
    beside = windows.with_name(windows.name.replace("_windows", "_lengths"))
    other = beside.with_suffix("") if beside.suffix == ".gz" else beside.with_name(beside.name + ".gz")
    return other if other.is_file() and not beside.is_file() else beside


def _read_windows(file: Path) -> Clients:
    table = read_table(file, WINDOW_COLUMNS, ("pattern",), what="ServeGen windows file", extra_columns=True)
    start = table.numbers("window_start_s")
    rate = table.numbers("rate_rps", low=0, remedy="give requests per second")
    cv = table.numbers("cv", low=0, remedy="give the CV of the gaps between requests")
    if not (rate > 0).any():
        raise InputError("no client has any requests", where=str(file), remedy="give rates above 0")
    names = table.texts("client_id")
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    client = np.fromiter(map(index.__getitem__, names), np.int64, len(names))
    window = np.rint((start - start.min()) / WINDOW_S).astype(np.int64)
    size = int(window.max()) + 1
    cells = client * size + window
    _check_once(table, cells)
    rates, cvs = np.zeros(len(index) * size), np.ones(len(index) * size)
    rates[cells] = rate
    # A few windows hold CVs of several hundred (an outage, then everything at once).
    cvs[cells] = np.clip(cv, *ARRIVAL_CV_RANGE)
    shape = (len(index), size)
    return Clients(list(index), float(start.min()), rates.reshape(shape), cvs.reshape(shape))


def _check_once(table: Table, cells: Ints) -> None:
    values, first, counts = np.unique(cells, return_index=True, return_counts=True)
    if (counts > 1).any():
        twice = int(np.argmax(counts > 1))
        rows = np.flatnonzero(cells == values[twice])
        raise InputError(
            f"client {table.cells['client_id'][first[twice]].strip()!r} has one window twice, "
            f"on lines {table.lines[rows[0]]} and {table.lines[rows[1]]}",
            where=table.where(int(rows[1])),
            remedy="keep one row a client and window",
        )


def _rates_and_cvs(clients: Clients, quantile: float | None) -> tuple[Floats, Floats]:
    """Rates (req/s) and arrival CVs of the clients, (C,)."""
    rates = clients.rate_req_per_s
    mean = rates.mean(axis=1)
    active = rates > 0
    if quantile is None:
        requests = np.where(active, rates, 0.0)
        weight = np.maximum(requests.sum(axis=1), 1e-300)
        return mean, (requests * clients.arrival_cv).sum(axis=1) / weight
    cvs = np.array(
        [
            float(np.quantile(cv[on], quantile)) if on.any() else 1.0
            for cv, on in zip(clients.arrival_cv, active, strict=True)
        ]
    )
    return np.maximum(mean, np.quantile(rates, quantile, axis=1)), cvs


def _read_lengths(file: Path, clients: Clients, limit: float) -> ClientLengths:
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
    weight = _requests_of(clients, client, start)
    total = np.bincount(client, weights=weight, minlength=len(clients.ids))
    known = total > 0

    def mixed(values: Floats, missing: float = 0.0) -> Floats:
        """Means over the requests of each client, (C,)."""
        sums = np.bincount(client, weights=weight * values, minlength=len(clients.ids))
        return np.divide(sums, total, out=np.full(len(total), missing), where=known)

    def described(mean: Floats, second: Floats) -> tuple[Floats, Floats]:
        means, seconds = np.maximum(mixed(mean, 1.0), 1.0), mixed(second, 1.0)
        cvs = np.minimum(np.sqrt(np.maximum(0.0, seconds / means**2 - 1.0)), LENGTH_CV_MAX)
        return np.where(known, means, np.median(means[known])), np.where(known, cvs, np.median(cvs[known]))

    cut = np.maximum(prompt_cut, output_cut)
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
    return np.maximum((sums[client, end] - sums[client, first]) * WINDOW_S, 1e-6)


def _split(busiest: Ints, wanted: int, exponent: float) -> tuple[Ints, Floats]:
    """The client of each adapter and the adapter's share of that client's requests, both (wanted,)."""
    counts = apportion(wanted, [1.0] * len(busiest))
    client = np.repeat(busiest, counts)
    shares = np.concatenate([power_law_shares(int(k), exponent) for k in counts])
    return client, shares


def _adapter_ids(label: str, ids: list[str], client: Ints) -> list[str]:
    total = np.bincount(client, minlength=len(ids))
    seen = [0] * len(ids)
    names = []
    for c in client:
        seen[c] += 1
        names.append(f"{label}-client-{ids[c]}" + (f"-{seen[c]}" if total[c] > 1 else ""))
    return names


def _possible_correlation(correlation: float, prompt_cv: float, output_cv: float) -> float:
    """Lengths of such spreads cannot have E[prompt * output] <= 0."""
    return max(correlation, -0.99 / max(prompt_cv * output_cv, 1e-9)) if correlation < 0 else correlation


def _mapping_note(file: Path, clients: int, adapters: int, kept_share: float) -> str:
    if adapters < clients:
        how = f"the busiest {adapters} of {clients} clients ({kept_share:.1%} of the requests), one adapter each"
    elif adapters == clients:
        how = f"{clients} clients, one adapter each"
    else:
        how = f"{clients} clients, whose requests were split over {adapters} adapters"
    return f"Traffic of {how}, from the ServeGen trace {file}."
