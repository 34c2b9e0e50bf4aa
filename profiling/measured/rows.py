"""Equations of the step-time law from recorded steps: steps of one run that are alike are one row, their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
    return [
        row
        for record in records
        for row in (_rows(record, graph_tokens) if len(record.steps) else _mean_row(record, graph_tokens))
    ]


def _mean_row(record: Record, graph_tokens: float) -> list[Row]:
    """The one row of a run without steps: its mean batch, by Little's law, and its mean time between tokens."""
    r, engine = record.requests, record.about["engine"]
    done = np.isfinite(record.finish_s)
    decode_s = float((record.finish_s[done] - record.first_token_s[done]).sum())
    gaps = float((r.output[done] - 1).sum())
    if decode_s <= 0 or gaps <= 0:
        return []
    step_s, running = decode_s / gaps, decode_s / record.horizon_s
    kv_tokens = running * float((r.prompt[done] + r.output[done] / 2).mean())
    ranked = sum(a.rank > 0 for a in record.adapters)
    distinct = ranked * (1 - (1 - 1 / ranked) ** running) if ranked > 1 else float(ranked)
    numbers = (running, float(r.prompt[done].sum()) / record.horizon_s * step_s, kv_tokens,
               min(distinct, engine["max_loras"]), 0.0, 0.0)  # fmt: skip
    terms = _terms(numbers, float(engine["max_loras"]), float(engine["max_lora_rank"]), graph_tokens)
    return [Row("run", record.name, np.array(terms), 1000 * step_s)]


def _rows(record: Record, graph_tokens: float) -> list[Row]:
    steps = record.steps
    ms = step_ms_without_loads(record)
    engine = record.about["engine"]
    slots, rank = float(engine["max_loras"]), float(engine["max_lora_rank"])
    sizes = (np.searchsorted(EDGES, steps[name].to_numpy(), side="right") for name in ("decodes", "prompt"))
    _, classes = np.unique(np.stack([*sizes, steps["adapters"].to_numpy()]), axis=1, return_inverse=True)
    rows = []
    numbers = steps[["decodes", "prompt", "kv_tokens", "adapters", "skipped", "waiting"]].to_numpy(np.float64)
    terms = np.array([_terms(row, slots, rank, graph_tokens) for row in numbers.tolist()])
    for members in np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1]):
        took = ms[members]
        kept = members[took <= OUTLIER * np.median(took)]
        features = terms[kept].mean(axis=0)
        weight = len(kept) / (len(kept) + HALF_WEIGHT)
        rows.append(Row("run", record.name, features, float(ms[kept].mean()), weight))
    return rows


def _terms(row: Sequence[float], slots: float, rank: float, graph_tokens: float) -> list[float]:
    decodes, prompt, kv_tokens, adapters, skipped, waiting = row
    terms = step_terms(
        decodes=decodes, prompt=prompt, kv_tokens=kv_tokens, adapters=adapters, slots=slots, rank=rank,
        skipped=skipped, waiting=waiting, graph_tokens=graph_tokens,
    )  # fmt: skip
    return list(terms.values())
