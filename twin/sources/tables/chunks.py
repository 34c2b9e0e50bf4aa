"""Rows of a file, a chunk at a time: CSV by pandas, JSON by the standard library, Parquet by pyarrow; a DataFrame's."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.sources.tables.files import Source, imported_pyarrow
from twin.sources.tables.json_records import first_line_is_object, json_chunks
from twin.sources.tables.layout import Layout, Wanted

#: Rows of a chunk: 40 MB of cells where five columns are read.
CHUNK_ROWS = 250_000
SEPARATORS = ",;\t|"
#: What rows without a file are called.
FRAME = "DataFrame"
_EXCEL_SEPARATOR = re.compile(r"\s*sep=(.)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one file, R of them.

    Args:
        cells: our column -> texts, or numbers and times of a file that has types, (R,).
        places: number of each row in its file, from 0, (R,).
        first_line: of row 0 in a file of lines; 0 where rows are not lines.
        separator: of a CSV file; rows may span lines.
    """

    source: Source
    layout: Layout
    cells: dict[str, NDArray[Any]]
    places: NDArray[np.int64]
    first_line: int = 0
    separator: str = ""

    def __len__(self) -> int:
        return len(self.places)

    def place(self, row: int) -> str:
        """`line 7`, or `row 7` of a file without lines."""
        number = int(self.places[row])
        if not self.first_line:
            return f"row {number + 1}"
        if not self.separator:
            return f"line {number + self.first_line}"
        with self.source.text() as text:
            _skip(text, self.first_line - 1)
            reader = csv.reader(text, delimiter=self.separator)
            for _ in itertools.islice(reader, number):
                pass
            return f"line {reader.line_num + self.first_line}"


def chunks(source: Source, wanted: Wanted, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Reads a file of any kind.

    Raises:
        InputError: the file or its form is wrong; names file, line and remedy.
    """
    if source.is_parquet():
        yield from _parquet_chunks(source, wanted, rows)
        return
    with source.text() as text:
        start = text.read(1)
        while start and start.isspace() and start != "\n":
            start = text.read(1)
    if start and start in "{[" and (start == "{" or first_line_is_object(source)):
        for layout, cells, places, first_line in json_chunks(source, wanted, rows):
            yield Chunk(source, layout, cells, places, first_line)
    else:
        yield from _csv_chunks(source, wanted, rows)


def _skip(text: IO[str], lines: int) -> None:
    for _ in range(lines):
        text.readline()


def _header(text: IO[str], wanted: Wanted, source: Source) -> tuple[list[str], str, int]:
    """Names of columns, separator, and lines read."""
    first, lines = text.readline(), 1
    separator = ""
    if told := _EXCEL_SEPARATOR.fullmatch(first):
        separator, first, lines = told[1], text.readline(), 2
    try:
        choices = {
            s: [name.strip() for name in next(csv.reader([first], delimiter=s), [])] for s in separator or SEPARATORS
        }
    except csv.Error as error:
        raise InputError(
            f"the line is not valid CSV: {error}", where=f"{source}, line {lines}", remedy="close or remove the quotes"
        ) from error
    best = max(choices, key=lambda s: (wanted.score(choices[s]), len(choices[s])))
    header = choices[best]
    while header and not header[-1]:  # a trailing comma
        header.pop()
    return header, best, lines


def _csv_chunks(source: Source, wanted: Wanted, rows: int) -> Iterator[Chunk]:
    import pandas as pd

    with source.text() as text:
        header, separator, lines = _header(text, wanted, source)
        layout = wanted.layout(header, source)
        width = len(header)
        index = {ours: header.index(theirs) for ours, theirs in layout.columns.items()}
        read = sorted({*index.values(), width - 1, width})
        options: dict[str, Any] = {
            "sep": separator, "header": None, "names": list(range(width + 1)), "usecols": read, "dtype": object,
            "na_filter": False, "skip_blank_lines": False, "index_col": False, "chunksize": rows,
        }  # fmt: skip
        seen, doubtful = -1, False
        try:
            # pandas counts columns in the first row: an empty one with a field to spare.
            for frame in pd.read_csv(_Behind(separator * width + "\n", text), **options):
                columns = {i: frame[i].to_numpy(object) for i in read}
                empty = {i: np.asarray(column == "", np.bool_) for i, column in columns.items()}
                blank = np.logical_and.reduce(list(empty.values())) | _of_blanks(list(columns.values()))
                # More fields than the header has, or perhaps fewer.
                doubtful |= not empty[width].all() or bool((empty[width - 1] & ~blank).any())
                if not empty[width].all():
                    break
                kept = np.flatnonzero(~blank)
                cells = {ours: columns[i][kept] for ours, i in index.items()}
                if len(kept):
                    yield Chunk(source, layout, cells, kept + seen, lines + 1, separator)
                seen += len(frame)
        except pd.errors.ParserError as error:
            _refuse_uneven_rows(source, separator, lines, width)
            raise InputError(
                f"the {source.what} is not valid CSV: {str(error).strip()}",
                where=str(source),
                remedy="close or remove quotes; one row a line",
            ) from error
        except pd.errors.EmptyDataError:
            return
    if doubtful:
        _refuse_uneven_rows(source, separator, lines, width)


class _Behind(io.TextIOBase):
    """A text behind a first line."""

    def __init__(self, first: str, text: IO[str]) -> None:
        self._first, self._text = first, text

    def read(self, size: int | None = -1) -> str:
        first, self._first = self._first, ""
        return first or self._text.read(-1 if size is None else size)

    def readable(self) -> bool:
        return True


def _of_blanks(columns: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Rows of blanks only, (R,); few begin with one."""
    rows = np.fromiter(map(str.isspace, columns[0]), np.bool_, len(columns[0]))
    for row in np.flatnonzero(rows):
        rows[row] = not any(column[row].strip() for column in columns)
    return rows


def _refuse_uneven_rows(source: Source, separator: str, header_lines: int, width: int) -> None:
    """Names the first row with too few or too many fields, or a quote that is never closed, if there is one."""
    with source.text() as text:
        _skip(text, header_lines)
        reader = csv.reader(text, strict=True, delimiter=separator)
        line = header_lines + 1
        try:
            for row in reader:
                filled = [cell for cell in row[width:] if cell.strip()]
                if row and any(cell.strip() for cell in row) and (len(row) < width or filled):
                    raise InputError(
                        f"the line has {len(row)} fields, the header has {width}: {separator.join(row)[:80]!r}",
                        where=f"{source}, line {line}",
                        remedy=f"write one value a column; put values that contain a {separator!r} into double quotes "
                        '("...")',
                    )
                line = header_lines + reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"the line is not valid CSV: {error}",
                where=f"{source}, line {line}",
                remedy="close or remove the quotes",
            ) from error


