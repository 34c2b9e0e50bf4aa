"""Any log of requests without adapters, dealt to made-up ones: Azure 2023 and 2024, BurstGPT, results of benchmarks."""

from __future__ import annotations

from typing import Any

from twin.sources.registry import as_form
from twin.sources.requests import read_requests
from twin.sources.tables.files import Paths
from twin.sources.tables.layout import Form
from twin.sources.traces.source import Deal, TraceRequests, dealt_workload
from twin.workload.workload import Workload


def read_trace(
    path: Paths,
    n_adapters: int = 200,
    exponent: float = 1.0,
    ranks: Any = (8, 16, 32),
    rank_weights: Any = None,
    total_rate_req_per_s: float | None = None,
    max_request_tokens: int | None = 8192,
    seed: int = 0,
    length_shape: str = "gamma",
    columns: Any = None,
    decimal: str | None = None,
    time_unit: str | None = None,
    time_zone: str = "UTC",
) -> Workload:
    """A workload whose requests are those of the log, dealt to adapters at random (`dealt_workload`).

    Args:
        path: file, pattern, `-` for standard input, or several; formats as in `twin.sources.requests`.
        n_adapters, exponent: how many adapters share the requests, with shares ~ popularity rank ** -exponent.
        ranks, rank_weights: LoRA ranks and their relative frequencies (None = equal).
        total_rate_req_per_s: rates are scaled to this total; None = as recorded.
        max_request_tokens: longer requests are cut to this (said); None = never.
        seed: of the dealing.
        length_shape: `gamma`, `lognormal`, `constant`, `published`, or `empirical` (`twin.traffic.length_shapes`).
        columns, decimal, time_unit, time_zone: how the file is written (`twin.sources.tables.layout.Form`).

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    deal = Deal(n_adapters, exponent, ranks, rank_weights, total_rate_req_per_s, max_request_tokens, seed, length_shape)
    return dealt_log(path, deal, as_form(columns, decimal, time_unit, time_zone), what="trace")


def dealt_log(path: Paths, deal: Deal, form: Form, *, what: str) -> Workload:
    """The same with the options checked; adapters that the log names are not used."""
    columns = {"adapter_id": None, **form.columns}
    table = read_requests(path, Form(columns, form.decimal, form.time_unit, form.time_zone), what=what)
    log, reading = table.log, table.reading
    requests = TraceRequests(log.time_s, log.prompt_tokens, log.output_tokens)
    kind = reading.format or what
    hits = "." if log.cached_tokens.any() else "; it records no cache hits."
    return dealt_workload(
        requests, deal, name=reading.source.rpartition("/")[2].split(".")[0],
        notes=[f"Requests of the {kind} {reading.source}{hits}"], reading=reading,
        cached_tokens=(lambda _: log.cached_tokens) if log.cached_tokens.any() else None,
    )  # fmt: skip
