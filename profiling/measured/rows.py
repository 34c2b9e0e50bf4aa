"""Equations of the step-time law from recorded steps: steps of one run that are alike are one row, their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from profiling.fit.micro import Row
from profiling.record.files import Record
from twin.server.laws import step_terms

Array = NDArray[np.float64]
#: Edges between classes of decodes and of prompt tokens in a step: about 1.4 times the one before.
EDGES = np.unique(np.concatenate([np.arange(0, 12), np.geomspace(12, 65_536, 26).round()]))
#: Steps at which a row has half of its full weight.
HALF_WEIGHT = 10
#: A single step counts at most this many times the median of its class: the machine did something else.
OUTLIER = 10.0


def step_ms_without_loads(record: Record) -> Array:
    """Milliseconds of each step less its loads of adapters, (steps,)."""
    steps = record.steps
    start, end = steps["start_s"].to_numpy(), steps["end_s"].to_numpy()
    took = end - start
    loads = record.loads
    if len(loads):
        seconds = (loads["end_s"] - loads["start_s"]).to_numpy()
        where = np.searchsorted(end, loads["end_s"].to_numpy())
        inside = where < len(end)
        took = took - np.bincount(where[inside], weights=seconds[inside], minlength=len(end))
    return np.asarray(1000 * np.maximum(took, 0.0))


def rows_of(records: Sequence[Record], graph_tokens: float) -> list[Row]:
    """Rows of all runs; the group of a row is its run."""
    return [row for record in records for row in _rows(record, graph_tokens)]


def _rows(record: Record, graph_tokens: float) -> list[Row]:
    steps = record.steps
    ms = step_ms_without_loads(record)
    engine = record.about["engine"]
    slots, rank = float(engine["max_loras"]), float(engine["max_lora_rank"])
    classes = pd.DataFrame(
        {
            "decodes": np.searchsorted(EDGES, steps["decodes"], side="right"),
            "prompt": np.searchsorted(EDGES, steps["prompt"], side="right"),
            "adapters": steps["adapters"],
        }
    )
    rows = []
    for _, members in classes.groupby(["decodes", "prompt", "adapters"], sort=True).indices.items():
        took = ms[members]
        kept = members[took <= OUTLIER * np.median(took)]
        features = np.mean(
            [
                list(
                    step_terms(
                        decodes=s.decodes, prompt=s.prompt, kv_tokens=s.kv_tokens, adapters=s.adapters, slots=slots,
                        rank=rank, skipped=s.skipped, waiting=s.waiting, graph_tokens=graph_tokens,
                    ).values()
                )
                for s in steps.iloc[kept].itertuples()
            ],
            axis=0,
        )  # fmt: skip
        weight = len(kept) / (len(kept) + HALF_WEIGHT)
        rows.append(Row("run", record.name, features, float(ms[kept].mean()), weight))
    return rows
