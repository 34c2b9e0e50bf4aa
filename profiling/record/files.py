"""A recording on disk: a folder with one folder a run.

    session.json                 model, GPU, date
    runs/<run>/run.json          what was run, the server's flags and memory, when, what it was like
    runs/<run>/requests.parquet  a row a request: adapter, lengths, when sent, first and last token
    runs/<run>/steps.parquet     a row a step of the engine
    runs/<run>/loads.parquet     a row a load of an adapter

A run's folder appears when it is complete, under its final name: a recording that was killed has lost at most the run
that was going on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from twin.errors import InputError
from twin.files import write_text
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests

SCHEMA_VERSION = 1
STEP_COLUMNS = (
    "start_s", "end_s", "busy", "decodes", "prompt", "kv_tokens", "adapters", "running", "waiting", "skipped",
    "kv_usage", "preempted",
)  # fmt: skip
LOAD_COLUMNS = ("start_s", "end_s", "disk", "rank")


@dataclass(frozen=True, slots=True)
class Record:
    """One run, read back.

    Args:
        about: `run.json`.
        steps, loads: as in `STEP_COLUMNS` and `LOAD_COLUMNS`; times in seconds from the start of the window.
        first_token_s, finish_s: as the client saw them, inf = not within the window, (N,).
    """

    name: str
    about: Mapping[str, Any]
    requests: Requests
    first_token_s: np.ndarray[Any, np.dtype[np.float64]]
    finish_s: np.ndarray[Any, np.dtype[np.float64]]
    steps: pd.DataFrame
    loads: pd.DataFrame

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        return tuple(
            Adapter(a["adapter_id"], a["rank"], a["rate_req_per_s"], Lengths(max(1.0, a["prompt"]), 0.6),
                    Lengths(max(1.0, a["output"]), 0.6))
            for a in self.about["adapters"]
        )  # fmt: skip

    @property
    def horizon_s(self) -> float:
        return float(self.about["horizon_s"])

    @property
    def held_out(self) -> bool:
        return bool(self.about["held_out"])

    def setting(self, gpu_type: str) -> EngineSetting:
        """The server's flags."""
        e = self.about["engine"]
        return EngineSetting(
            gpu_type, e["max_loras"], e["max_lora_rank"], max_num_seqs=e["max_num_seqs"],
            max_num_batched_tokens=e["max_num_batched_tokens"], block_size=e["block_size"],
            max_model_len=e["max_model_len"], max_cpu_loras=e["max_cpu_loras"] or None,
            async_scheduling=e["async_scheduling"], tensor_parallel_size=e["tensor_parallel_size"],
        )  # fmt: skip


def write_run(folder: Path, name: str, about: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    """Writes a run; its folder takes its name when everything is in it."""
    final, temporary = folder / "runs" / name, folder / "runs" / f".{name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for kind, table in tables.items():
        table.to_parquet(temporary / f"{kind}.parquet", index=False)
    write_text(temporary / "run.json", json.dumps(dict(about), indent=1))
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)


def recorded(folder: Path) -> list[str]:
    """Names of the complete runs, in order."""
    return sorted(p.parent.name for p in (folder / "runs").glob("[!.]*/run.json"))


def read_session(folder: Path) -> dict[str, Any]:
    """`session.json` of a recording.

    Raises:
        InputError: the folder is no recording, or of another version.
    """
    try:
        session: dict[str, Any] = json.loads((folder / "session.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(folder)!r} is no recording: {error}",
            where=f"records = {folder}",
            remedy="make one: python -m profiling record",
        ) from error
    if session.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"the recording has schema_version {session.get('schema_version')!r}, known is {SCHEMA_VERSION}",
            where=str(folder / "session.json"),
            remedy="record again: python -m profiling record",
        )
    return session


def read_records(folder: Path) -> list[Record]:
    """All complete runs.

    Raises:
        InputError: the folder is no recording or has no complete run.
    """
    read_session(folder)
    names = recorded(folder)
    if not names:
        raise InputError(
            "the recording has no complete run", where=str(folder), remedy="go on: the same python -m profiling record"
        )
    return [_read(folder / "runs" / name) for name in names]


def _read(folder: Path) -> Record:
    try:
        about = json.loads((folder / "run.json").read_text())
        r = pd.read_parquet(folder / "requests.parquet")
        steps, loads = (pd.read_parquet(folder / f"{kind}.parquet") for kind in ("steps", "loads"))
        requests = Requests(
            r["arrival_s"].to_numpy(np.float64), r["adapter"].to_numpy(np.int32), r["prompt"].to_numpy(np.int32),
            np.zeros(len(r), np.int32), r["output"].to_numpy(np.int32),
        )  # fmt: skip
        return Record(
            folder.name, about, requests, r["first_token_s"].to_numpy(np.float64), r["finish_s"].to_numpy(np.float64),
            steps, loads,
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the run cannot be read: {error}", where=str(folder), remedy="delete its folder and record it again"
        ) from error


def lines_between(folder: Path, kind: str, columns: Sequence[str], start: float, end: float) -> pd.DataFrame:
    """What the probe wrote between two times of its clock; times from the first one on."""
    rows = []
    for path in sorted(folder.glob(f"{kind}-*.jsonl")):
        with path.open() as file:
            # The last line may be half written.
            rows += [row for line in file if line.endswith("]\n") and start <= (row := json.loads(line))[0] <= end]
    table = pd.DataFrame(sorted(rows), columns=list(columns), dtype=np.float64)
    table["start_s"] -= start
    table["end_s"] -= start
    return table
