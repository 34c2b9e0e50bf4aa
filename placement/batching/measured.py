"""A measured curve: one row a run, with vLLM's benchmark client's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from placement.batching.curves import Curve, CurvePoint
from twin.errors import InputError
from twin.sources.table import Table, read_table

REQUIRED = ("max_num_seqs", "req_throughput_rps", "itl_mean_ms", "tpot_mean_ms")
OPTIONAL = (
    "model", "preemptions", "steady_step_ms", "kv_usage_max", "kv_capacity_tokens", "replicas", "status", "run_id",
    "output_len", "total_input_tokens", "total_output_tokens", "completed", "chunked_prefill", "gpu_sharing",
    "experiment", "steady_running_mean", "max_num_batched_tokens", "steady_kv_usage_mean", "steady_prompt_tok_s",
)  # fmt: skip
#: The file of a folder of published measurements that holds the online runs.
DEFAULT_FILE = "background.csv"


def read_runs(path: Path) -> Table:
    """Rows of a table of runs.

    Raises:
        InputError: the file is missing or malformed.
    """
    return read_table(path, REQUIRED, OPTIONAL, what="table of runs", extra_columns=True)


def column(table: Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A column of numbers; NaN where empty or absent."""
    return table.numbers(name, empty=np.nan) if name in table else np.full(len(table), np.nan)


def point(table: Table, row: int) -> CurvePoint:
    """One run. `preempting` if it preempted anything."""
    values = {name: float(column(table, name)[row]) for name in (*REQUIRED, "preemptions", "steady_step_ms")}
    usage, capacity = column(table, "kv_usage_max")[row], column(table, "kv_capacity_tokens")[row]
    replicas = column(table, "replicas")[row]
    return CurvePoint(
        batch=int(values["max_num_seqs"]),
        throughput_req_per_s=values["req_throughput_rps"],
        itl_ms=values["itl_mean_ms"],
        tpot_ms=values["tpot_mean_ms"],
        step_ms=values["steady_step_ms"],
        kv_peak_tokens=float(usage * capacity),
        busy_share=float("nan"),
        preempting=values["preemptions"] > 0,
        servers=1 if np.isnan(replicas) else int(replicas),
    )


def measured_curve(path: Path, model: str) -> Curve:
    """The runs of one server of a model.

    Raises:
        InputError: the file is missing, malformed, or has no run of the model.
    """
    file = path / DEFAULT_FILE if path.is_dir() else path
    table = read_runs(file)
    models = table.texts("model") if "model" in table else [model] * len(table)
    throughput, replicas = column(table, "req_throughput_rps"), column(table, "replicas")
    rows = [
        i for i in range(len(table))
        if models[i] == model and not np.isnan(throughput[i]) and (np.isnan(replicas[i]) or replicas[i] == 1)
    ]  # fmt: skip
    points = sorted((point(table, i) for i in rows), key=lambda p: p.batch)
    if not points:
        raise InputError(
            f"no run of {model!r}", where=str(file),
            remedy=f"the file holds: {', '.join(sorted(set(models)))}",
        )  # fmt: skip
    batches = [p.batch for p in points]
    if len(set(batches)) < len(batches):
        raise InputError(
            f"several runs of {model!r} at one batch limit", where=str(file), remedy="give one run a batch limit"
        )
    return Curve("measured", tuple(points), (f"measured: {file}",))
