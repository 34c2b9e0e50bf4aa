"""Checks of option values that come from a configuration file or a command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from twin.errors import InputError


def number(
    value: Any, option: str, *, low: float = -math.inf, high: float = math.inf, above: float = -math.inf
) -> float:
    """`value` as a finite float with `low <= value <= high` and `value > above`.

    Raises:
        InputError: names the option, the value and the range.
    """
    wanted = _range_text("a number", low, high, above)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r} is not a number", where=f"option {option}", remedy=f"give {wanted}")
    if not (math.isfinite(value) and low <= value <= high and value > above):
        raise InputError(f"{value!r} is not {wanted}", where=f"option {option}", remedy=f"give {wanted}")
    return float(value)


def whole_number(value: Any, option: str, *, low: int = 0, high: float = math.inf) -> int:
    """`value` as an int with `low <= value <= high`.

    Raises:
        InputError: names the option, the value and the range.
    """
    checked = number(value, option, low=low, high=high)
    if checked != int(checked):
        raise InputError(f"{value!r} is not a whole number", where=f"option {option}", remedy="leave out the fraction")
    return int(value)


def sequence(value: Any, option: str, *, example: str) -> list[Any]:
    """`value` as a list with at least one entry; text is not a list.

    Raises:
        InputError: names the option and gives `example`.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise InputError(f"{value!r} is not a list of values", where=f"option {option}", remedy=f"give e.g. {example}")
    return list(value)


def _range_text(kind: str, low: float, high: float, above: float) -> str:
    parts = []
    if above > -math.inf:
        parts.append(f"> {above:g}")
    if low > -math.inf:
        parts.append(f">= {low:g}")
    if high < math.inf:
        parts.append(f"<= {high:g}")
    return f"{kind} {' and '.join(parts)}".strip()
