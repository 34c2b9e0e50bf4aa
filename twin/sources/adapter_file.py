"""A workload as a CSV file: one row an adapter, or one row a tenant of an adapter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.config.arguments import number
from twin.errors import InputError
from twin.sources.promises import SLO_COLUMNS, slos
from twin.sources.rate_file import with_recorded_rates
from twin.sources.registry import Registry, as_form, read_registry
from twin.sources.table import Table, read_table
from twin.sources.timestamps import check_form
from twin.traffic.drift import apply_drift
from twin.traffic.length_shapes import check_length_shape, length_note, with_length_shape
from twin.wording import counted
from twin.workload.adapter import PUBLISHED_OUTPUT_CV, PUBLISHED_PROMPT_CV, Adapter, Lengths
from twin.workload.rates import OnOff
from twin.workload.workload import Workload, merge_tenants

REQUIRED = ("adapter_id", "rank", "rate_req_per_s", "prompt_tokens", "output_tokens")
OPTIONAL = (
    "arrival_cv",
    "prompt_cv",
    "output_cv",
    "cached_prompt_fraction",
    *SLO_COLUMNS,
    "pinned_gpu",
    "length_correlation",
    "length_shape",
    "on_s",
    "off_s",
    "off_factor",
    "switch_group",
    "path",
    "tenant",
)
#: What columns are called elsewhere.
NAMES = {
    "adapter_id": ("adapter", "adapter_name", "lora_name", "lora", "model"),
    "rank": ("r", "lora_rank"),
    "rate_req_per_s": ("req_per_s", "requests_per_s", "requests_per_second", "rps", "qps"),
    "prompt_tokens": ("input_tokens", "mean_prompt_tokens", "mean_input_tokens"),
    "output_tokens": ("completion_tokens", "mean_output_tokens"),
}


def read_adapters(
    path: str | Path,
    default_arrival_cv: float = 1.0,
    default_prompt_cv: float = PUBLISHED_PROMPT_CV,
    default_output_cv: float = PUBLISHED_OUTPUT_CV,
    default_length_correlation: float = 0.0,
    rates_path: str | Path | None = None,
    rates_end_s: float | None = None,
    length_shape: str = "gamma",
    drift: Any = None,
    plan_rate: str | float = "mean",
    columns: Any = None,
    decimal: str | None = None,
    registry: Any = None,
    base: str | None = None,
) -> Workload:
    """Reads `adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens` and optional columns, in any order.

    Optional: `arrival_cv, prompt_cv, output_cv, cached_prompt_fraction, slo_ttft_p99_s, slo_itl_mean_ms,
    slo_tpot_mean_ms, slo_e2e_mean_s, pinned_gpu, length_correlation, length_shape, on_s, off_s, off_factor,
    switch_group, path` (where a server finds the weights); an empty cell stands for the default.
    With a column `tenant`, several rows may name one adapter: their rates add, lengths mix and the strictest SLO
    holds. Rank 0 = requests to the base model. With `on_s` and `off_s` an adapter sends in phases
    (`twin.workload.rates.OnOff`); adapters of one `switch_group` switch together.

    Args:
        path: file, pattern, `-` for standard input, or several: CSV, JSON lines, Parquet, packed or not.
        default_arrival_cv: where the file says nothing; 1 = Poisson.
        default_prompt_cv, default_output_cv: spreads where the file says nothing (the published ones).
        default_length_correlation: of prompt and output length where the file says nothing.
        rates_path: CSV file of rates over time, `twin.sources.rate_file`; None = rates are constant.
        rates_end_s: end of its last window, in its own seconds; None = as long as the window before it.
        length_shape: where the file says nothing: `gamma`, `lognormal`, `constant` or `published`.
        drift: how the rates of the other adapters change, a `twin.traffic.drift.Drift`; None = they do not.
        plan_rate: which rate of a changing one is planned for: `mean`, `peak` or a quantile over time.
        columns: our column -> the file's; None = found by name.
        decimal: decimal mark, `.` or `,`; None = told from the cells.
        registry: where ranks come from if the file has no such column: a table, or folders of PEFT adapters.
        base: model that the fleet serves; adapters of another one are refused.

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    check_length_shape(length_shape)
    default_arrival_cv = number(default_arrival_cv, "workload.default_arrival_cv", above=0.0, high=20.0)
    default_prompt_cv = number(default_prompt_cv, "workload.default_prompt_cv", low=0.0, high=20.0)
    default_output_cv = number(default_output_cv, "workload.default_output_cv", low=0.0, high=20.0)
    default_length_correlation = number(
        default_length_correlation, "workload.default_length_correlation", low=-1.0, high=1.0
    )
    form = as_form(columns, decimal)
    check_form(form)
    required = REQUIRED if registry is None else tuple(name for name in REQUIRED if name != "rank")
    others = OPTIONAL if registry is None else (*OPTIONAL, "rank")
    table = read_table(path, required, others, what="adapter file", names=NAMES, form=form)
    tenants = "tenant" in table
    if tenants:
        ids = table.texts("adapter_id")
        _check_tenants(table, ids)
    else:
        ids = table.unique(
            "adapter_id", remedy="keep one row an adapter, or add a column 'tenant' so that its rows are merged"
        )
    ranks = _ranks(table, ids, None if registry is None else read_registry(registry, base=base))
    rates = table.numbers(
        "rate_req_per_s", above=0, remedy="give requests per second; leave out adapters without traffic"
    )
    prompts = table.numbers("prompt_tokens", low=1, remedy="give the mean prompt length in tokens, >= 1")
    outputs = table.numbers("output_tokens", low=1, remedy="give the mean output length in tokens, >= 1")

    def optional(
        column: str,
        default: float,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        above: float = -math.inf,
        below: float = math.inf,
    ) -> list[float]:
        if column not in table:
            return [default] * len(table)
        values = table.numbers(column, empty=default, low=low, high=high, above=above, below=below)
        return [float(v) for v in values]

    arrival_cvs = optional("arrival_cv", default_arrival_cv, above=0, high=20)
    prompt_cvs = optional("prompt_cv", default_prompt_cv, low=0, high=20)
    output_cvs = optional("output_cv", default_output_cv, low=0, high=20)
    cached = optional("cached_prompt_fraction", 0.0, low=0, below=1)
    correlations = optional("length_correlation", default_length_correlation, low=-1, high=1)
    promised = slos(table)
    pins = _texts(table, "pinned_gpu")
    shapes = _texts(table, "length_shape")
    switching = _switching(table)
    paths = _texts(table, "path")
    adapters = []
    for row, adapter_id in enumerate(ids):
        with _located(table, row):
            adapters.append(
                Adapter(
                    adapter_id,
                    int(ranks[row]),
                    float(rates[row]),
                    _lengths(float(prompts[row]), prompt_cvs[row], shapes[row]),
                    _lengths(float(outputs[row]), output_cvs[row], shapes[row]),
                    arrival_cvs[row],
                    cached[row],
                    correlations[row],
                    promised[row],
                    pins[row] or None,
                    switching[row],
                    paths[row] or None,
                )
            )
    # Only where the file says nothing.
    adapters = [a if own else with_length_shape([a], length_shape)[0] for a, own in zip(adapters, shapes, strict=True)]
    if tenants:
        _check_shared(table, adapters, "rank", lambda a: a.rank)
        _check_shared(table, adapters, "pinned_gpu", lambda a: a.pinned_gpu)
        _check_shared(table, adapters, "path", lambda a: a.path)
    merged = merge_tenants(adapters) if tenants else tuple(adapters)
    notes = list(_notes(table, len(merged), default_prompt_cv, default_output_cv))
    if rates_path is not None:
        merged, note = with_recorded_rates(merged, rates_path, end_s=rates_end_s)
        notes.append(note)
    elif rates_end_s is not None:
        raise InputError(
            f"rates_end_s {rates_end_s!r} without a file of rates",
            where="option workload.rates_end_s",
            remedy="name the file with workload.rates_path, or leave it out",
        )
    if length_shape != "gamma" and not all(shapes):
        notes.append(length_note(length_shape))
    changed, added = apply_drift(merged, drift, plan_rate)
    return Workload(changed, table.path.stem, (*notes, *added))


