"""Strict reading of plain containers into dataclasses: unknown keys, types, units and ranges.

A field says its range and unit in its annotation, `Annotated[int, Range(1, 384, unit="slots")]`.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Annotated, Any, TypeVar

from twin.config.ranges import Range, check
from twin.errors import InputError

T = TypeVar("T")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'latency'?)`, or nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown_key(key: str, known: Iterable[str], where: str) -> InputError:
    """The error for an option that does not exist."""
    names = sorted(known)
    return InputError(
        f"unknown option {key!r}{did_you_mean(key, names)}",
        where=where,
        remedy=f"valid here: {', '.join(names) if names else '(nothing)'}",
    )


def _name(annotation: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if annotation in names:
        return names[annotation]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_name(a) for a in typing.get_args(annotation))
    if origin is typing.Literal:
        return "one of " + ", ".join(str(a) for a in typing.get_args(annotation))
    if origin is not None and isinstance(origin, type) and issubclass(origin, (list, tuple, Sequence)):
        inner = [a for a in typing.get_args(annotation) if a is not Ellipsis]
        return f"a list of ({_name(inner[0])})" if inner else "a list"
    return getattr(annotation, "__name__", str(annotation))


_WRONG = object()


def _convert(value: Any, annotation: Any) -> Any:
    """The value as the annotated type, or `_WRONG`; annotations that are not plain data are not judged."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(annotation):
            converted = _convert(value, option)
            if converted is not _WRONG:
                return converted
        return _WRONG
    if origin is typing.Literal:
        return value if value in typing.get_args(annotation) else _WRONG
    if annotation is type(None):
        return None if value is None else _WRONG
    if annotation is bool:
        return value if isinstance(value, bool) else _WRONG
    if annotation is int:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return int(value) if whole and not isinstance(value, bool) else _WRONG
    if annotation is float:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _WRONG
    if annotation is str:
        return value if isinstance(value, str) else _WRONG
    if origin is not None and isinstance(origin, type) and issubclass(origin, (list, tuple, Sequence)):
        inner = [a for a in typing.get_args(annotation) if a is not Ellipsis]
        if not isinstance(value, (list, tuple)):
            return _WRONG
        items = [_convert(v, inner[0]) if inner else v for v in value]
        if any(v is _WRONG for v in items):
            return _WRONG
        return tuple(items) if issubclass(origin, tuple) else items
    return value


def checked(value: Any, annotation: Any, where: str) -> Any:
    """The value in its annotated type; with `Annotated[..., Range(...)]` its numbers are in that range.

    Raises:
        InputError: the value has another type, or is out of range.
    """
    if typing.get_origin(annotation) is Annotated:
        plain, *marks = typing.get_args(annotation)
        found = checked(value, plain, where)
        numbers = [v for v in (found if isinstance(found, (tuple, list)) else (found,)) if isinstance(v, int | float)]
        for wanted in (mark for mark in marks if isinstance(mark, Range)):
            for number in numbers:
                check(number, where, replace(wanted, whole=isinstance(number, int)), where=where)
        return found
    converted = _convert(value, annotation)
    if converted is _WRONG:
        raise InputError(
            f"{where} = {value!r} is not {_name(annotation)}", where=where, remedy=f"give {_name(annotation)}"
        )
    return converted


def parse(cls: type[T], data: Any, where: str) -> T:
    """Builds the dataclass `cls` from a mapping, refusing unknown keys, wrong types and values out of range.

    Raises:
        InputError: names the key, its value and what is valid.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where} = {data!r} is not a group of options", where=where, remedy="give key: value pairs")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise unknown_key(str(key), known, where)
    annotations = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for name, spec in known.items():
        place = f"{where}.{name}" if where else name
        if name in data:
            values[name] = checked(data[name], annotations[name], place)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise InputError(f"{place} is missing", where=where, remedy=f"set {place}=...")
    try:
        return cls(**values)
    except InputError as error:
        if error.where or not where:
            raise
        raise type(error)(error.problem, where=where, remedy=error.remedy) from error


def top_level(options: type[T], config: Mapping[str, Any], groups: Collection[str], known: Collection[str] = ()) -> T:
    """Checks that a configuration has its groups and no key unknown; returns the options outside the groups.

    Args:
        known: further keys that somebody else reads.

    Raises:
        InputError: an unknown key, a group that is missing, or an option out of range.
    """
    names = {*groups, *known, *(f.name for f in fields(options))}  # type: ignore[arg-type]
    for key in config:
        if key not in names:
            raise InputError(
                f"unknown option {key!r}{did_you_mean(key, names)}", remedy=f"valid: {', '.join(sorted(names))}"
            )
    for group in groups:
        if not isinstance(config.get(group), Mapping):
            raise InputError(
                f"{group} = {config.get(group)!r} is not a group of options", where=group, remedy=f"choose {group}=..."
            )
    return parse(options, {k: v for k, v in config.items() if k not in {*groups, *known}}, "")
