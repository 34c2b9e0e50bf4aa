"""Which adapters there are: a table with their ranks, or the folders of the adapters themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twin.errors import InputError
from twin.sources.peft import is_adapter_folder, read_adapter_folders
from twin.sources.promises import SLO_COLUMNS, slos
from twin.sources.table import read_table
from twin.sources.tables.layout import Form
from twin.workload.adapter import Slo

REQUIRED = ("adapter_id", "rank")
OPTIONAL = (*SLO_COLUMNS, "pinned_gpu")
#: What the columns of a registry are called elsewhere.
NAMES = {
    "adapter_id": ("adapter_id", "adapter", "adapter_name", "lora_name", "lora", "model", "name", "id"),
    "rank": ("rank", "r", "lora_rank", "adapter_rank"),
}


@dataclass(frozen=True, slots=True)
class Registry:
    """N adapters.

    Args:
        title: where they come from, for sentences.
        ids, ranks: N values; rank 0 = the base model.
        slos: promises, None = none.
        pins: GPU that must host it, "" = any.
        ignored: columns that were not used.
        notes: what was assumed.
    """

    title: str
    ids: tuple[str, ...]
    ranks: tuple[int, ...]
    slos: tuple[Slo | None, ...]
    pins: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_registry(path: Any, *, base: str | None = None, base_names: Sequence[str] = ()) -> Registry:
    """Reads `adapter_id,rank` and, if wanted, promises and `pinned_gpu`; or folders of PEFT adapters.

    Args:
        path: a table, a folder, or a list of folders.
        base: the model that the fleet serves, as adapters name it.
        base_names: names of requests to the base model itself; they join the registry with rank 0.

    Raises:
        InputError: names file, line and value.
    """
    if not path or not str(path).strip():
        raise InputError(
            "no registry of adapter ranks is given",
            where="option workload.registry",
            remedy="name a table with the columns adapter_id,rank, or the folder of the PEFT adapters",
        )
    if is_adapter_folder(path):
        adapters, notes = read_adapter_folders(path, base)
        n = len(adapters)
        found = Registry(
            str(path if isinstance(path, str) else path[0]) if isinstance(path, (str, list, tuple)) else str(path),
            tuple(a.adapter_id for a in adapters), tuple(a.rank for a in adapters), (None,) * n, ("",) * n, (),
            tuple(notes),
        )  # fmt: skip
        names = dict.fromkeys((*base_names, *(a.base for a in adapters if a.base), *([base] if base else [])))
    else:
        table = read_table(
            path, REQUIRED, OPTIONAL, what="adapter registry", extra_columns=True, names=NAMES,
            option="workload.registry",
        )  # fmt: skip
        ids = table.unique("adapter_id", remedy="keep one row an adapter")
        ranks = table.numbers("rank", low=0, whole=True, remedy="give a whole number; 0 stands for the base model")
        pins = table.texts("pinned_gpu", required=False) if "pinned_gpu" in table else [""] * len(ids)
        found = Registry(
            table.title, tuple(ids), tuple(map(int, ranks)), tuple(slos(table)), tuple(pins), table.ignored
        )
        names = dict.fromkeys(base_names)
    return _with_base(found, [name for name in names if name not in found.ids])


def _with_base(registry: Registry, names: Sequence[str]) -> Registry:
    n = len(names)
    return Registry(
        registry.title, (*registry.ids, *names), (*registry.ranks, *(0,) * n), (*registry.slos, *(None,) * n),
        (*registry.pins, *("",) * n), registry.ignored, registry.notes,
    )  # fmt: skip


def as_form(columns: Any, decimal: Any, time_unit: Any = None, time_zone: Any = "UTC") -> Form:
    """The options of a workload that say how its file is written.

    Raises:
        InputError: `columns` is no mapping of names.
    """
    if columns is not None and not isinstance(columns, dict):
        raise InputError(
            f"columns {columns!r} is not a mapping of our columns to those of the file",
            where="option workload.columns",
            remedy="write e.g. 'workload.columns={timestamp: startTime, adapter_id: model}'",
        )
    return Form(
        {str(k): None if v is None else str(v) for k, v in (columns or {}).items()},
        None if decimal is None else str(decimal), None if time_unit is None else str(time_unit), str(time_zone),
    )  # fmt: skip
