"""Reads `key=value` words of a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twin.errors import InputError


def read_options(words: Sequence[str], defaults: Mapping[str, str], *, command: str) -> dict[str, str]:
    """Options by key; keys not in `defaults` are refused, keys without a default must be given.

    Raises:
        InputError: an unknown key, a word without `=`, or a missing value.
    """
    options = dict(defaults)
    known = ", ".join(defaults)
    for word in words:
        key, separator, value = word.lstrip("+").partition("=")
        if not separator:
            raise InputError(f"{word!r} is not key=value", where=command, remedy=f"known keys: {known}")
        if key not in defaults:
            raise InputError(f"unknown option {key!r}", where=command, remedy=f"known keys: {known}")
        options[key] = value
    missing = [key for key, value in options.items() if value == "???"]
    if missing:
        raise InputError(f"{missing[0]} is missing", where=command, remedy=f"add {missing[0]}=<value>")
    return options


def whole_number(options: Mapping[str, str], key: str, *, least: int = 1) -> int:
    """An option as a whole number >= `least`."""
    try:
        value = int(options[key])
    except ValueError:
        value = least - 1
    if value < least:
        raise InputError(f"{key}={options[key]} is not a whole number >= {least}", remedy=f"use e.g. {key}={least}")
    return value
