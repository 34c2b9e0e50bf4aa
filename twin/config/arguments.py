"""Checks of single option values that come from a configuration file or a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twin.config.ranges import INF, Range, check
from twin.errors import InputError


def number(value: Any, option: str, *, low: float = -INF, high: float = INF, above: float = -INF) -> float:
    """`value` as a finite float with `low <= value <= high` and `value > above`.

    Raises:
        InputError: names the option, the value and the range.
    """
    check(value, option, Range(low, high, above), where=f"option {option}")
    return float(value)


def whole_number(value: Any, option: str, *, low: int = 0, high: float = INF) -> int:
    """`value` as an int with `low <= value <= high`.

    Raises:
        InputError: names the option, the value and the range.
    """
    check(value, option, Range(low, high, whole=True), where=f"option {option}")
    return int(value)


def sequence(value: Any, option: str, *, example: str) -> list[Any]:
    """`value` as a list with at least one entry; text is not a list.

    Raises:
        InputError: names the option and gives `example`.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise InputError(f"{value!r} is not a list of values", where=f"option {option}", remedy=f"give e.g. {example}")
    return list(value)
