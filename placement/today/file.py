"""A placement as a CSV file: one row an adapter and GPU; `placement.csv` of an earlier run is such a file.

    adapter_id,gpu_id,max_loras,max_lora_rank
    support-de,gpu0,64,16
    legal-summaries,gpu1,8,64

Settings that the file leaves open are those of an operator: the smallest `max_lora_rank` that vLLM takes for the
largest rank on the GPU, and the smallest `max_loras` among the run's choices that holds its adapters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.config.schema import did_you_mean, parse
from twin.engine.input_check import check_lengths
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.flags import FLAGS
from twin.server.memory import max_model_len, memory_error
from twin.server.settings import VLLM_RANKS, EngineSetting
from twin.sources.table import Table, read_table
from twin.wording import counted
from twin.workload.adapter import Adapter
from twin.workload.workload import Workload

REQUIRED = ("adapter_id", "gpu_id")
#: Flags that are numbers, which the file may give.
NUMBERS = tuple(flag for flag in FLAGS if flag != "async_scheduling")
OPTIONAL = (*NUMBERS, "gpu_type", "share")
#: Most names listed in a message.
LISTED = 3
#: Largest distance from 1 of the shares of an adapter.
SHARES_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Today:
    """What runs today. G GPUs, in the order of the file.

    Args:
        path: the file.
        gpu_ids: names of the GPUs, G values.
        columns: adapters (with their share of the rate) and setting of each GPU, G values.
        notes: what was assumed, for people.
    """

    path: str
    gpu_ids: tuple[str, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


def read_today(
    path: str | Path,
    workload: Workload,
    settings: Sequence[EngineSetting],
    calibrations: Mapping[str, Calibration],
) -> Today:
    """Reads today's placement of a workload.

    Case, blanks and dashes in the names of columns do not matter. An adapter on several GPUs has replicas: they take
    equal shares of its requests, or those of a column `share`. Columns that are not known are left unread and noted.

    Args:
        settings: the run's choices; flags that the file does not name are theirs.
        calibrations: of each GPU type by name; with several, the file says `gpu_type`.

    Raises:
        InputError: names file, line and remedy: an adapter that the workload does not have, one that has no GPU or is
            twice on one, rows of a GPU that contradict each other, a setting that vLLM refuses or does not start with,
            a rank above its GPU's `max_lora_rank`.
    """
    table = read_table(path, REQUIRED, OPTIONAL, what="file of today's placement", extra_columns=True, option="today")
    known = {a.adapter_id: a for a in workload.adapters}
    ids, gpus = table.texts("adapter_id"), table.texts("gpu_id")
    hosts: dict[str, list[int]] = {}
    rows_of: dict[str, list[int]] = {}
    for row, (adapter_id, gpu) in enumerate(zip(ids, gpus, strict=True)):
        if adapter_id not in known:
            raise InputError(
                f"adapter {adapter_id!r} is not in the workload{did_you_mean(adapter_id, known)}",
                where=table.where(row, "adapter_id"),
                remedy="remove the row, or give the adapter its traffic in the workload",
            )
        for other in hosts.setdefault(adapter_id, []):
            if gpus[other] == gpu:
                raise InputError(
                    f"adapter {adapter_id!r} is twice on GPU {gpu!r}, on {table.line(other)} and {table.line(row)}",
                    where=table.where(row, "adapter_id"),
                    remedy="keep one row; replicas of an adapter are on different GPUs",
                )
        hosts[adapter_id].append(row)
        rows_of.setdefault(gpu, []).append(row)
    missing = [adapter_id for adapter_id in known if adapter_id not in hosts]
    if missing:
        raise InputError(
            f"{counted(len(missing), 'adapter')} of the workload "
            f"{'has' if len(missing) == 1 else 'have'} no GPU: {_listed(missing)}",
            where=str(table.path),
            remedy="add a row for each, traffic of the base model included",
        )
    shares = _shares(table, hosts)
    columns = []
    for gpu, rows in rows_of.items():
        members = tuple(known[ids[r]] if shares[r] == 1 else known[ids[r]].scaled(shares[r]) for r in rows)
        columns.append(Column(members, _setting(table, gpu, rows, members, settings, calibrations)))
    return Today(str(table.path), tuple(rows_of), tuple(columns), _notes(table, hosts))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:LISTED])) + (", ..." if len(names) > LISTED else "")


def _shares(table: Table, hosts: dict[str, list[int]]) -> list[float]:
    """Share of its adapter's requests of each row."""
    if "share" not in table:
        shares = [1.0] * len(table)
        for rows in hosts.values():
            for row in rows:
                shares[row] = 1 / len(rows)
        return shares
    remedy = "give a share of the adapter's requests, e.g. 0.5"
    shares = [float(share) for share in table.numbers("share", above=0, high=1, remedy=remedy)]
    for adapter_id, rows in hosts.items():
        total = math.fsum(shares[r] for r in rows)
        if abs(total - 1) > SHARES_TOLERANCE:
            raise InputError(
                f"the shares of adapter {adapter_id!r} add up to {total:.4g}",
                where=table.where(rows[0], "share"),
                remedy="give shares that add up to 1, or leave the column out for equal ones",
            )
    return shares