def read_frame(frame: Any) -> Workload:
    """The adapters of a pandas DataFrame with the columns of `read_adapters`; its index does not count.

    Raises:
        InputError: names row, column, value and remedy.
    """
    return read_adapters(frame)


def _texts(table: Table, column: str) -> list[str]:
    return table.texts(column, required=False) if column in table else [""] * len(table)


def _lengths(mean: float, cv: float, shape: str) -> Lengths:
    """Lengths of one row; a shape in the file is never replaced by the option."""
    if shape in ("", "gamma"):
        return Lengths(mean, cv)
    if shape not in ("lognormal", "constant"):
        raise InputError(
            f"length_shape {shape!r} is not a shape for one adapter", remedy="use gamma, lognormal or constant"
        )
    return Lengths(mean, 0.0 if shape == "constant" else cv, shape)


def _switching(table: Table) -> list[OnOff | None]:
    """The on/off process of each row, or None."""
    columns = [c for c in ("on_s", "off_s") if c in table]
    if len(columns) == 1:
        other = {"on_s": "off_s", "off_s": "on_s"}[columns[0]]
        raise InputError(
            f"column {columns[0]!r} is there and {other!r} is not",
            where=str(table.path),
            remedy="give the mean length of both phases in seconds",
        )
    if not columns:
        for column in ("off_factor", "switch_group"):
            if column in table:
                raise InputError(
                    f"column {column!r} needs the columns 'on_s' and 'off_s'",
                    where=str(table.path),
                    remedy="add the mean length of both phases in seconds, or remove the column",
                )
        return [None] * len(table)
    on = table.numbers("on_s", above=0, empty=math.nan, remedy="give seconds, or leave both phases empty")
    off = table.numbers("off_s", above=0, empty=math.nan, remedy="give seconds, or leave both phases empty")
    factor = np.zeros(len(table))
    if "off_factor" in table:
        factor = table.numbers("off_factor", low=0, below=1, empty=0.0, remedy="give rate while off / rate while on")
    groups = _texts(table, "switch_group")
    found: list[OnOff | None] = []
    for row in range(len(table)):
        if math.isnan(on[row]) != math.isnan(off[row]):
            raise InputError(
                "one of on_s and off_s is empty", where=table.where(row, "on_s"), remedy="give both phases, or neither"
            )
        with _located(table, row):
            process = None
            if not math.isnan(on[row]):
                process = OnOff(float(on[row]), float(off[row]), float(factor[row]), group=groups[row])
        found.append(process)
    return found


