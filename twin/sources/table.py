"""Tables whose errors point at a line: text cells of any file that `twin.sources.tables` reads, and checked columns."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.config.ranges import Range
from twin.errors import InputError
from twin.sources.tables.cells import Unreadable, is_null, parsed
from twin.sources.tables.chunks import Chunk, chunks, frame_chunk
from twin.sources.tables.files import Paths, sources
from twin.sources.tables.formats import Format
from twin.sources.tables.layout import Form, Layout, Wanted


@dataclass(frozen=True, slots=True)
class Table:
    """R rows of a file, or of several.

    Args:
        chunks: the rows, in order.
        form: what the user says of them.
    """

    chunks: tuple[Chunk, ...]
    form: Form = field(default_factory=Form)

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def __contains__(self, column: str) -> bool:
        return all(column in chunk.cells for chunk in self.chunks)

    @property
    def path(self) -> Path:
        """The (first) file."""
        return self.chunks[0].source.path

    @property
    def title(self) -> str:
        """The files, for sentences."""
        names = list(dict.fromkeys(str(chunk.source) for chunk in self.chunks))
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    @property
    def layout(self) -> Layout:
        return self.chunks[0].layout

    @property
    def ignored(self) -> tuple[str, ...]:
        """Columns of the file that nobody asked for."""
        return self.layout.ignored

    def column(self, name: str) -> NDArray[Any]:
        """Cells as they were read, (R,)."""
        parts = [chunk.cells[name] for chunk in self.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def line(self, row: int) -> str:
        """`line 7`, for messages."""
        chunk, inside = self._chunk(row)
        return chunk.place(inside)

    def where(self, row: int, column: str = "") -> str:
        """`file, line 7, column 'rank'` for messages; the column by its name in the file."""
        chunk, inside = self._chunk(row)
        theirs = chunk.layout.columns.get(column, column)
        return f"{chunk.source}, {chunk.place(inside)}" + (f", column {theirs!r}" if column else "")

    def _chunk(self, row: int) -> tuple[Chunk, int]:
        for chunk in self.chunks:
            if row < len(chunk):
                return chunk, row
            row -= len(chunk)
        raise IndexError(row)

    def texts(self, column: str, *, required: bool = True) -> list[str]:
        """Cells without surrounding blanks.

        Raises:
            InputError: a cell is empty and `required`.
        """
        texts = [str(cell).strip() for cell in self.column(column).tolist()]
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
            empty: value of empty cells and of words such as NULL (may be NaN); None = such a cell is an error.

        Raises:
            InputError: names file, line, column and the first offending value.
        """
        cells = self.column(column)
        try:
            values = parsed(cells, whole=whole, decimal=self.form.decimal)
        except Unreadable as error:
            raise self._unreadable(column, cells, error, remedy) from error
        good = np.isfinite(values) & (values >= low) & (values <= high) & (values > above) & (values < below)
        if whole:
            good &= values == np.floor(values)
        if empty is not None:
            gone = np.isnan(values)
            good |= gone
            values = np.where(gone, empty, values)
        if not good.all():
            row = int(np.argmin(good))
            raise self._out_of_range(column, cells[row], row, Range(low, high, above, below, whole), remedy)
        return values

    def _unreadable(self, column: str, cells: NDArray[Any], error: Unreadable, remedy: str) -> InputError:
        text = str(cells[error.row]).strip()
        where = self.where(error.row, column)
        if error.ambiguous:
            return InputError(
                f"{column} {text!r} is one number with a decimal comma and another with a thousands separator",
                where=where,
                remedy="say which: workload.decimal=',' or workload.decimal='.'",
            )
        return InputError(
            f"{column} {text!r} is not a number",
            where=where,
            remedy=remedy or "give a number without unit; workload.decimal=',' reads decimal commas",
        )

    def _out_of_range(self, column: str, cell: Any, row: int, wanted: Range, remedy: str) -> InputError:
        text = str(cell).strip()
        if text and is_null(text) and text.lower() != "nan":
            problem = f"{column} is {text}, which stands for no value"
        else:
            problem = f"{column} {text!r} is not {wanted}" if text else f"{column} is empty"
        return InputError(problem, where=self.where(row, column), remedy=remedy or f"give {wanted}")

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
                    f"{column} {key!r} appears twice, on {self.line(seen[key])} and {self.line(row)}",
                    where=self.where(row, column),
                    remedy=remedy,
                )
            seen[key] = row
        return keys


def read_table(
    path: Paths | Any,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    what: str,
    extra_columns: bool = False,
    names: Mapping[str, Sequence[str]] | None = None,
    form: Form | None = None,
    option: str = "workload.path",
) -> Table:
    """Reads a table: CSV with any separator, JSON lines, Parquet; plain or packed; one file or several; a DataFrame.

    Args:
        required: columns that must be there, in any order.
        optional: columns that may be there.
        what: what the file holds, for messages, e.g. "adapter file".
        extra_columns: whether other columns are left unread (`Table.ignored`) instead of refused. A near miss of an
            optional column's name is refused in any case.
        names: our column -> what else it is called. Case, blanks and dashes never matter.
        form: what the user says of it.
        option: that names the file, for messages.

    Raises:
        InputError: the file or its form is wrong; names file, line and remedy.
    """
    form = form or Form()
    wanted = Wanted(required, optional, what, names or {}, (), form, extra_columns)
    if is_frame(path):
        table = Table((frame_chunk(path, wanted),), form)
        if not len(table):
            raise InputError(f"{table.title} has no rows", where=option, remedy="add one row an entry")
        return table
    read = tuple(part for table in _tables(path, wanted, option) for part in table.chunks)
    return Table(read, form)


def is_frame(value: object) -> bool:
    """Whether something is a pandas DataFrame; told without importing pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def read_tables(
    path: Paths,
    required: Sequence[str],
    optional: Sequence[str],
    *,
    what: str,
    names: Mapping[str, Sequence[str]],
    formats: Sequence[Format],
    form: Form,
) -> Iterator[Table]:
    """The same of a file of any length, a chunk at a time; other columns are left unread."""
    return _tables(path, Wanted(required, optional, what, names, formats, form, True), "workload.path")


def _tables(path: Paths, wanted: Wanted, option: str) -> Iterator[Table]:
    for source in sources(path, what=wanted.what, option=option):
        rows = 0
        for chunk in chunks(source, wanted):
            rows += len(chunk)
            yield Table((chunk,), wanted.form)
        if not rows:
            raise InputError(
                f"the {wanted.what} has a header and no rows", where=str(source), remedy="add one row an entry"
            )
