"""Runs of one's own server, for the fit of a derived calibration: a table with a row for each steady window.

Columns, means over the window as vLLM's `/metrics` gives them:

    running                  vllm:num_requests_running
    output_tokens_per_s      rate of vllm:generation_tokens_total
    prompt_tokens_per_s      rate of vllm:prompt_tokens_total
    kv_cache_tokens          "GPU KV cache size" in the server's log
    kv_usage                 vllm:kv_cache_usage_perc, 0..1
    adapters                 adapters that had traffic
    max_loras, max_lora_rank flags of the server
    waiting                  vllm:num_requests_waiting; optional

The step time follows from Little's law: in a window without a queue of prompts every running request gets a token a
step, so a step takes `running / output_tokens_per_s`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiling.fit.micro import Row, features
from twin.errors import InputError

COLUMNS = (
    "running", "output_tokens_per_s", "prompt_tokens_per_s", "kv_cache_tokens", "kv_usage", "adapters", "max_loras",
    "max_lora_rank",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Runs:
    """Equations of the fit, and what the servers said of their KV cache.

    Args:
        capacities: (max_loras, max_lora_rank, tokens) of each run.
    """

    rows: tuple[Row, ...]
    capacities: tuple[tuple[int, int, int], ...]


def read_own_runs(path: str | Path) -> Runs:
    """Reads the table.

    Raises:
        InputError: it cannot be read, lacks a column or a row, or holds what is no number above 0.
    """
    try:
        with Path(path).expanduser().open(newline="") as file:
            table = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the runs cannot be read: {error}", where=f"runs = {path}", remedy="give a CSV file"
        ) from error
    if not table:
        raise InputError("the table of runs has no row", where=str(path), remedy=f"columns: {', '.join(COLUMNS)}")
    missing = [name for name in COLUMNS if name not in table[0]]
    if missing:
        raise InputError(
            f"the table of runs lacks {', '.join(missing)}", where=str(path), remedy=f"columns: {', '.join(COLUMNS)}"
        )
    numbers = [_numbers(row, f"{path}, row {i + 1}") for i, row in enumerate(table)]
    return Runs(
        tuple(_row(n) for n in numbers),
        tuple((int(n["max_loras"]), int(n["max_lora_rank"]), int(n["kv_cache_tokens"])) for n in numbers),
    )


def capacity_bytes(
    capacities: Sequence[tuple[int, int, int]], reserved: Mapping[tuple[int, int], int], bytes_per_token: int
) -> int:
    """Memory for weights, slots and KV cache that the servers' own words add up to, median over the runs.

    Args:
        reserved: (max_loras, max_lora_rank) -> bytes of weights and slots.
    """
    found = sorted(tokens * bytes_per_token + reserved[slots, rank] for slots, rank, tokens in capacities)
    return found[len(found) // 2]


def _numbers(row: Mapping[str, str | None], where: str) -> dict[str, float]:
    found = {}
    for name in (*COLUMNS, "waiting"):
        text = row.get(name) or ("0" if name in ("waiting", "prompt_tokens_per_s", "adapters") else "")
        try:
            found[name] = float(text)
        except ValueError as error:
            raise InputError(f"{name} = {text!r} is no number", where=where, remedy="give a number") from error
    for name in ("running", "output_tokens_per_s", "kv_cache_tokens", "max_loras", "max_lora_rank"):
        if not 0 < found[name] < float("inf"):
            raise InputError(f"{name} = {found[name]:g} is not above 0", where=where, remedy="leave idle windows out")
    return found


def _row(n: Mapping[str, float]) -> Row:
    """The equation of a run: features of its mean step, and the step's time."""
    running = n["running"]
    step_s = running / n["output_tokens_per_s"]
    adapters = n["adapters"]
    # Distinct adapters in a batch of requests that choose theirs alike often, at most one a slot.
    distinct = adapters * (1 - (1 - 1 / adapters) ** running) if adapters > 1 else adapters
    x = features(
        running,
        n["prompt_tokens_per_s"] * step_s,
        n["kv_usage"] * n["kv_cache_tokens"],
        min(distinct, n["max_loras"]),
        slots=n["max_loras"],
        rank=n["max_lora_rank"],
        waiting=n["waiting"],
    )
    return Row("run", "own", x, 1000 * step_s)