def _ranks(table: Table, ids: list[str], registry: Registry | None) -> NDArray[np.float64]:
    """Rank of each row: the file's, which a registry must not contradict, or the registry's."""
    remedy = "give a whole number; 0 stands for the base model"
    if registry is None:
        return table.numbers("rank", low=0, whole=True, remedy=remedy)
    known = dict(zip(registry.ids, registry.ranks, strict=True))
    own = table.numbers("rank", low=0, whole=True, empty=math.nan, remedy=remedy) if "rank" in table else None
    ranks = np.empty(len(table))
    for row, adapter_id in enumerate(ids):
        stated = math.nan if own is None else float(own[row])
        found = known.get(adapter_id, stated)
        if math.isnan(found):
            raise InputError(
                f"adapter {adapter_id!r} is not in {registry.title}",
                where=table.where(row, "adapter_id"),
                remedy="add it there, or give its rank here (0 = the base model)",
            )
        if stated == stated and stated != found:
            raise InputError(
                f"adapter {adapter_id!r} has rank {stated:g} here and {found:g} in {registry.title}",
                where=table.where(row, "rank"),
                remedy="leave the cell empty, or correct one of the two",
            )
        ranks[row] = found
    return ranks


@contextmanager
def _located(table: Table, row: int) -> Iterator[None]:
    """Adds file and line to errors of the value types, which know neither."""
    try:
        yield
    except InputError as error:
        raise InputError(error.problem, where=error.where or table.where(row), remedy=error.remedy) from error


def _check_tenants(table: Table, ids: list[str]) -> None:
    first: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(ids, table.texts("tenant"), strict=True)):
        if key in first:
            raise InputError(
                f"tenant {key[1]!r} of adapter {key[0]!r} appears twice, "
                f"on {table.line(first[key])} and {table.line(row)}",
                where=table.where(row, "tenant"),
                remedy="keep one row a tenant of an adapter",
            )
        first[key] = row


def _check_shared(table: Table, adapters: list[Adapter], column: str, value: Callable[[Adapter], object]) -> None:
    """All tenants of an adapter must agree on this value."""
    first: dict[str, int] = {}
    for row, adapter in enumerate(adapters):
        earlier = first.setdefault(adapter.adapter_id, row)
        if value(adapters[earlier]) != value(adapter):
            raise InputError(
                f"adapter {adapter.adapter_id!r} has {column} {value(adapters[earlier])!r} on "
                f"{table.line(earlier)} and {value(adapter)!r} on {table.line(row)}",
                where=table.where(row, column),
                remedy=f"give all tenants of an adapter the same {column}, or different adapters different ids",
            )


def _notes(table: Table, adapters: int, prompt_cv: float, output_cv: float) -> tuple[str, ...]:
    rows = f" from {len(table)} rows of tenants" if "tenant" in table else ""
    notes = [f"{counted(adapters, 'adapter')}{rows}, read from {table.title}."]
    without = [column for column in ("prompt_cv", "output_cv") if column not in table]
    if without:
        assumed = {"prompt_cv": f"prompt CV {prompt_cv:g}", "output_cv": f"output CV {output_cv:g}"}
        notes.append(
            f"The file has no {' or '.join(without)}: lengths are spread with {', '.join(assumed[c] for c in without)}."
        )
    if "arrival_cv" not in table:
        notes.append("The file has no arrival_cv: all adapters have the same burstiness.")
    return tuple(notes)
