"""Which callables a configuration may build, and where: a table that a command hands in.

A configuration may come from a stranger, and building calls functions. So a place that is built lists its callables by
their dotted names, `{"workload": (...), "workload.drift": (...), "objective.terms.*": (...)}`; `*` stands for any key
or position. Everything else is refused before anything is imported, unless it comes from a module that the user names
in `allow_modules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twin.config.schema import did_you_mean
from twin.errors import InputError

#: Place -> dotted names of what may be built there.
Components = Mapping[str, Sequence[str]]

_HYDRA = re.compile(r"_[a-z]+_")
#: Hydra's word for what is done here anyway: arguments are plain containers.
_CONVERT = ("_convert_", "all")


def components_at(components: Components, where: str) -> Sequence[str]:
    """Dotted names of what may be built at a place; nothing where the table does not name it."""
    parts = re.sub(r"\[(\d+)\]", r".\1", where).split(".")
    for place, names in components.items():
        pattern = place.split(".")
        if len(pattern) == len(parts) and all(p in ("*", part) for p, part in zip(pattern, parts, strict=True)):
            return names
    return ()


def within(name: str, modules: Sequence[str]) -> bool:
    """Whether a dotted name is one of the modules, or something in one of them."""
    return any(name == m or name.startswith(m + ".") for m in modules)


def targets(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_` in plain containers, with its place."""
    return ((place, mapping["_target_"]) for place, mapping in _mappings(node, where) if "_target_" in mapping)


def check_targets(node: Any, components: Components, allow_modules: Sequence[str] = (), where: str = "") -> None:
    """Refuses a configuration that names a callable out of its place, before anything is imported.

    Args:
        node: plain containers.
        allow_modules: whose callables may stand at any place.
        where: place of the node itself.

    Raises:
        InputError: names the target, its place and what is allowed there.
    """
    for module in allow_modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise InputError(
                f"{module!r} is not a module", where="allow_modules", remedy="give dotted names of your modules"
            )
    for place, mapping in _mappings(node, where):
        if "_target_" not in mapping:
            continue
        check_target(mapping["_target_"], components, allow_modules, place)
        for key, value in mapping.items():
            if _HYDRA.fullmatch(str(key)) and key != "_target_" and (key, value) != _CONVERT:
                raise InputError(
                    f"{key} = {value!r} is not supported beside _target_",
                    where=place,
                    remedy="leave it out: a component is built with the named arguments that stand beside _target_",
                )


def check_target(target: Any, components: Components, allow_modules: Sequence[str], where: str) -> None:
    """Refuses one `_target_`, see `check_targets`."""
    if not isinstance(target, str):
        raise InputError(f"_target_ {target!r} is not text", where=where, remedy="give a dotted path")
    allowed = components_at(components, where)
    if target in allowed:
        return
    here = f"allowed here: {', '.join(allowed)}" if allowed else "nothing is built here: leave _target_ out"
    if within(target, allow_modules):
        private = next((part for part in target.split(".") if part.startswith("_") or not part.isidentifier()), None)
        if private is None:
            return
        raise InputError(
            f"_target_ {target!r} may not be instantiated: {private!r} is not a public name", where=where, remedy=here
        )
    module = target.rpartition(".")[0] or target
    raise InputError(
        f"_target_ {target!r} may not be instantiated: it is not a component that belongs here"
        f"{did_you_mean(target, allowed)}",
        where=where,
        remedy=f"{here}. If it is your own, name its module: 'allow_modules=[{module}]'",
    )


def check_trust(config: Mapping[str, Any], given: Sequence[str]) -> None:
    """Refuses `allow_modules` that nobody gave on the command line: a file may not say that it is to be trusted.

    Args:
        given: the overrides of the command line.

    Raises:
        InputError: names the modules.
    """
    modules = config.get("allow_modules")
    if modules and not any(o.lstrip("+").startswith("allow_modules=") for o in given):
        names = ",".join(map(str, modules)) if isinstance(modules, (list, tuple)) else modules
        raise InputError(
            f"allow_modules = {modules!r} stands in a configuration file",
            where="allow_modules",
            remedy=f"if you trust these modules, say so on the command line: 'allow_modules=[{names}]'",
        )


def _mappings(node: Any, place: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every mapping in a node, itself included, with its place."""
    if isinstance(node, Mapping):
        yield place, node
        for key, value in node.items():
            yield from _mappings(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _mappings(value, f"{place}[{index}]")