def _parquet_chunks(source: Source, wanted: Wanted, rows: int) -> Iterator[Chunk]:
    imported_pyarrow(source, "reading Parquet")
    import pyarrow
    from pyarrow import parquet

    with source.binary() as binary:
        try:
            file = parquet.ParquetFile(binary)
            header = file.schema_arrow.names
            layout = wanted.layout(header, source)
            theirs = list(dict.fromkeys(layout.columns.values()))
            start = 0
            for batch in file.iter_batches(rows, columns=theirs):
                places = np.arange(start, start + batch.num_rows)
                start += batch.num_rows
                columns = {name: _typed(batch.column(name).to_pandas()) for name in theirs}
                if len(places):
                    yield Chunk(source, layout, {o: columns[t] for o, t in layout.columns.items()}, places)
        except pyarrow.ArrowException as error:
            raise InputError(
                f"the {source.what} is not a whole Parquet file: {error}",
                where=str(source),
                remedy="copy or write it again",
            ) from error


def frame_chunk(frame: Any, wanted: Wanted) -> Chunk:
    """The rows of a pandas DataFrame, R of them; its index does not count.

    Raises:
        InputError: columns are missing, unknown or there twice.
    """
    source = Source(Path(FRAME), wanted.what, f"the {FRAME}")
    layout = wanted.layout([str(name) for name in frame.columns], source)
    theirs = {str(name): k for k, name in enumerate(frame.columns)}
    cells = {ours: _typed(frame.iloc[:, theirs[name]]) for ours, name in layout.columns.items()}
    return Chunk(source, layout, cells, np.arange(len(frame)))


def _typed(values: Any) -> NDArray[Any]:
    """Numbers and times as they are; everything else as text, missing values as empty text."""
    if values.dtype.kind in "iuf":
        return values.to_numpy()  # type: ignore[no-any-return]
    if values.dtype.kind == "M":
        zoned = (
            values if getattr(values.dtype, "tz", None) is None else values.dt.tz_convert("UTC").dt.tz_localize(None)
        )
        return zoned.to_numpy("datetime64[ns]")  # type: ignore[no-any-return]
    missing: Sequence[bool] = values.isna().tolist()
    texts = ("" if gone else str(value) for value, gone in zip(values.tolist(), missing, strict=True))
    return np.array(list(texts), dtype=object)
