"""Builds objects from `_target_` nodes: components that the command lists, and callables of `allow_modules`.

A configuration file may come from someone else. So a `_target_` must be one of the components of its place
(`twin.config.components`) or lie in a module that the user names in `allow_modules`, by its path **and** by the place
where the callable is defined: `my_terms.os.remove` is refused.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twin.config.components import Components, check_target, check_targets, components_at, within
from twin.config.schema import checked, unknown_key
from twin.errors import InputError, PlacementError

log = logging.getLogger(__name__)

PROJECT_PACKAGES = ("placement", "twin", "surrogates", "profiling")
_KEYS = ("_target_", "_convert_")


def locate(target: str, where: str, components: Components, allow_modules: Sequence[str] = ()) -> Callable[..., Any]:
    """The callable behind a dotted path that may stand at a place.

    Raises:
        InputError: it does not exist, is not callable, does not belong there, or is defined outside the modules.
    """
    check_target(target, components, allow_modules, where)
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
    listed = components_at(components, where)
    # A module of the user's may have imported anything: what counts is where the callable comes from.
    own = target in listed or f"{home}.{getattr(found, '__qualname__', '')}" in listed
    if not (own or within(home, allow_modules)):
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


def build(node: Any, where: str, components: Components, allow_modules: Sequence[str] = (), **context: Any) -> Any:
    """Instantiates a plain container: mappings with `_target_` become objects, depth first.

    Args:
        where: the place of the node in the configuration.
        components: what may be built at which place.
        allow_modules: whose callables may stand at any place.
        context: arguments that the caller offers (a calibration, a seed); the callable at the top gets those that
            its signature names and that the node does not set itself.

    Raises:
        InputError: bad target or argument; `PlacementError`s of the callable pass through.
    """
    check_targets(node, components, allow_modules, where)
    return _built(node, where, components, allow_modules, context)


def _built(
    node: Any, where: str, components: Components, allow_modules: Sequence[str], context: Mapping[str, Any]
) -> Any:
    if isinstance(node, (list, tuple)):
        return [_built(value, f"{where}[{i}]", components, allow_modules, {}) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    arguments = {
        key: _built(value, f"{where}.{key}", components, allow_modules, {})
        for key, value in node.items()
        if key not in _KEYS or "_target_" not in node
    }
    if "_target_" not in node:
        return arguments
    function = locate(node["_target_"], where, components, allow_modules)
    given = set(arguments)
    accepted = inspect.signature(function).parameters
    arguments |= {k: v for k, v in context.items() if k not in given and k in accepted}
    bound = _bind(function, arguments, given, where)
    log.debug("%s: %s(%s)", where, node["_target_"], ", ".join(sorted(bound)))
    try:
        return function(**bound)
    except PlacementError as error:
        if isinstance(error, InputError) and not error.where:
            raise type(error)(error.problem, where=where, remedy=error.remedy) from error
        raise
