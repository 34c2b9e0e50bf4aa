"""Micro-benchmark rows for the step-time law: controlled batches on an otherwise idle server.

Features of a row are the law's terms (`TERMS`), so that `features @ coefficients` is a step time in ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from profiling.published.runs import read_table, records
from twin.server.laws import STEP_TERMS, step_terms

Array = NDArray[np.float64]
TERMS = STEP_TERMS
GRAPH_TOKENS = 512.0
#: Steps of the engine warming up are minutes long; a bin needs a few more to have a median.
LEAST_STEPS = 5
#: Experiments whose bins tell batch and adapters apart.
TRACED = ("lora", "no_lora_base", "find_max_batch")
#: The micro-benchmarks' "one word" prompts, in tokens.
WORD_PROMPT_TOKENS = 5


def features(
    decodes: float, prompt: float, kv_tokens: float, adapters: float, *, slots: float = 0.0, rank: float = 0.0,
    skipped: float = 0.0, waiting: float = 0.0,
) -> Array:  # fmt: skip
    """Terms of the step-time law for one step, (21,), in the order of `STEP_TERMS`."""
    terms = step_terms(
        decodes=decodes, prompt=prompt, kv_tokens=kv_tokens, adapters=adapters, slots=slots, rank=rank, skipped=skipped,
        waiting=waiting, graph_tokens=GRAPH_TOKENS,
    )  # fmt: skip
    return np.array(list(terms.values()))


@dataclass(frozen=True, slots=True)
class Row:
    """One equation of the fit: `features @ coefficients = target_ms`.

    Args:
        kind: `base`, `lora`, `prefill` or `run`.
        group: rows of one group stay together in cross-validation.
    """

    kind: str
    group: str
    features: Array
    target_ms: float
    weight: float = 1.0


def read_micro(folder: Path, model: str) -> list[Row]:
    """Rows of the base-latency runs and of the binned step traces of one model."""
    base = read_table(folder, "calibration_base_latency.csv")
    trace = read_table(folder, "calibration_step_trace_bins.csv")
    lora = read_table(folder, "calibration_lora_overhead.csv")
    return [
        *_base_rows(base[(base["model"] == model) & base["step_ms_p50"].notna()]),
        *_trace_rows(trace[trace["model"] == model]),
        *_overhead_rows(lora[(lora["model"] == model) & (lora["experiment"] == "lora")]),
    ]


def _base_rows(table: pd.DataFrame) -> list[Row]:
    rows = []
    for r in records(table):
        if r.phase == "output":
            batch = float(r.set_max_num_seqs)
            kv = batch * (WORD_PROMPT_TOKENS + r.req_output_len_set / 2)
            rows.append(Row("base", "micro", features(batch, 0, kv, 0, waiting=r.mean_waiting), float(r.step_ms_p50)))
        else:
            # Full chunks of the token budget; every request leaves after its first token.
            rows.append(Row("prefill", "micro", features(0, 2048, 2048, 0), float(r.step_ms_p50)))
    return rows


def _run_numbers(run: str) -> list[int]:
    return [int(word) for word in run.replace("_", " ").split()]


def _trace_rows(table: pd.DataFrame) -> list[Row]:
    """Run names are `_cap_slots_rank__in_out_adapters` (LoRA), `_cap__in_out` or `_slots_rank__in_out`."""
    rows = []
    usable = table[(table["n_steps"] >= LEAST_STEPS) & table["tokens_mean"].notna()]
    for r in records(usable[usable["experiment"].isin(TRACED)]):
        numbers = _run_numbers(r.run)
        cap = 256 if r.experiment == "find_max_batch" else numbers[0]
        n_in, n_out = (numbers[3], numbers[4]) if r.experiment == "lora" else (numbers[-2], numbers[-1])
        words = WORD_PROMPT_TOKENS if n_in == 1 else 110
        # Admitted requests stand in for the decodes that finished: T = (cap - k) + k * prompt.
        admitted = max(0.0, (r.tokens_mean - cap) / (words - 1))
        prompt = min(admitted * words, r.tokens_mean) if admitted else 0.0
        decodes = r.tokens_mean - prompt
        slots, rank = (float(r.max_loras), 8.0) if r.adapters_mean > 0 else (0.0, 0.0)
        kv = decodes * (words + n_out / 2) + prompt
        x = features(decodes, prompt, kv, r.adapters_mean, slots=slots, rank=rank, waiting=0.0)
        # The bins of one run share its many steps; rare bins say less.
        weight = 1.0 if r.n_steps >= 100 else 0.4
        rows.append(Row("lora" if slots else "base", "micro", x, float(r.step_ms_p50), weight))
    return rows


def _overhead_rows(table: pd.DataFrame) -> list[Row]:
    """Runs without a step trace: inter-token latency at the mean batch; distinct adapters by random choice."""
    rows = []
    for r in records(table[table["mean_loras_by_batch"].isna() & table["mean_itl_ms"].notna()]):
        batch = float(r.mean_batch)
        adapters = float(r.n_adapters_used) * (1.0 - (1.0 - 1.0 / r.n_adapters_used) ** batch)
        kv = batch * (WORD_PROMPT_TOKENS + r.req_output_len_set / 2)
        x = features(batch, 0, kv, adapters, slots=float(r.max_loras), rank=float(r.max_lora_rank))
        rows.append(Row("lora", "micro", x, float(r.mean_itl_ms), 0.4))
    return rows
