"""Fits the KV capacity law and the adapter load times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiling.published.models import MeasuredModel
from profiling.published.runs import read_table
from twin.server.laws import KvCapacityLaw, LoadLaw
from twin.server.slots import reserved_bytes

BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class CapacityFit:
    """The law and how far it is off.

    Args:
        errors: `(max_loras, max_lora_rank, measured tokens, law - measured)` of every row with a capacity.
        memory_errors_right: share of rows, crashes included, whose start or refusal the law gets right.
    """

    law: KvCapacityLaw
    errors: tuple[tuple[int, int, int, int], ...]
    memory_errors_right: float
    rows: int

    @property
    def worst_pct(self) -> float:
        """Largest relative error, percent."""
        return max(100 * abs(e) / k for _, _, k, e in self.errors)


def fit_capacity(folder: Path, model: MeasuredModel) -> CapacityFit:
    """One free number (the memory that activations and the driver leave) from the rows that started.

    The straight line beside it is what remains where the model's shape is unknown.
    """
    table = read_table(folder, "calibration_kv_capacity.csv")
    table = table[table["model"] == model.spec.name]
    per_token = model.spec.kv_bytes_per_token
    slots, ranks = table["max_loras"].to_numpy(int), table["max_lora_rank"].to_numpy(int)
    tokens = table["kv_cache_tokens"].to_numpy(float)
    reserved = np.array([reserved_bytes(model.shape, int(m), int(r)) for m, r in zip(slots, ranks, strict=True)])
    known = np.isfinite(tokens)
    free_bytes = int(np.median(tokens[known] * per_token + reserved[known]))
    design = np.column_stack([np.ones(known.sum()), slots[known] * ranks[known], slots[known]])
    line, *_ = np.linalg.lstsq(design, tokens[known], rcond=None)
    law = KvCapacityLaw(
        round(float(line[0]), 1), round(float(-line[1]), 4), round(float(-line[2]), 3), free_bytes, model.shape
    )
    predicted = np.array(
        [
            max(0, int(law.tokens(int(m), int(r), per_token) // BLOCK_TOKENS)) * BLOCK_TOKENS
            for m, r in zip(slots, ranks, strict=True)
        ]
    )
    starts = predicted >= model.spec.max_model_len
    errors = tuple(
        (int(m), int(r), int(k), int(p - k))
        for m, r, k, p, ok in zip(slots, ranks, tokens, predicted, known, strict=True)
        if ok
    )
    # A row with a capacity came that far; only its time limit ended it.
    return CapacityFit(law, errors, float((starts == known).mean()), len(table))


def fit_loads(folder: Path, model: MeasuredModel) -> LoadLaw:
    """Mean copy from host memory to a slot of a serving engine, and a line in the rank through loads from disk.

    Loads from disk: medians of 50 by rank, while the server starts. Means hold one first touch of a file each
    (Llama rank 32: 885 ms against 126 ms), which the page cache spares all others.
    """
    table = read_table(folder, "calibration_adapter_loading_summary.csv")
    table = table[table["model"] == model.spec.name]
    rows = table[(table["source"] == "cpu_memory") & ~table["during_server_init"]]
    equal = rows["adapter_rank"] == rows["max_lora_rank"]
    disk = table[table["source"] == "disk"]
    slope, base = np.polyfit(disk["adapter_rank"].to_numpy(float), disk["median"].to_numpy(float), 1)
    return LoadLaw(
        round(float(rows[equal]["mean"].mean()), 3),
        round(float(rows[~equal]["mean"].mean()), 3),
        disk_base_ms=round(max(0.0, float(base)), 3),
        disk_rank_ms=round(max(0.0, float(slope)), 4),
    )
