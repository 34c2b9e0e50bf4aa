"""CSV files whose errors point at a line.

Read with the `csv` module rather than a data-frame library: a row keeps the number of the line it starts on, and a
line with too many or too few fields is an error instead of a shifted or padded row. A million rows take a few seconds.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range
from twin.errors import InputError
from twin.sources.text_file import open_text


@dataclass(frozen=True, slots=True)
class Table:
    """R rows of text cells.

    Args:
        path: the file.
        cells: column name to its R cells.
        lines: line number (from 1) on which each row starts, R values.
        ignored: columns of the file that nobody asked for.
    """

    path: Path
    cells: dict[str, list[str]]
    lines: list[int]
    ignored: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, column: str) -> bool:
        return column in self.cells

    def where(self, row: int, column: str = "") -> str:
        """`file, line 7, column 'rank'` for messages."""
        return f"{self.path}, line {self.lines[row]}" + (f", column {column!r}" if column else "")

    def texts(self, column: str, *, required: bool = True) -> list[str]:
        """Cells without surrounding blanks.

        Raises:
            InputError: a cell is empty and `required`.
        """
        texts = [cell.strip() for cell in self.cells[column]]
        if required and not all(texts):
            row = texts.index("")
            raise InputError(f"{column} is empty", where=self.where(row, column), remedy=f"fill in the {column}")
        return texts

    def numbers(
        self,
        column: str,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        above: float = -math.inf,
        below: float = math.inf,
        whole: bool = False,
        empty: float | None = None,
        remedy: str = "",
    ) -> NDArray[np.float64]:
        """Cells as finite numbers within the given limits, shape (R,).

        Args:
            low, high: allowed limits, inclusive.
            above, below: allowed limits, exclusive.
            whole: refuse fractions.
            empty: value of empty cells (may be NaN); None = an empty cell is an error.

        Raises:
            InputError: names file, line, column and the first offending value.
        """
        cells = self.cells[column]
        try:
            values = np.fromiter(map(float, cells), np.float64, len(cells))
            filled = np.ones(len(cells), bool)
        except ValueError:
            values, filled = self._numbers_one_by_one(column, empty, remedy)
        good = np.isfinite(values) & (values >= low) & (values <= high) & (values > above) & (values < below)
        if whole:
            good &= values == np.floor(values)
        good |= ~filled
        if not good.all():
            row = int(np.argmin(good))
            wanted = Range(low, high, above, below, whole)
            raise InputError(
                f"{column} {cells[row].strip()!r} is not {wanted}",
                where=self.where(row, column),
                remedy=remedy or f"give {wanted}",
            )
        return values

    def _numbers_one_by_one(
        self, column: str, empty: float | None, remedy: str
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        cells = self.cells[column]
        values, filled = np.empty(len(cells)), np.ones(len(cells), bool)
        for row, cell in enumerate(cells):
            try:
                values[row] = float(cell)
            except ValueError as error:
                if not cell.strip() and empty is not None:
                    values[row], filled[row] = empty, False
                    continue
                problem = f"{column} {cell.strip()!r} is not a number" if cell.strip() else f"{column} is empty"
                raise InputError(
                    problem,
                    where=self.where(row, column),
                    remedy=remedy or "give a number with a decimal point and no unit",
                ) from error
        return values, filled

    def unique(self, column: str, *, remedy: str) -> list[str]:
        """Cells of a key column, each once.

        Raises:
            InputError: a key appears twice; names both lines.
        """
        seen: dict[str, int] = {}
        keys = self.texts(column)
        for row, key in enumerate(keys):
            if key in seen:
                raise InputError(
                    f"{column} {key!r} appears twice, on lines {self.lines[seen[key]]} and {self.lines[row]}",
                    where=self.where(row, column),
                    remedy=remedy,
                )
            seen[key] = row
        return keys


def read_table(
    path: str | Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    what: str,
    extra_columns: bool = False,
    any_case: bool = False,
) -> Table:
    """Reads a CSV file (UTF-8, byte-order mark allowed, comma-separated, plain or gzip-packed).

    Args:
        required: columns that must be there, in any order.
        optional: columns that may be there.
        what: what the file holds, for messages, e.g. "adapter file".
        extra_columns: whether other columns are left unread (`Table.ignored`) instead of refused. A near miss of an
            optional column's name is refused in any case.
        any_case: whether `GPU-ID` and `gpu id` stand for `gpu_id`.

    Raises:
        InputError: the file or its form is wrong; names file, line and remedy.
    """
    with open_text(path, what=what) as (file, text):
        reader = csv.reader(text, strict=True)
        line = 1
        try:
            header = [name.strip() for name in next(reader, [])]
            if any_case:
                header = [name.lower().replace("-", "_").replace(" ", "_") for name in header]
            _check_header(header, file, required, optional, what=what, extra_columns=extra_columns)
            rows: list[list[str]] = []
            lines: list[int] = []
            width = len(header)
            line = reader.line_num + 1
            for row in reader:
                if len(row) == width and (row[0] or any(cell.strip() for cell in row)):
                    rows.append(row)
                    lines.append(line)
                elif row and any(cell.strip() for cell in row):
                    raise InputError(
                        f"the line has {len(row)} fields, the header has {width}: {','.join(row)[:80]!r}",
                        where=f"{file}, line {line}",
                        remedy='write one value a column; put values that contain a comma into double quotes ("...")',
                    )
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"the line is not valid CSV: {error}", where=f"{file}, line {line}", remedy="close or remove the quotes"
            ) from error
    if not rows:
        raise InputError(f"the {what} has a header and no rows", where=str(file), remedy="add one row an entry")
    wanted = (*required, *optional)
    cells = {name: [row[i] for row in rows] for i, name in enumerate(header) if name in wanted}
    return Table(file, cells, lines, tuple(name for name in header if name not in wanted))


def _check_header(
    header: list[str],
    file: Path,
    required: Sequence[str],
    optional: Sequence[str],
    *,
    what: str,
    extra_columns: bool,
) -> None:
    known = (*required, *optional)
    listing = f"required columns: {', '.join(required)}" + (f"; optional: {', '.join(optional)}" if optional else "")
    where = f"{file}, line 1"
    if not any(header):
        raise InputError(f"the {what} is empty or its first line is", where=str(file), remedy=listing)
    if len(header) == 1:
        for separator in ";\t|":
            if separator in header[0]:
                raise InputError(
                    f"the columns are separated by {separator!r}", where=where, remedy="separate them by commas"
                )
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"column {name!r} appears twice", where=where, remedy="keep one of them")
    unknown = [name for name in header if name not in known]
    missing = [name for name in required if name not in header]
    for name in missing:
        raise InputError(
            f"column {name!r} is missing; the file has {', '.join(repr(h) for h in header)}",
            where=where,
            remedy=_did_you_mean(name, unknown) + listing,
        )
    for name in unknown:
        near = _close(name, [n for n in optional if n not in header])
        if near or not extra_columns:
            raise InputError(
                f"unknown column {name!r}",
                where=where,
                remedy=(f"did you mean {near!r}? " if near else "remove or rename it; ") + listing,
            )


def _close(name: str, names: Collection[str]) -> str:
    return next(iter(difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.8)), "")


def _did_you_mean(name: str, unknown: Sequence[str]) -> str:
    near = {candidate.lower(): candidate for candidate in unknown}
    match = _close(name, list(near))
    return f"rename {near[match]!r} to {name!r}; " if match else ""
