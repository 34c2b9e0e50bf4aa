"""Times in CSV files: seconds as numbers, or ISO 8601."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.sources.table import Table

#: Seconds since 1970 stay below this for the next 3,000 years; milliseconds since 1973 do not.
MILLISECONDS_ABOVE = 1e11


def timestamps_s(table: Table, column: str) -> NDArray[np.float64]:
    """Times in seconds, (R,): numbers of seconds, or ISO 8601; all rows alike.

    Raises:
        InputError: a cell is neither, or the numbers are milliseconds.
    """
    first = table.cells[column][0].strip()
    try:
        float(first)
    except ValueError:
        return _iso_times_s(table, column)
    times = table.numbers(column, remedy="give seconds as a number, or ISO 8601, the same way on all lines")
    if np.abs(times).max() > MILLISECONDS_ABOVE:
        row = int(np.argmax(np.abs(times) > MILLISECONDS_ABOVE))
        raise InputError(
            f"{column} {table.cells[column][row].strip()!r} is not a time in seconds (milliseconds?)",
            where=table.where(row, column),
            remedy="divide by 1000, or use ISO 8601",
        )
    return times


def _iso_times_s(table: Table, column: str) -> NDArray[np.float64]:
    cells = table.texts(column)
    times = np.empty(len(cells))
    zoned = None
    for row, cell in enumerate(cells):
        try:
            time = datetime.fromisoformat(cell)
        except ValueError as error:
            raise InputError(
                f"{column} {cell!r} is neither a number of seconds nor an ISO 8601 time",
                where=table.where(row, column),
                remedy="write e.g. 1700000000.25 or 2026-11-23T18:00:00.250Z, the same way on all lines",
            ) from error
        if zoned is None:
            zoned = time.tzinfo is not None
        elif zoned != (time.tzinfo is not None):
            raise InputError(
                f"{column} {cell!r} {'has no' if zoned else 'has a'} UTC offset, unlike the first row's {cells[0]!r}",
                where=table.where(row, column),
                remedy="write all times with an offset, or all without (taken as UTC)",
            )
        # Without an offset: UTC, not the zone of the machine that plans.
        times[row] = (time if zoned else time.replace(tzinfo=UTC)).timestamp()
    return times
