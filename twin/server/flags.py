"""Engine settings from a configuration: the group `engine`, and the settings in a placement file.

Names, types, ranges and defaults are those of `twin.server.settings.EngineSetting`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from itertools import product
from typing import Any

from twin.config.schema import checked, parse, unknown_key
from twin.errors import InputError
from twin.server.settings import EngineSetting

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
    return tuple(
        parse(EngineSetting, {**flags, **dict(zip(choices, values, strict=True)), "gpu_type": gpu_type}, where)
        for values in product(*(dict.fromkeys(values) for values in choices.values()))
    )


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
