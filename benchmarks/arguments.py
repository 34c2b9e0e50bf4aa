"""`key=value` arguments of the benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from twin.errors import InputError, PlacementError


def key_values(arguments: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Parses `key=value` words into the types of the defaults (None = string, required).

    Raises:
        InputError: an unknown key, a malformed word or value, or a required key that is missing.
    """
    values = dict(defaults)
    for word in arguments:
        key, separator, text = word.partition("=")
        if not separator or key not in defaults:
            known = " ".join(f"{k}={'' if v is None else v}" for k, v in defaults.items())
            raise InputError(f"argument {word!r} is not known", remedy=f"use: {known}")
        kind = str if defaults[key] is None else type(defaults[key])
        try:
            values[key] = kind(text)
        except ValueError as error:
            raise InputError(f"{key}={text!r} is not of type {kind.__name__}") from error
    missing = [k for k, v in values.items() if v is None]
    if missing:
        raise InputError(f"{missing[0]}= is missing", remedy=f"add {missing[0]}=...")
    return values


def run_benchmark(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs a benchmark on the command line's arguments; bad input ends with its exit code, not with a traceback."""
    try:
        sys.exit(main(sys.argv[1:]))
    except PlacementError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
