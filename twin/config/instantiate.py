"""Builds objects from `_target_` nodes, from this project's callables only.

A configuration file may come from someone else. So a `_target_` must lie in one of this project's packages or in a
module that the user names in `allow_modules`, by its path **and** by the place where the callable is defined:
`twin.files.os.remove` is refused.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from twin.config.schema import checked, unknown_key
from twin.errors import InputError, PlacementError

log = logging.getLogger(__name__)

PROJECT_PACKAGES = ("placement", "twin", "surrogates", "profiling")
_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_")


def _allowed(name: str, modules: Sequence[str]) -> bool:
    return any(name == m or name.startswith(m + ".") for m in modules)


def targets(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All `_target_` values below a node with the path of their option."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node["_target_"]
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from targets(value, f"{path}[{index}]")


def check_targets(node: Any, allow_modules: Sequence[str] = ()) -> None:
    """Refuses a configuration that names a callable outside this project, before anything is imported.

    Raises:
        InputError: names the target, its place and the remedy.
    """
    for path, target in targets(node):
        if not isinstance(target, str):
            raise InputError(f"_target_ {target!r} is not text", where=path, remedy="give a dotted path")
        if not _allowed(target, (*PROJECT_PACKAGES, *allow_modules)):
            module = target.rpartition(".")[0] or target
            raise InputError(
                f"_target_ {target!r} may not be instantiated: it is not part of this project",
                where=path,
                remedy=f"if you trust it, name its module: 'allow_modules=[{module}]'",
            )


def locate(target: str, allow_modules: Sequence[str] = (), where: str = "") -> Callable[..., Any]:
    """The callable behind a dotted path.

    Raises:
        InputError: it does not exist, is not callable, or is defined outside the allowed modules.
    """
    check_targets({"_target_": target}, allow_modules)
    parts = target.split(".")
    found: Any = None
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise InputError(
                    f"_target_ {target!r} needs the package {error.name!r}, which is not installed",
                    where=where,
                    remedy=f"install {error.name}, or choose another option",
                ) from error
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute, None)
        break
    if not callable(found):
        raise InputError(
            f"_target_ {target!r} does not exist or is not callable",
            where=where,
            remedy="check the dotted path; a module of your own must be importable (PYTHONPATH=its folder)",
        )
    home = getattr(found, "__module__", "") or ""
    if not _allowed(home, (*PROJECT_PACKAGES, *allow_modules)):
        raise InputError(
            f"_target_ {target!r} may not be instantiated: it is defined in {home!r}",
            where=where,
            remedy=f"if you trust it, name the module: 'allow_modules=[{home}]'",
        )
    return typing.cast(Callable[..., Any], found)


def _bind(function: Callable[..., Any], arguments: dict[str, Any], given: set[str], where: str) -> dict[str, Any]:
    """Arguments checked against the signature: unknown names, missing ones, and types of plain data."""
    signature = inspect.signature(function)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    named = {n for n, p in signature.parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    for name in given:
        if name not in named and not open_ended:
            raise unknown_key(name, named, where)
    owner = function.__init__ if inspect.isclass(function) else function
    try:
        hints = typing.get_type_hints(owner, include_extras=True)
    except (NameError, TypeError):  # names that exist for type checkers only
        hints = {}
    bound = {
        name: checked(value, hints[name], f"{where}.{name}") if name in given and name in hints else value
        for name, value in arguments.items()
        if name in named or open_ended
    }
    for name, parameter in signature.parameters.items():
        if name in named and name not in bound and parameter.default is parameter.empty:
            raise InputError(f"{where}.{name} is missing", where=where, remedy=f"set {where}.{name}=...")
    return bound


def build(node: Any, where: str, allow_modules: Sequence[str] = (), **context: Any) -> Any:
    """Instantiates a plain container: mappings with `_target_` become objects, depth first.

    Args:
        context: arguments that the caller offers (a calibration, a seed); the callable at the top gets those that
            its signature names and that the node does not set itself.

    Raises:
        InputError: bad target or argument; `PlacementError`s of the callable pass through.
    """
    if isinstance(node, Mapping) and "_target_" not in node:
        return {key: build(value, f"{where}.{key}", allow_modules) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [build(value, f"{where}[{i}]", allow_modules) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    function = locate(str(node["_target_"]), allow_modules, where)
    arguments = {key: build(value, f"{where}.{key}", allow_modules) for key, value in node.items() if key not in _KEYS}
    given = set(arguments)
    accepted = inspect.signature(function).parameters
    arguments |= {k: v for k, v in context.items() if k not in given and k in accepted}
    if node.get("_partial_", False):
        return functools.partial(function, **arguments)
    bound = _bind(function, arguments, given, where)
    log.debug("%s: %s(%s)", where, node["_target_"], ", ".join(sorted(bound)))
    try:
        return function(**bound)
    except PlacementError as error:
        if isinstance(error, InputError) and not error.where:
            raise type(error)(error.problem, where=where, remedy=error.remedy) from error
        raise
