"""Mooncake traces: requests with the hashes of their 512-token prefix blocks, no tenant.

Source: kvcache-ai/Mooncake, FAST 2025 release, Apache-2.0. JSON lines
`{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [block, ...]}`; a block's hash covers
the whole prefix up to its end, so an equal hash means an equal prefix.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.sources.tables.json_records import json_object
from twin.sources.text_file import open_text
from twin.sources.traces.source import Deal, TraceRequests, dealt_workload, find_file
from twin.workload.reading import Reading
from twin.workload.workload import Workload

BLOCK_TOKENS = 512
DEALS = ("session", "request")


def read_mooncake(
    path: str | Path,
    trace: str = "conversation",
    n_adapters: int = 200,
    exponent: float = 1.0,
    deal: str = "session",
    ranks: Any = (8, 16, 32),
    rank_weights: Any = None,
    total_rate_req_per_s: float | None = 40.0,
    max_request_tokens: int | None = 8192,
    seed: int = 0,
    length_shape: str = "gamma",
) -> Workload:
    """A workload whose requests are those of the trace, dealt to adapters at random (`dealt_workload`).

    The cached share of an adapter's prompts is what its own earlier requests had computed, in an unlimited cache:
    vLLM keeps the prefixes of different adapters apart.

    Args:
        path: the trace file (`.jsonl`, `.jsonl.gz`), or the folder that holds it.
        trace: `conversation` or `synthetic`, where `path` is a folder.
        n_adapters, exponent: how many adapters share the requests, with shares ~ popularity rank ** -exponent.
        deal: `session`: requests with a common beginning go to one adapter (the first prefix block that fewer than
            half of all requests share tells sessions apart); `request`: each request is dealt on its own.
        ranks, rank_weights: LoRA ranks and their relative frequencies (None = equal).
        total_rate_req_per_s: rates are scaled to this total; None = as recorded (3.4-3.9 req/s).
        max_request_tokens: longer requests are cut to this (said in the notes); None = never.
        seed: of the dealing.
        length_shape: `gamma`, `lognormal`, `constant`, `published`, or `empirical` (`twin.traffic.length_shapes`).

    Raises:
        InputError: names file, line, field, value and remedy.
    """
    if deal not in DEALS:
        raise InputError(
            f"{deal!r} is not a way to deal", where="option workload.deal", remedy="use session or request"
        )
    dealing = Deal(
        n_adapters, exponent, ranks, rank_weights, total_rate_req_per_s, max_request_tokens, seed, length_shape
    )
    file = find_file(
        path,
        [f"{trace}_trace.jsonl.gz", f"{trace}_trace.jsonl"],
        "mooncake",
        what="Mooncake trace",
        choices="conversation, synthetic",
    )
    requests, blocks = _read_lines(file)
    sessions = _sessions(blocks)
    kept = len(set(sessions.tolist()))
    by_session = deal == "session"
    notes = [
        f"Requests of the Mooncake trace {file}, {kept} sessions with a common beginning, "
        + ("each dealt to one adapter." if by_session else "torn apart by dealing every request on its own."),
        "Cached shares of prompts come from the trace's prefix blocks, within an adapter and with unlimited cache.",
    ]
    return dealt_workload(
        requests, dealing, name=file.name.split(".")[0], notes=notes,
        cached_tokens=lambda adapter: _cached_tokens(blocks, requests.prompt_tokens, adapter),
        group=sessions if by_session else None,
        reading=Reading(str(file), "Mooncake trace", len(blocks), span_s=float(np.ptp(requests.time_s))),
    )  # fmt: skip


def _read_lines(file: Path) -> tuple[TraceRequests, list[list[int]]]:
    """Requests in order of time, and the prefix blocks of each."""
    rows: list[tuple[float, float, float]] = []
    blocks: list[list[int]] = []
    with open_text(file, what="Mooncake trace") as (name, lines):
        for line_number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{name}, line {line_number}"
            record = json_object(line, where)
            time_ms, prompt, output = (
                _field(record, key, where) for key in ("timestamp", "input_length", "output_length")
            )
            rows.append((time_ms / 1000.0, prompt, output))
            blocks.append(_hash_ids(record, where))
    if not rows:
        raise InputError("the Mooncake trace is empty", where=str(file), remedy="give one JSON object a line")
    values = np.array(rows)
    order = np.argsort(values[:, 0], kind="stable")
    values = values[order]
    return TraceRequests(values[:, 0], values[:, 1], values[:, 2]), [blocks[i] for i in order]


def _field(record: dict[str, Any], key: str, where: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(
            f"{key} {value!r} is not a number >= 0" if key in record else f"field {key!r} is missing",
            where=f"{where}, field {key!r}",
            remedy="fields: timestamp (ms), input_length, output_length (tokens), hash_ids",
        )
    return float(value)


def _hash_ids(record: dict[str, Any], where: str) -> list[int]:
    ids = record.get("hash_ids", [])
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
        raise InputError(
            f"hash_ids {str(ids)[:40]} is not a list of whole numbers",
            where=f"{where}, field 'hash_ids'",
            remedy="give the hashes of the prompt's 512-token prefix blocks, or leave the field out",
        )
    return ids


def _sessions(blocks: list[list[int]]) -> NDArray[np.int64]:
    """Label of each request's session, (R,): its first block that is no system prompt common to most requests."""
    uses = Counter(block for ids in blocks for block in set(ids))
    labels: dict[tuple[str, int], int] = {}
    sessions = np.empty(len(blocks), np.int64)
    for row, ids in enumerate(blocks):
        own = next((b for b in ids if uses[b] <= len(blocks) / 2), None)
        # A request without a block of its own is a session of its own.
        key = ("block", own) if own is not None else ("row", row)
        sessions[row] = labels.setdefault(key, len(labels))
    return sessions


def _cached_tokens(
    blocks: list[list[int]], prompt_tokens: NDArray[np.float64], adapter: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Prompt tokens that earlier requests of the same adapter had computed, (R,)."""
    seen: dict[int, set[int]] = {}
    cached = np.zeros(len(blocks))
    for row, ids in enumerate(blocks):
        cache = seen.setdefault(int(adapter[row]), set())
        hits = next((i for i, block in enumerate(ids) if block not in cache), len(ids))
        cached[row] = min(hits * BLOCK_TOKENS, prompt_tokens[row])
        cache.update(ids)
    return cached
