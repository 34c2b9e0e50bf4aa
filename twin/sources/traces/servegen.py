"""ServeGen: rates, burstiness and lengths of Alibaba's API clients over 14 days, in windows of 10 minutes.

Source: alibaba/ServeGen, Apache-2.0; cite ServeGen (NSDI 2026). Read as it is published (`servegen_chunks`), or in a
tidy form, two files side by side:
`*_clients_windows.csv[.gz]` with `client_id,window_start_s,rate_rps,cv` (windows without requests left out) and
`*_clients_lengths.csv[.gz]` with `client_id,window_start_s,in_mean,in_p50,in_p95,out_mean,out_p50,out_p95` (6 hours).

Clients call one base model. Taking a client for the owner of an adapter is a modelling choice: it keeps how unequal
and how bursty real tenants are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.config.arguments import number, whole_number
from twin.errors import InputError
from twin.sources.dealing import apportion, deal_ranks, power_law_shares
from twin.sources.estimates import ARRIVAL_CV_RANGE, possible_correlation
from twin.sources.traces.servegen_chunks import chunk_folder, read_chunk_lengths, read_chunk_windows
from twin.sources.traces.servegen_files import (
    WINDOW_S,
    ClientLengths,
    Clients,
    lengths_file,
    read_lengths,
    read_windows,
)
from twin.sources.traces.source import find_file, request_limit, scaling_note, target_rate
from twin.traffic.options import with_traffic_options
from twin.wording import counted, percent
from twin.workload.adapter import Adapter, Lengths
from twin.workload.rates import RateProfile, even_profile
from twin.workload.reading import Reading
from twin.workload.workload import ReadWorkload, Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    drift_s: float | None = None,
    drift_start_s: float | None = None,
    plan_rate: str | float = "mean",
    length_shape: str = "gamma",
) -> Workload:
    """One adapter a client, or several adapters a client where more are wanted.

    Rates and arrival CVs are means over all windows in which anybody sent something (a client that did not counts as
    rate 0), or a quantile of the client's own windows, with the rate at least its mean. Lengths are mixtures over the
    6-hour windows, weighted by requests; within one, lognormal with the recorded mean and p95 / p50. Clients without
    recorded lengths get the median of the others.

    Args:
        path: the windows file (its lengths file lies beside it), or the folder that holds both, or that of the chunks.
        trace: `m-small`, `m-mid` or `m-large`, where `path` is a folder.
        n_adapters: None = one a client. Fewer: the busiest clients. More: the adapters are dealt evenly to the
            clients (busiest first); a client's requests go to its adapters at random, with shares
            ~ i ** -split_exponent, which makes their arrivals smoother than the client's.
        split_exponent: see above; 0 = equal shares.
        quantile: of the windows, in (0, 1]; 1 = every client's peak at once. None = means.
        ranks, rank_weights: LoRA ranks and their relative frequencies (None = equal), dealt with `seed`.
        total_rate_req_per_s: rates are scaled to this total; None = as recorded (m-mid: 1,870 req/s).
        max_request_tokens: length distributions are cut here (said in the notes); None = never.
        length_correlation: of prompt and output length; the trace does not tell. Brought nearer to 0 for clients
            whose spreads cannot have it.
        seed: of the ranks.
        drift_s: rates and arrival CVs change from window to window as they were recorded over this time, a multiple
            of 600 s, and repeat after it; rates are means over it. None = they are constant.
        drift_start_s: its start, seconds after the trace's first window; None = where most requests were sent.
        plan_rate: which rate of a changing one is planned for: `mean`, `peak` or a quantile over time.
        length_shape: `gamma`, `lognormal`, `constant` or `published` (`twin.traffic.length_shapes`).

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    chosen = None if quantile is None else number(quantile, "workload.quantile", above=0.0, high=1.0)
    limit = request_limit(max_request_tokens)
    correlation = number(length_correlation, "workload.length_correlation", low=-1.0, high=1.0)
    file, clients, lengths = _files(path, trace, limit)
    clients, drift_note = _stretch(clients, drift_s, drift_start_s, chosen)
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
    reading = Reading(str(file), "ServeGen")
    ids = _adapter_ids(label, clients.ids, client)
    correlations = possible_correlation(correlation, lengths.prompt_cv, lengths.output_cv)
    adapters = tuple(
        Adapter(
            ids[i],
            int(dealt[i]),
            float(rates[c] * share[i] * scale),
            Lengths(float(lengths.prompt_mean[c]), float(lengths.prompt_cv[c])),
            Lengths(float(lengths.output_mean[c]), float(lengths.output_cv[c])),
            float(split_cvs[i]),
            0.0,
            float(correlations[c]),
            rate_process=_profile(clients, int(c), float(share[i])) if drift_note else None,
        )
        for i, c in enumerate(client)
    )
    adapters, added = with_traffic_options(adapters, length_shape, None, plan_rate)
    notes = [_mapping_note(file, len(clients.ids), wanted, kept_share)]
    if drift_note:
        notes.append(drift_note)
    if chosen is not None:
        notes.append(f"Rates and arrival CVs are the {chosen:g} quantile of each client's own 10-minute windows.")
    if clients.cut_cvs > 0:
        low, high = ARRIVAL_CV_RANGE
        notes.append(f"Arrival CVs outside {low:g}..{high:g} ({percent(clients.cut_cvs)} of the windows) cut to that.")
    notes.append(scaling_note(total, own_total))
    unknown = int(np.count_nonzero(~lengths.known[busiest]))
    if unknown:
        share_unknown = float(rates[busiest][~lengths.known[busiest]].sum()) / float(rates[busiest].sum())
        notes.append(
            f"{counted(unknown, 'client')} ({percent(share_unknown)} of the requests) without recorded lengths: "
            "given the median of the others."
        )
    if lengths.cut_share > 0:
        notes.append(
            f"Requests of more than {limit:.0f} tokens ({percent(lengths.cut_share)} by estimate) cut to that."
        )
        reading = replace(reading, notes=(notes[-1],))
    span = float(clients.rate_req_per_s.shape[1] * WINDOW_S)
    return ReadWorkload(adapters, f"servegen {label}", (*notes, *added), reading=replace(reading, span_s=span))


