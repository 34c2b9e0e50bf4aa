"""Recorded requests from any log: read in chunks, failed ones left out and counted, names as numbers.

A log of 44 million requests takes some 50 bytes a request here; cells exist for one chunk at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.sources.table import Table, read_tables
from twin.sources.tables.cells import is_null
from twin.sources.tables.files import Paths
from twin.sources.tables.formats import (
    CACHE_HIT,
    CANCELLED,
    ERROR,
    PHASE,
    REQUEST_FORMATS,
    REQUEST_NAMES,
    STATUS,
    plain,
)
from twin.sources.tables.layout import Form
from twin.sources.timestamps import Clock, check_form
from twin.workload.reading import Reading
from twin.workload.recording import RequestLog

REQUIRED = ("timestamp", "prompt_tokens", "output_tokens")
OPTIONAL = ("adapter_id", "cached_tokens", STATUS, ERROR, CACHE_HIT, CANCELLED, PHASE)
#: Words of a status column.
GOOD_WORDS = frozenset((
    "success", "successful", "succeeded", "ok", "true", "completed", "complete", "done", "finished", "stop", "length",
    "yes",
))  # fmt: skip
BAD_WORDS = frozenset((
    "failure", "failed", "fail", "error", "errored", "exception", "false", "cancelled", "canceled", "timeout",
    "timed_out", "aborted", "abort", "rejected", "incomplete", "rate_limited", "no",
))  # fmt: skip
#: Names of columns that are 1 where a request was served.
FLAGS = ("success", "ok")
FAILED, NO_TOKENS, NO_COUNTS = "failed", "without output tokens", "without token counts"
FROM_CACHE, STOPPED, WARM_UP = "answered from a cache", "cancelled", "of the warm-up"


@dataclass(frozen=True, slots=True)
class RequestTable:
    """R requests that were served, of a log.

    Args:
        log: the requests; `log.adapter` counts in `names`.
        names: of the adapters as the log has them; one empty name where it names none.
        reading: the account.
        prefixed: names may begin with a provider.
        first: place of each name's first request, for messages, as far as there are names.
    """

    log: RequestLog
    names: tuple[str, ...]
    reading: Reading
    prefixed: bool = False
    first: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_names(self) -> bool:
        return self.names != ("",)


class _Names:
    """Names as numbers, in the order of their appearance."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def codes(self, table: Table, kept: NDArray[np.bool_]) -> NDArray[np.int32]:
        texts = table.texts("adapter_id", required=False)
        gone = [row for row, text in enumerate(texts) if kept[row] and is_null(text)]
        if gone:
            raise InputError(
                "adapter_id is empty",
                where=table.where(gone[0], "adapter_id"),
                remedy="fill in the adapter_id; requests to the base model need a name too",
            )
        rows = np.flatnonzero(kept).tolist()
        for row in rows:
            if texts[row] not in self.index:
                self.first[texts[row]] = table.where(row, "adapter_id")
                self.index[texts[row]] = len(self.index)
        return np.fromiter((self.index[texts[row]] for row in rows), np.int32, len(rows))


def read_requests(path: Paths, form: Form, *, what: str = "access log", adapter_id: str | None = None) -> RequestTable:
    """Reads a log of one row a request, in any order and of any known format.

    Left out and counted are requests that failed (a status, a success flag, an error), that a cache before the server
    answered, and that have no token counts or no output tokens.

    Args:
        form: what the user says of the file.
        adapter_id: of all requests, where the log has no such column.

    Raises:
        InputError: names file, line, column, value and remedy; or nothing is left.
    """
    check_form(form)
    names, clocks = _Names(), dict[str, Clock]()
    parts: list[tuple[Any, ...]] = []
    times: dict[str, list[tuple[Any, Table]]] = {}
    dropped: Counter[str] = Counter()
    formats: dict[str, None] = {}
    read, prefixed = 0, False
    found: dict[str, str] = {}
    ignored: dict[str, None] = {}
    named: bool | None = None
    for table in read_tables(
        path, REQUIRED, OPTIONAL, what=what, names=REQUEST_NAMES, formats=REQUEST_FORMATS, form=form
    ):
        layout, source = table.layout, str(table.chunks[0].source)
        known = layout.format
        formats |= {known.name: None} if known else {}
        prefixed |= known is not None and known.prefixed
        found |= layout.other_names()
        ignored |= dict.fromkeys(layout.ignored)
        read += len(table)
        kept = _kept(table, dropped)
        prompt, output, cached, kept = _tokens(table, kept, dropped)
        has_names = adapter_id is None and "adapter_id" in table
        if named is not None and named != has_names:
            raise InputError(
                f"{source} {'names adapters' if has_names else 'names no adapters'}, unlike the files before it",
                where=source,
                remedy="give files of one kind",
            )
        named = has_names
        codes = names.codes(table, kept) if has_names else np.zeros(int(kept.sum()), np.int32)
        clock = clocks.setdefault(source, Clock(form, known.time_unit if known else None))
        # Times of requests that failed need not be there.
        slim = _rows(table, kept)
        if len(slim):
            times.setdefault(source, []).append((clock.read(slim, "timestamp"), _without_cells(slim)))
        parts.append((codes, prompt[kept], output[kept], cached[kept]))
    if not times:
        raise InputError(
            f"none of the {read} requests of the {what} can be planned for: "
            + ", ".join(f"{n} {reason}" for reason, n in dropped.items()),
            where=_title(path),
            remedy="give a log with requests that were served; workload.columns={status: null} ignores the status",
        )
    time_s = np.concatenate([
        clocks[source].seconds([p for p, _ in read_], [t for _, t in read_], "timestamp")
        for source, read_ in times.items()
    ])  # fmt: skip
    columns = [np.concatenate([part[i] for part in parts]) for i in range(4)]
    log = RequestLog(time_s, columns[0].astype(np.int64), *(c.astype(np.float64) for c in columns[1:]))
    reading = Reading(
        source=_title(list(times)), format=", ".join(formats), requests_read=read, left_out=dict(dropped),
        span_s=float(np.ptp(time_s)), columns=found, ignored=tuple(ignored),
        notes=tuple(dict.fromkeys(note for clock in clocks.values() for note in clock.notes)),
    )  # fmt: skip
    return RequestTable(log, tuple(names.index) if named else (adapter_id or "",), reading, prefixed, names.first)


