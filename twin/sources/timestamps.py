"""Times in tables: numbers with a unit, ISO 8601 text, typed times; what a spreadsheet broke is refused."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.sources.table import Table
from twin.sources.tables.cells import Unreadable, parsed
from twin.sources.tables.layout import Form
from twin.wording import counted

Floats = NDArray[np.float64]

#: Unit -> seconds. `excel`: days since 1899-12-30.
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "excel": 86_400.0}
EXCEL_EPOCH_S = -2_209_161_600.0
#: A time since 1970 from 1973 on is above this in milliseconds, and below it in seconds for the next 3,000 years.
SINCE_1970 = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"))
#: Days since 1899-12-30 of the years 2000 to 2100, and most days of a log.
EXCEL_DAYS, EXCEL_SPAN_DAYS = (36_526.0, 73_050.0), 400.0
#: Numbers below this count from a start of their own.
SINCE_START = 1e8
#: Mean seconds between requests of a log above which its unit is doubted.
SLOW_S = 100.0
_SCIENTIFIC = re.compile(r"[+-]?\d(?:[.,](\d+))?[eE]\+?(\d+)")
_ISO = "write e.g. 1700000000.25 or 2026-11-23T18:00:00.250Z, the same way on all lines"


def check_form(form: Form) -> None:
    """Refuses units and zones that do not exist.

    Raises:
        InputError: names the option.
    """
    if form.time_unit is not None and form.time_unit not in UNITS:
        raise InputError(
            f"{form.time_unit!r} is no unit of time",
            where="option workload.time_unit",
            remedy=f"use one of {', '.join(UNITS)}",
        )
    if form.decimal not in (None, ".", ","):
        raise InputError(
            f"{form.decimal!r} is no decimal mark", where="option workload.decimal", remedy="use '.' or ','"
        )
    try:
        zoneinfo.ZoneInfo(str(form.time_zone))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"{form.time_zone!r} is no time zone",
            where="option workload.time_zone",
            remedy="use a name such as UTC or Europe/Berlin",
        ) from error


def timestamps_s(table: Table, column: str, unit: str | None = None) -> Floats:
    """Times in seconds, (R,), all rows alike; numbers in `unit`, or in the one their size tells.

    Raises:
        InputError: a cell is no time, or its unit is not clear.
    """
    clock = Clock(table.form, unit)
    parts = [clock.read(Table((chunk,), table.form), column) for chunk in table.chunks]
    return clock.seconds(parts, [Table((chunk,), table.form) for chunk in table.chunks], column)


class Clock:
    """Reads the times of a file chunk by chunk, and tells their unit from all of them.

    Args:
        form: what the user says.
        unit: what the format of the file says.
    """

    def __init__(self, form: Form, unit: str | None = None) -> None:
        self.unit = form.time_unit or unit
        self.zone = form.time_zone
        self.text: bool | None = None
        self.first = ""
        self.zoned: bool | None = None
        self.notes: list[str] = []

    def read(self, table: Table, column: str) -> Floats:
        """Raw numbers, or seconds where the cells say the time themselves."""
        cells = table.column(column)
        if cells.dtype.kind == "M":
            self.text = True
            return np.asarray(_exact_seconds(cells.astype("datetime64[ns]").astype(np.int64)))
        if self.text is None:
            self.first = str(cells[0]).strip()
            self.text = cells.dtype == object and not _is_number(self.first)
        if self.text:
            return self._iso(table, column, cells)
        self._refuse_rounded(table, column, cells)
        return table.numbers(column, remedy="give seconds as a number, or ISO 8601, the same way on all lines")

    def _refuse_rounded(self, table: Table, column: str, cells: NDArray[Any]) -> None:
        """1.70E+09: a spreadsheet has thrown the seconds away."""
        if cells.dtype != object:
            return
        for row, cell in enumerate(cells.tolist()):
            if "E" not in cell and "e" not in cell:
                continue
            match = _SCIENTIFIC.fullmatch(cell.strip())
            if match and int(match[2]) > len(match[1] or ""):
                raise InputError(
                    f"{column} {cell.strip()!r} has lost its digits: a spreadsheet has rounded the time to "
                    f"{float(10 ** (int(match[2]) - len(match[1] or ''))):,.0f} s",
                    where=table.where(row, column),
                    remedy="export the log anew without a spreadsheet, or format the column as text first",
                )

    def _iso(self, table: Table, column: str, cells: NDArray[Any]) -> Floats:
        import pandas as pd

        texts = table.texts(column)
        zoned = np.fromiter((_has_offset(text) for text in texts), np.bool_, len(texts))
        if self.zoned is None:
            self.zoned = bool(zoned[0])
        times = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", utc=True, errors="coerce")
        bad = np.flatnonzero(times.isna().to_numpy())
        # pandas takes 5 or 2026 for a year.
        short = [row for row, text in enumerate(texts) if len(text) < len("2026-11")]
        for row in [*bad[:1].tolist(), *short[:1]]:
            raise InputError(
                f"{column} {texts[row]!r} is neither a number of seconds nor an ISO 8601 time",
                where=table.where(int(row), column),
                remedy=_ISO,
            )
        if (zoned != self.zoned).any():
            row = int(np.argmax(zoned != self.zoned))
            raise InputError(
                f"{column} {texts[row]!r} {'has no' if self.zoned else 'has a'} UTC offset, unlike the first row's "
                f"{self.first!r}",
                where=table.where(row, column),
                remedy="write all times with an offset, or all without (workload.time_zone says which zone)",
            )
        if not self.zoned and self.zone != "UTC":
            times = self._local(times, table, column)
        return _exact_seconds(times.to_numpy("datetime64[ns]").astype(np.int64))

    def _local(self, times: Any, table: Table, column: str) -> Any:
        try:
            return times.dt.tz_localize(None).dt.tz_localize(self.zone).dt.tz_convert("UTC").dt.tz_localize(None)
        except ValueError as error:
            raise InputError(
                f"a {column} is no time, or two, in {self.zone}: {str(error).splitlines()[0]}",
                where=table.title,
                remedy="the clock is changed there; log with UTC offsets, or give workload.time_zone=UTC",
            ) from error

    def seconds(self, parts: Sequence[Floats], tables: Sequence[Table], column: str) -> Floats:
        """All times in seconds.

        Args:
            parts: what `read` returned, and the tables that it was read from.

        Raises:
            InputError: numbers that may be days of a spreadsheet, or milliseconds.
        """
        times = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.text or not len(times):
            return times
        unit = self.unit or self._unit(times, tables, column)
        scaled: Floats = times if unit == "s" else times * UNITS[unit]
        if unit == "excel":
            scaled = scaled + EXCEL_EPOCH_S
        if unit != "s":
            scaled = np.round(scaled, 9)
        return scaled

    def _unit(self, times: Floats, tables: Sequence[Table], column: str) -> str:
        low, high = float(times.min()), float(times.max())

        def where(row: int) -> str:
            for table in tables:
                if row < len(table):
                    return table.where(row, column)
                row -= len(table)
            return column

        for least, unit in SINCE_1970:
            if low > least:
                self.notes.append(f"Times are since 1970 in {unit}, by their size.")
                return unit
            if high > least:
                raise InputError(
                    f"{column} {high:.15g} is not a time in seconds ({unit}?)",
                    where=where(int(np.argmax(times))),
                    remedy=f"say the unit: workload.time_unit={unit}; or use ISO 8601",
                )
        inside = EXCEL_DAYS[0] <= low and high <= EXCEL_DAYS[1] and high - low <= EXCEL_SPAN_DAYS
        if inside and (times != np.floor(times)).any():
            raise InputError(
                f"{column} {low:.10g} to {high:.10g} look like days of a spreadsheet, not seconds",
                where=where(0),
                remedy="say workload.time_unit=excel if they are (their five decimals are 0.9 s apart), or "
                "workload.time_unit=s",
            )
        mean_gap = (high - low) / max(len(times) - 1, 1)
        if high < SINCE_START and mean_gap >= SLOW_S and (times == np.floor(times)).all():
            self.notes.append(
                f"Times are taken as seconds: {counted(len(times), 'request')} over {(high - low) / 3600:,.1f} hours, "
                f"one every {mean_gap:,.0f} s. If they are milliseconds, say workload.time_unit=ms."
            )
        return "s"


def _has_offset(text: str) -> bool:
    """Whether an ISO 8601 time says its zone; behind the date there is no other sign."""
    time = text[10:]
    return time[-1:] in ("z", "Z") or "+" in time or "-" in time


def _is_number(text: str) -> bool:
    try:
        parsed(np.array([text], dtype=object), whole=True, decimal=None)
    except Unreadable:
        return False
    return True


def _exact_seconds(nanoseconds: NDArray[np.int64]) -> Floats:
    """The nearest doubles of times since 1970: microseconds are exact in a double, nanoseconds are not."""
    microseconds, rest = np.divmod(nanoseconds, 1000)
    seconds: Floats = microseconds / 1e6
    return np.where(rest > 0, seconds + rest / 1e9, seconds)