def _files(path: Any, trace: str, limit: float) -> tuple[Path, Clients, ClientLengths]:
    """What was read, rates and lengths: of the files as they are published, or in a tidy form."""
    if (folder := chunk_folder(path, trace)) is not None:
        clients = read_chunk_windows(folder)
        return folder, clients, read_chunk_lengths(folder, clients, limit)
    file = find_file(
        path, [f"{trace}_clients_windows.csv.gz", f"{trace}_clients_windows.csv"], "servegen", what="ServeGen trace",
        choices="m-small, m-mid, m-large",
    )  # fmt: skip
    clients = read_windows(file)
    return file, clients, read_lengths(lengths_file(file), clients, limit)


def _stretch(
    clients: Clients, drift_s: float | None, drift_start_s: float | None, quantile: float | None
) -> tuple[Clients, str]:
    """The part of the trace whose changes are kept, and a note; the whole trace and none if nothing is asked for."""
    if drift_s is None:
        if drift_start_s is not None:
            raise InputError(
                f"drift_start_s {drift_start_s!r} without drift_s",
                where="option workload.drift_start_s",
                remedy="say how long the recorded changes are kept, e.g. workload.drift_s=3600",
            )
        return clients, ""
    if quantile is not None:
        raise InputError(
            f"quantile {quantile:g} plans for constant rates, and with drift_s they change",
            where="options workload.quantile, workload.drift_s",
            remedy="use workload.plan_rate=<quantile> with workload.drift_s",
        )
    span = number(drift_s, "workload.drift_s", low=WINDOW_S)
    recorded = clients.rate_req_per_s.shape[1]
    windows = round(span / WINDOW_S)
    if abs(windows * WINDOW_S - span) > 1e-6 or windows > recorded:
        raise InputError(
            f"drift_s {span:g} is not 1 to {recorded} windows of {WINDOW_S:g} s",
            where="option workload.drift_s",
            remedy=f"give a multiple of {WINDOW_S:g} s within the trace",
        )
    total = clients.rate_req_per_s.sum(axis=0)
    if drift_start_s is None:
        until = np.concatenate([[0.0], np.cumsum(total)])
        first = int(np.argmax(until[windows:] - until[:-windows]))
    else:
        first = int(number(drift_start_s, "workload.drift_start_s", low=0.0) // WINDOW_S)
    if first + windows > recorded or not total[first : first + windows].any():
        raise InputError(
            f"the trace holds no requests from {first * WINDOW_S:g} to {(first + windows) * WINDOW_S:g} s",
            where="option workload.drift_start_s",
            remedy=f"choose a start within the {recorded * WINDOW_S:g} s of the trace, or leave it out",
        )
    rate = clients.rate_req_per_s[:, first : first + windows]
    active = np.flatnonzero(rate.max(axis=1))
    part = Clients(
        [clients.ids[i] for i in active], clients.start_s + first * WINDOW_S, rate[active],
        clients.arrival_cv[active, first : first + windows], clients.cut_cvs,
    )  # fmt: skip
    return part, (
        f"Rates and arrival CVs change every {WINDOW_S:g} s as recorded in the {span:g} s from {first * WINDOW_S:g} s "
        "after the first window on, and repeat after that."
    )


def _profile(clients: Clients, client: int, share: float) -> RateProfile:
    """The recorded windows of a client for an adapter that gets a share of its requests."""
    cvs = np.sqrt(1.0 + share * (clients.arrival_cv[client] ** 2 - 1.0))
    return even_profile(clients.rate_req_per_s[client].tolist(), WINDOW_S, arrival_cvs=tuple(cvs.tolist()))


def _rates_and_cvs(clients: Clients, quantile: float | None) -> tuple[Floats, Floats]:
    """Rates (req/s) and arrival CVs of the clients, (C,)."""
    # A window in which nobody sent anything is a gap of the recording.
    recorded = clients.rate_req_per_s.any(axis=0)
    rates, arrival_cv = clients.rate_req_per_s[:, recorded], clients.arrival_cv[:, recorded]
    mean = rates.mean(axis=1)
    active = rates > 0
    if quantile is None:
        return mean, (rates * arrival_cv).sum(axis=1) / rates.sum(axis=1)
    cvs = np.array([float(np.quantile(cv[on], quantile)) for cv, on in zip(arrival_cv, active, strict=True)])
    return np.maximum(mean, np.quantile(rates, quantile, axis=1)), cvs


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


def _mapping_note(file: Path, clients: int, adapters: int, kept_share: float) -> str:
    if adapters < clients:
        how = f"the busiest {adapters} of {clients} clients ({percent(kept_share)} of the requests), one adapter each"
    elif adapters == clients:
        how = f"{clients} clients, one adapter each"
    else:
        how = f"{clients} clients, whose requests were split over {adapters} adapters"
    return f"Traffic of {how}, from the ServeGen trace {file}."