def _title(path: Any) -> str:
    several = list(path) if isinstance(path, (list, tuple)) else [path]
    return str(several[0]) if len(several) == 1 else f"{several[0]} and {len(several) - 1} more"


def _rows(table: Table, kept: NDArray[np.bool_]) -> Table:
    chunk = table.chunks[0]
    if kept.all():
        return table
    cells = {name: cells[kept] for name, cells in chunk.cells.items()}
    return Table((replace(chunk, cells=cells, places=chunk.places[kept]),), table.form)


def _without_cells(table: Table) -> Table:
    """Places of rows only, for messages."""
    chunk = table.chunks[0]
    return Table((replace(chunk, cells={}, places=chunk.places.astype(np.int32)),), table.form)


def _kept(table: Table, dropped: Counter[str]) -> NDArray[np.bool_]:
    """Which requests the server served, (R,)."""
    kept = np.ones(len(table), bool)

    def drop(which: NDArray[np.bool_], reason: str) -> None:
        nonlocal kept
        count = int(np.count_nonzero(kept & which))
        if count:
            dropped[reason] += count
            kept = kept & ~which

    if PHASE in table:
        drop(_matching(table, PHASE, lambda word: "warm" in word), WARM_UP)
    if STATUS in table:
        drop(_failed(table), FAILED)
    if ERROR in table:
        drop(_matching(table, ERROR, lambda word: not is_null(word) and word not in ("false", "0", "[]", "{}")), FAILED)
    if CANCELLED in table:
        drop(_matching(table, CANCELLED, lambda word: word in ("true", "1", "yes")), STOPPED)
    if CACHE_HIT in table:
        drop(_matching(table, CACHE_HIT, lambda word: word in ("true", "1", "yes")), FROM_CACHE)
    return kept


def _matching(table: Table, column: str, matches: Any) -> NDArray[np.bool_]:
    """Rows whose cell, in lower case, matches; each word is judged once."""
    texts = [text.lower() for text in table.texts(column, required=False)]
    verdicts = {word: bool(matches(word)) for word in set(texts)}
    return np.fromiter(map(verdicts.__getitem__, texts), np.bool_, len(texts))


def _failed(table: Table) -> NDArray[np.bool_]:
    """Rows whose status is a failure; an empty one tells nothing.

    Raises:
        InputError: a word that is neither.
    """
    texts = table.texts(STATUS, required=False)
    flag = plain(table.layout.columns[STATUS]) in FLAGS
    verdicts: dict[str, bool] = {}
    for word in dict.fromkeys(texts):
        verdict = _status(word.lower(), flag=flag)
        if verdict is None:
            raise InputError(
                f"{STATUS} {word!r} does not say whether the request was served",
                where=table.where(texts.index(word), STATUS),
                remedy="use HTTP codes, or words such as success and failure; workload.columns={status: null} ignores "
                "the column",
            )
        verdicts[word] = verdict
    return np.fromiter(map(verdicts.__getitem__, texts), np.bool_, len(texts))


def _status(word: str, *, flag: bool) -> bool | None:
    """Whether it is a failure; None where it is neither. A `flag` is 1 where the request was served."""
    if is_null(word):
        return False
    first = word.split()[0].removesuffix(".0")
    if first.isdigit() and len(first) == 3:
        return int(first) >= 400
    if flag and first in ("0", "1"):
        return first == "0"
    word = word.replace(" ", "_")
    return False if word in GOOD_WORDS else True if word in BAD_WORDS else None


def _tokens(
    table: Table, kept: NDArray[np.bool_], dropped: Counter[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Prompt, output and cached tokens of all rows, and which rows have them."""
    nan = float("nan")
    prompt = table.numbers("prompt_tokens", low=0, whole=True, empty=nan, remedy="give the number of prompt tokens")
    output = table.numbers("output_tokens", low=0, whole=True, empty=nan, remedy="give the number of output tokens")
    for reason, gone in ((NO_COUNTS, np.isnan(prompt) | np.isnan(output)), (NO_TOKENS, output == 0)):
        count = int(np.count_nonzero(kept & gone))
        if count:
            dropped[reason] += count
            kept = kept & ~gone
    cached = np.zeros(len(table))
    if "cached_tokens" in table:
        cached = table.numbers("cached_tokens", low=0, empty=0.0, remedy="give the cached prompt tokens, 0 for none")
        too_many = kept & (cached > prompt)
        if too_many.any():
            row = int(np.argmax(too_many))
            raise InputError(
                f"cached_tokens {cached[row]:g} is more than prompt_tokens {prompt[row]:g}",
                where=table.where(row, "cached_tokens"),
                remedy="cached tokens are a part of the prompt's tokens",
            )
    return *(values.astype(np.float32) for values in (prompt, output, cached)), kept  # type: ignore[return-value]


def matched(names: Sequence[str], known: Mapping[str, Any], *, prefixed: bool) -> dict[str, str]:
    """Name in the log -> name in the registry: as it is, or without a provider before the first slash."""
    found = {}
    for name in names:
        if name in known:
            found[name] = name
        elif prefixed and name.partition("/")[2] in known:
            found[name] = name.partition("/")[2]
    return found
