"""Reads a `placement.json` (docs/placement.schema.json, version 1) as a fleet to simulate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from twin.config.ranges import Range
from twin.config.schema import did_you_mean, parse
from twin.errors import InputError
from twin.fleet.node import Server
from twin.fleet.simulate import Fleet
from twin.server.flags import single_setting
from twin.sources.text_file import open_text
from twin.wording import counted, percent
from twin.workload.workload import Workload

SCHEMA_VERSION = 1
#: Rates that differ by more than this from those of the placement are mentioned.
SAME_RATE = 0.01


@dataclass(frozen=True, slots=True)
class Held:
    """One entry of a GPU's `adapters`."""

    adapter_id: str
    share: Annotated[float, Range(above=0, high=1 + 1e-9)]
    rank: Annotated[int | None, Range(0)] = None
    rate_req_per_s: Annotated[float | None, Range(above=0)] = None


@dataclass(frozen=True, slots=True)
class PlacementFile:
    """A fleet, and what a reader must know about how it fits the workload."""

    fleet: Fleet
    notes: tuple[str, ...]


def read_placement(
    path: Path, workload: Workload, *, gpu_type: str, calibration: str, rate_scale: float = 1.0
) -> PlacementFile:
    """Reads and checks a placement of this workload.

    Args:
        workload: what the fleet serves; its adapters must be those of the placement.
        gpu_type: the one type that the calibration is for.
        calibration: name of the calibration, compared with the placement's own.
        rate_scale: factor on the rates that was asked for, so that it is not reported as a difference.

    Raises:
        InputError: not a placement, none found in it, another GPU type, or other adapters than the workload's.
    """
    data = _document(path)
    gpus = data.get("gpus")
    if not isinstance(gpus, list) or not gpus:
        raise InputError(
            f"{str(path)!r} holds no placement: its status is {data.get('status')!r}",
            where=str(path),
            remedy="place the workload first: python -m placement",
        )
    servers, held = [], []
    for index, gpu in enumerate(gpus):
        where = f"{path}, gpus[{index}]"
        if not isinstance(gpu, Mapping) or not isinstance(gpu.get("adapters"), list):
            raise InputError(f"gpus[{index}] has no list of adapters", where=where, remedy=_REMAKE)
        here = [parse(Held, a, f"gpus[{index}].adapters[{i}]") for i, a in enumerate(gpu["adapters"])]
        if gpu.get("gpu_type") != gpu_type:
            raise InputError(
                f"gpus[{index}] is of type {gpu.get('gpu_type')!r}, the calibration is for {gpu_type!r}",
                where=where,
                remedy="choose hardware and calibration of the placement's GPUs",
            )
        setting = single_setting(gpu.get("setting"), gpu_type, where=f"gpus[{index}].setting")
        name = str(gpu.get("gpu_id", f"gpu{index:03d}"))
        if len({h.adapter_id for h in here}) < len(here):
            raise InputError(f"gpus[{index}] lists an adapter twice", where=where, remedy=_REMAKE)
        servers.append(Server(name, setting, {h.adapter_id: h.share for h in here}))
        held += here
    _check_adapters(path, workload, held)
    notes = [*_rate_note(workload, held, rate_scale), *_calibration_note(data, calibration)]
    return PlacementFile(Fleet(workload.adapters, tuple(servers)), tuple(notes))


_REMAKE = "write it with python -m placement (docs/placement.schema.json)"


def _document(path: Path) -> Mapping[str, Any]:
    with open_text(path, what="placement") as (file, lines):
        try:
            data = json.loads("".join(lines))
        except json.JSONDecodeError as error:
            raise InputError(
                f"the placement is not JSON: {error.msg}", where=f"{file}, line {error.lineno}", remedy=_REMAKE
            ) from error
    if not isinstance(data, Mapping) or "schema_version" not in data:
        raise InputError(f"{str(path)!r} is not a placement.json", where=str(path), remedy=_REMAKE)
    if data["schema_version"] != SCHEMA_VERSION:
        raise InputError(
            f"placement.json has schema_version {data['schema_version']!r}, known is {SCHEMA_VERSION}",
            where=str(path),
            remedy=_REMAKE,
        )
    return data


def _check_adapters(path: Path, workload: Workload, held: list[Held]) -> None:
    known = {a.adapter_id: a for a in workload.adapters}
    remedy = "give the same workload=... and seed=... that the placement was made with"
    for entry in held:
        adapter = known.get(entry.adapter_id)
        if adapter is None:
            raise InputError(
                f"adapter {entry.adapter_id!r} of the placement is not in workload {workload.name!r}"
                f"{did_you_mean(entry.adapter_id, known)}",
                where=str(path),
                remedy=remedy,
            )
        if entry.rank is not None and entry.rank != adapter.rank:
            raise InputError(
                f"adapter {entry.adapter_id!r} has rank {entry.rank} in the placement, {adapter.rank} in the workload",
                where=str(path),
                remedy=remedy,
            )
    missing = sorted(set(known) - {h.adapter_id for h in held})
    if missing:
        raise InputError(
            f"the placement lacks {counted(len(missing), 'adapter')} of workload {workload.name!r}: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}",
            where=str(path),
            remedy=remedy,
        )


def _rate_note(workload: Workload, held: list[Held], rate_scale: float) -> list[str]:
    rates = {a.adapter_id: a.rate_req_per_s / rate_scale for a in workload.adapters}
    off = [abs(h.share * rates[h.adapter_id] / h.rate_req_per_s - 1) for h in held if h.rate_req_per_s is not None]
    different = sum(d > SAME_RATE for d in off)
    if not different:
        return []
    return [
        f"the workload's request rates differ from those that the placement was made for: "
        f"{different} of {len(off)} entries, by up to {percent(max(off))}"
    ]


def _calibration_note(data: Mapping[str, Any], calibration: str) -> list[str]:
    provenance = data.get("provenance")
    made = provenance.get("calibration") if isinstance(provenance, Mapping) else None
    name = made.get("name") if isinstance(made, Mapping) else None
    if name is None or name == calibration:
        return []
    return [f"the placement was made with calibration {name}, it is simulated with {calibration}"]
