"""Whether a number is in its range: the one check of options, fields and arguments.

A field of a dataclass, or an argument of a callable that a configuration names, says its range in its annotation:
`max_loras: Annotated[int, Range(1, 4096, unit="slots")]`. `twin.config.schema` checks what a configuration gives it,
`check_fields` what code gives it; `check` is for the rest.
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Annotated, Any

from twin.errors import InputError

INF = math.inf


@dataclass(frozen=True, slots=True)
class Range:
    """Finite numbers between two ends.

    Args:
        low, high: ends that belong to the range.
        above, below: ends that do not.
        whole: whole numbers only.
        unit: of the numbers, in words.
        hint: what else helps to find a good value, for the remedy.
    """

    low: float = -INF
    high: float = INF
    above: float = -INF
    below: float = INF
    whole: bool = False
    unit: str = ""
    hint: str = ""

    def __contains__(self, value: Any) -> bool:
        return bool(math.isfinite(value) and self.low <= value <= self.high and self.above < value < self.below)

    def __str__(self) -> str:
        """For example `a whole number at least 1 and at most 4096 slots`."""
        ends = (("at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below))
        limits = " and ".join(f"{word} {end:g}" for word, end in ends if math.isfinite(end))
        return " ".join(part for part in (f"a {'whole ' * self.whole}number", limits, self.unit) if part)


def check(value: Any, name: str, wanted: Range, *, where: str = "") -> None:
    """Refuses what is not a number of this range.

    Args:
        name: what the value is called in the message, `{name} = {value} is out of range`.

    Raises:
        InputError: names the value, its place, the range with its unit, and the hint.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number and value in wanted and not (wanted.whole and value != int(value)):
        return
    if is_number and value not in wanted:
        problem = "out of range"
    else:
        problem = "not a whole number" if wanted.whole else "not a number"
    remedy = f"give {wanted}" + (f"; {wanted.hint}" if wanted.hint else "")
    raise InputError(f"{name} = {value!r} is {problem}", where=where, remedy=remedy)


@functools.cache
def ranges(cls: type) -> dict[str, tuple[Range, bool]]:
    """Field -> its range, and whether it may be None, of the fields of a dataclass that have a range."""
    found = {}
    for name, annotation in typing.get_type_hints(cls, include_extras=True).items():
        if typing.get_origin(annotation) is Annotated:
            base, *marks = typing.get_args(annotation)
            kinds = {base, *typing.get_args(base)}
            for wanted in (mark for mark in marks if isinstance(mark, Range)):
                found[name] = (replace(wanted, whole=int in kinds), type(None) in kinds)
    return found


def range_of(cls: type, name: str) -> Range:
    """The range of a dataclass field, for a field elsewhere that means the same."""
    return ranges(cls)[name][0]


def check_fields(value: object, named: Callable[[str], str] = str, *, where: str = "") -> None:
    """Checks all fields of a dataclass that have a range; for its `__post_init__`.

    Args:
        named: what a field is called in the message.

    Raises:
        InputError: a field is out of its range.
    """
    for name, (wanted, optional) in ranges(type(value)).items():  # type: ignore[arg-type]
        given = getattr(value, name)
        if optional and given is None:
            continue
        for number in given if isinstance(given, (tuple, list)) else (given,):
            check(number, named(name), wanted, where=where)
