"""JSON: one object a line, a list of objects, or a document that holds requests (vLLM's and GuideLLM's results)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.sources.tables.files import Source
from twin.sources.tables.layout import Layout, Wanted

#: Records whose fields make the header.
HEADER_RECORDS = 1000
#: Levels of objects in objects that a column may lie in.
DEPTH = 5
#: Lists of `vllm bench serve --save-detailed`, an entry a request.
BENCH_LISTS = ("input_lens", "output_lens", "ttfts", "itls", "errors", "start_times")
#: Lists of GuideLLM's report.
OUTCOMES = ("successful", "errored", "incomplete")

Record = Mapping[str, Any]
Numbered = tuple[int, Record]


def first_line_is_object(source: Source) -> bool:
    """Whether a file that begins with `[` is JSON; a CSV header may begin so too."""
    with source.text() as text:
        head = text.read(4096).lstrip()[1:].lstrip()
    return not head or head[0] in "{]"


def json_chunks(
    source: Source, wanted: Wanted, rows: int
) -> Iterator[tuple[Layout, dict[str, NDArray[Any]], NDArray[np.int64], int]]:
    """Layout, cells, places and the line of place 0 (0 where records are not lines), a chunk at a time."""
    lines = _has_lines(source)
    records = _line_records(source) if lines else enumerate(_document_records(source))
    start = list(itertools.islice(records, HEADER_RECORDS))
    if not start:
        return
    paths: dict[str, tuple[str, ...]] = {}
    for _, record in start:
        _collect(record, (), paths)
    layout = wanted.layout(list(paths), source)
    fields = {ours: paths[theirs] for ours, theirs in layout.columns.items()}
    everything = itertools.chain(start, records)
    while part := list(itertools.islice(everything, rows)):
        cells = {ours: _cells(part, path) for ours, path in fields.items()}
        yield layout, cells, np.array([place for place, _ in part], np.int64), 1 if lines else 0


def _has_lines(source: Source) -> bool:
    with source.text() as text:
        first = text.readline()
        while first and not first.strip():
            first = text.readline()
    try:
        return isinstance(json.loads(first), dict)
    except json.JSONDecodeError:
        # A broken record of a file of lines ends as it begins; a document goes on in the next line.
        return first.rstrip().endswith("}") and first.lstrip().startswith("{")


def json_object(line: str, where: str) -> dict[str, Any]:
    """The object on a line of a file of JSON lines.

    Raises:
        InputError: no JSON, or no object.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"the line is not JSON: {error.msg}", where=where, remedy="give one JSON object a line"
        ) from error
    if not isinstance(record, dict):
        raise InputError(
            f"the line holds {line.strip()[:40]!r}, not a JSON object",
            where=where,
            remedy="give one JSON object a line",
        )
    return record


def _line_records(source: Source) -> Iterator[Numbered]:
    with source.text() as text:
        for number, line in enumerate(text):
            if not line.strip():
                continue
            where = f"{source}, line {number + 1}"
            record = json_object(line, where)
            yield from ((number, r) for r in _requests_in(record, where) or [record])


def _document_records(source: Source) -> Iterator[Record]:
    with source.text() as text:
        try:
            document = json.load(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"the {source.what} is not JSON: {error.msg}",
                where=f"{source}, line {error.lineno}",
                remedy="give a list of objects, or one object a line",
            ) from error
    if isinstance(document, dict):
        found = _requests_in(document, str(source))
        if found is None:
            raise InputError(
                f"the {source.what} is a JSON object without a list of requests; it has "
                f"{', '.join(map(repr, list(document)[:10]))}",
                where=str(source),
                remedy="of `vllm bench serve`, give a result of --save-detailed; else one JSON object a line",
            )
        document = found
    for number, record in enumerate(document):
        if not isinstance(record, dict):
            raise InputError(
                f"entry {number + 1} holds {str(record)[:40]!r}, not a JSON object",
                where=str(source),
                remedy="give a list of objects",
            )
        yield record


def _requests_in(document: Record, where: str) -> Sequence[Record] | None:
    """The requests of a document; None where it is none that is known."""
    if isinstance(document.get("input_lens"), list):
        return _bench_requests(document, where)
    if isinstance(document.get("benchmarks"), list):
        return [
            {**request, "outcome": outcome}
            for benchmark in document["benchmarks"]
            for outcome in OUTCOMES
            for request in (benchmark.get("requests") or {}).get(outcome) or []
        ]
    lists = [v for v in document.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    return lists[0] if len(lists) == 1 and not _scalars(document) else None


def _scalars(document: Record) -> bool:
    """Whether a document tells something about one request, beside its lists."""
    return any(isinstance(value, dict) for value in document.values()) or "usage" in document


def _bench_requests(document: Record, where: str) -> Sequence[Record]:
    if not isinstance(document.get("start_times"), list):
        raise InputError(
            "the result has no start_times: this version of `vllm bench serve` does not save when requests were sent",
            where=where,
            remedy="use a newer vLLM, or simulate its command: python -m twin requests=... concurrency=...",
        )
    columns = {name: document[name] for name in BENCH_LISTS if isinstance(document.get(name), list)}
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"the lists of the result differ in length: {sizes}", where=where, remedy="give the file as it was saved"
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _collect(record: Record, above: tuple[str, ...], paths: dict[str, tuple[str, ...]]) -> None:
    for key, value in record.items():
        path = (*above, key)
        if isinstance(value, dict) and len(path) < DEPTH:
            _collect(value, path, paths)
        paths.setdefault(".".join(path), path)


def _cells(part: Iterable[Numbered], path: Sequence[str]) -> NDArray[Any]:
    texts = []
    for _, record in part:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        texts.append(_text(value))
    return np.array(texts, dtype=object)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, (dict, list)) else repr(value)
