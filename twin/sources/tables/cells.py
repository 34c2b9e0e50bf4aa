"""Numbers as people write them: NULL words, thousands separators, decimal commas; what is ambiguous is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Cells that stand for "no value" in exports of databases, spreadsheets and data frames.
NULLS = frozenset(("", "null", "none", "nan", "na", "n/a", "#n/a", "<na>", "nil", "\\n", "-"))
_GROUP = "[ '\u00a0\u202f\u2009’]"
#: 1,024 / 1,024.5 / 1 024.5: groups of three digits, a decimal point.
_POINT = re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:(?:,\d{{3}})+|(?:{_GROUP}\d{{3}})+)(?:\.\d+)?")
#: 1.024 / 1.024,5 / 1024,5 / 1 024,5: groups of three digits, a decimal comma.
_COMMA = re.compile(
    rf"[+-]?(?:(?:\d+|[1-9]\d{{0,2}}(?:\.\d{{3}})+|[1-9]\d{{0,2}}(?:{_GROUP}\d{{3}})+),\d+(?:[eE][+-]?\d+)?"
    rf"|[1-9]\d{{0,2}}(?:\.\d{{3}})+|[1-9]\d{{0,2}}(?:{_GROUP}\d{{3}})+|\d+)"
)
_SEPARATORS = re.compile(_GROUP)

POINT, COMMA = ".", ","


def is_null(cell: str) -> bool:
    """Whether a cell without surrounding blanks stands for no value."""
    return cell.lower() in NULLS


class Unreadable(Exception):
    """Cell `row` is not a number; `ambiguous`: it is one in two ways."""

    def __init__(self, row: int, *, ambiguous: bool = False) -> None:
        super().__init__(row)
        self.row, self.ambiguous = row, ambiguous


def parsed(cells: NDArray[Any], *, whole: bool, decimal: str | None) -> NDArray[np.float64]:
    """Cells as numbers, (R,); NaN where they stand for no value.

    Cells that are not plain numbers decide together how all of them are read: `1,024` in a column of whole numbers, or
    beside `1,024.5`, is a thousand; beside `12,5` it is one.

    Args:
        cells: texts, or numbers already.
        whole: the column holds whole numbers.
        decimal: `.` or `,` where the user says it; None = told from the cells.

    Raises:
        Unreadable: names the first cell that is no number, or one in two ways.
    """
    if cells.dtype != object:
        return np.asarray(cells, np.float64)
    if decimal != COMMA:
        try:
            return cells.astype(np.float64)
        except ValueError:
            pass
    texts = [str(cell).strip() for cell in cells]
    values = np.full(len(texts), np.nan)
    odd: list[int] = []
    for row, text in enumerate(texts):
        if is_null(text):
            continue
        try:
            values[row] = float(text)
        except ValueError:
            odd.append(row)
    if not odd and decimal != COMMA:
        return values
    if _convention(texts, odd, whole=whole, decimal=decimal) == POINT:
        for row in odd:
            values[row] = float(_SEPARATORS.sub("", texts[row].replace(",", "")))
        return values
    for row, text in enumerate(texts):
        if is_null(text):
            continue
        if not _COMMA.fullmatch(text):
            raise Unreadable(odd[0] if odd else row)  # decimal points and decimal commas
        values[row] = float(_SEPARATORS.sub("", text.replace(".", "")).replace(",", "."))
    return values


def _convention(texts: Sequence[str], odd: Sequence[int], *, whole: bool, decimal: str | None) -> str:
    if decimal == COMMA:
        return COMMA
    point = [_POINT.fullmatch(texts[row]) is not None for row in odd]
    if decimal == POINT or all(point):
        if not all(point):
            raise Unreadable(odd[point.index(False)])
        commas = [row for row in odd if "," in texts[row]]
        ambiguous = bool(commas) and all(_COMMA.fullmatch(texts[row]) for row in odd)
        if ambiguous and not whole and decimal is None:
            raise Unreadable(commas[0], ambiguous=True)
        return POINT
    comma = [_COMMA.fullmatch(texts[row]) is not None for row in odd]
    if not all(comma):
        raise Unreadable(odd[comma.index(False)])
    return COMMA