def _stated(table: Table, gpu: str, rows: Sequence[int]) -> dict[str, tuple[Any, int]]:
    """Flags that the rows of a GPU state, each with a row that does; empty cells state nothing."""
    stated: dict[str, tuple[Any, int]] = {}
    for flag in (f for f in (*NUMBERS, "gpu_type") if f in table):
        texts = table.texts(flag, required=False)
        numbers = None if flag == "gpu_type" else table.numbers(flag, empty=math.nan)
        for row in rows:
            value: Any = texts[row]
            if numbers is not None:
                number = float(numbers[row])
                whole = number.is_integer() and flag != "gpu_memory_utilization"
                value = "" if math.isnan(number) else int(number) if whole else number
            if value == "":
                continue
            first, line = stated.setdefault(flag, (value, row))
            if first != value:
                raise InputError(
                    f"GPU {gpu!r} has {flag} {first} on {table.line(line)} and {value} on {table.line(row)}",
                    where=table.where(row, flag),
                    remedy="give all rows of a GPU the same setting",
                )
    return stated


def _setting(
    table: Table,
    gpu: str,
    rows: Sequence[int],
    members: Sequence[Adapter],
    settings: Sequence[EngineSetting],
    calibrations: Mapping[str, Calibration],
) -> EngineSetting:
    """The engine setting of one GPU, stated or an operator's, that vLLM starts with and that its adapters fit."""
    stated = _stated(table, gpu, rows)

    def where(flag: str) -> str:
        return table.where(stated[flag][1], flag) if flag in stated else table.where(rows[0])

    if "gpu_type" not in stated and len(calibrations) > 1:
        raise InputError(
            f"the type of GPU {gpu!r} is not said, and this run places on {' and '.join(map(repr, calibrations))}",
            where=where("gpu_type"),
            remedy="add a column gpu_type",
        )
    type_ = stated["gpu_type"][0] if "gpu_type" in stated else settings[0].gpu_type
    if type_ not in calibrations:
        raise InputError(
            f"GPU {gpu!r} is of type {type_!r}, this run places on {' and '.join(map(repr, calibrations))}",
            where=where("gpu_type"),
            remedy="choose the hardware that runs today with hardware=..., or leave the column out",
        )
    settings, calibration = [s for s in settings if s.gpu_type == type_], calibrations[type_]
    base = settings[0]
    widest = max(members, key=lambda a: a.rank)
    rank = stated.get("max_lora_rank", (next((r for r in VLLM_RANKS if r >= widest.rank), widest.rank), 0))[0]
    if rank not in VLLM_RANKS:
        raise InputError(
            f"GPU {gpu!r} has max_lora_rank {rank}, which vLLM does not take",
            where=where("max_lora_rank"),
            remedy=f"give one of {', '.join(map(str, VLLM_RANKS))}, or leave the cell empty",
        )
    if widest.rank > rank:
        raise InputError(
            f"adapter {widest.adapter_id!r} of rank {widest.rank} is on GPU {gpu!r}, whose max_lora_rank is {rank}",
            where=where("max_lora_rank"),
            remedy="raise max_lora_rank, or leave the cell empty",
        )
    flags = {f: getattr(base, f) for f in FLAGS} | {f: v for f, (v, _) in stated.items()}
    flags |= {"gpu_type": base.gpu_type, "max_lora_rank": rank}
    with _located(where("max_loras")):
        if "max_loras" not in stated:
            flags["max_loras"] = _slots(flags, sum(a.rank > 0 for a in members), settings, calibration)
        setting = parse(EngineSetting, flags, "")
        problem = memory_error(setting, calibration)
        longest = max_model_len(setting, calibration)
        check_lengths(members, longest=longest, model_longest=calibration.model.max_model_len)
    if problem is not None:
        raise InputError(
            f"GPU {gpu!r} does not start with {setting.max_loras} slots of rank {rank}: {problem}",
            where=where("max_loras"),
            remedy="give the setting that runs today, or fewer slots",
        )
    return setting


def _slots(flags: dict[str, Any], loras: int, settings: Sequence[EngineSetting], calibration: Calibration) -> int:
    """The smallest of the run's choices of `max_loras` that holds so many adapters and starts, or the largest that
    starts; the smallest where none does."""
    choices = sorted({s.max_loras for s in settings})
    starting = [
        n
        for n in choices
        if memory_error(EngineSetting(**{**flags, "max_loras": n, "max_cpu_loras": None}), calibration) is None
    ]
    return next((n for n in starting if n >= loras), starting[-1] if starting else choices[0])


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Adds file and line to errors of the value types."""
    try:
        yield
    except InputError as error:
        raise InputError(error.problem, where=where, remedy=error.remedy) from error


def _notes(table: Table, hosts: dict[str, list[int]]) -> tuple[str, ...]:
    notes = []
    several = [adapter_id for adapter_id, rows in hosts.items() if len(rows) > 1]
    if several and "share" not in table:
        notes.append(f"{table.path}: replicas are taken to share the requests equally ({_listed(several)}).")
    if table.ignored:
        notes.append(f"{table.path}: columns not read: {', '.join(table.ignored)}.")
    return tuple(notes)
