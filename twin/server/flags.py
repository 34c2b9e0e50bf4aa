"""Engine settings from a configuration: the group `engine`, and the settings in a placement file.

Names, types, ranges and defaults are those of `twin.server.settings.EngineSetting`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from itertools import product
from typing import Any

from twin.config.schema import checked, parse, unknown_key
from twin.errors import InputError
from twin.server.settings import DEFAULT_MAX_LORA_RANKS, VLLM_RANKS, EngineSetting

#: Flags that a grid of settings may give several values.
GRID_FLAGS = ("max_loras", "max_lora_rank")
FLAGS = tuple(f.name for f in fields(EngineSetting) if f.name != "gpu_type")


def engine_version(node: Mapping[str, Any]) -> str | None:
    """The engine version that a configuration asks for; None = the calibration's."""
    version: str | None = checked(node.get("version"), str | None, "engine.version")
    return version


def setting_choices(
    node: Any, gpu_type: str, *, where: str = "engine", lists: Collection[str] = (), without: Collection[str] = ()
) -> tuple[EngineSetting, ...]:
    """All combinations of the values in a group of flags, before the memory check.

    Args:
        node: flag -> value, and `version` (`engine_version`).
        lists: flags that may have a list of values.
        without: flags that are no options here.

    Raises:
        InputError: an unknown flag, a value out of its range, or an empty list.
    """
    if not isinstance(node, Mapping):
        raise InputError(f"{where} = {node!r} is not a group of options", where=where, remedy="give key: value pairs")
    flags = {key: value for key, value in node.items() if key != "version"}
    for key in flags:
        if key not in FLAGS or key in without:
            raise unknown_key(str(key), {*FLAGS, "version"} - set(without), where)
    choices = {name: flags[name] for name in lists if isinstance(flags.get(name), (list, tuple))}
    for name, values in choices.items():
        if not values:
            raise InputError(f"{where}.{name} is empty", where=f"{where}.{name}", remedy="give at least one value")
    settings = tuple(
        parse(EngineSetting, {**flags, **dict(zip(choices, values, strict=True)), "gpu_type": gpu_type}, where)
        for values in product(*(dict.fromkeys(values) for values in choices.values()))
    )
    for rank in dict.fromkeys(s.max_lora_rank for s in settings):
        if rank not in VLLM_RANKS:
            more = next((r for r in VLLM_RANKS if r > rank), VLLM_RANKS[-1])
            raise InputError(
                f"{where}.max_lora_rank {rank} is no value that vLLM takes",
                where=f"{where}.max_lora_rank",
                remedy=f"use {more}, which serves adapters of rank {rank} too; vLLM takes "
                f"{', '.join(map(str, VLLM_RANKS))}",
            )
    return settings


def with_wider_slots(
    settings: tuple[EngineSetting, ...], rank: int
) -> tuple[tuple[EngineSetting, ...], tuple[str, ...]]:
    """The choices of `max_lora_rank`, where they are the usual ones, and one more for an adapter of a larger rank; and
    a note if there is one. Choices that a user restricts stay as they are.
    """
    offered = sorted({s.max_lora_rank for s in settings})
    wider = next((r for r in VLLM_RANKS if r >= rank), None)
    if rank <= offered[-1] or tuple(offered) != DEFAULT_MAX_LORA_RANKS or wider is None:
        return settings, ()
    more = tuple(replace(s, max_lora_rank=wider) for s in settings if s.max_lora_rank == offered[-1])
    note = (
        f"adapters of rank up to {rank}: max_lora_rank {wider} is a choice too, beside {', '.join(map(str, offered))}"
    )
    return (*settings, *more), (note,)


def single_setting(node: Any, gpu_type: str, *, where: str = "engine") -> EngineSetting:
    """The setting of one server that has its GPU to itself.

    Raises:
        InputError: as `setting_choices`, or several servers on the GPU.
    """
    servers = node.get("servers_per_gpu") if isinstance(node, Mapping) else None
    if isinstance(servers, int) and servers > 1:
        place = f"{where}.servers_per_gpu"
        raise InputError(
            f"{place} = {servers}: a server simulated here has the GPU to itself",
            where=place,
            remedy="use servers_per_gpu=1",
        )
    (setting,) = setting_choices(node, gpu_type, where=where)
    return setting
