"""Azure LLM inference traces (2023 and later): time, prompt and output tokens of each request, no tenant.

Source: Azure/AzurePublicDataset, CC-BY-4.0; cite Splitwise (ISCA 2024). Columns
`TIMESTAMP,ContextTokens,GeneratedTokens`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twin.sources.tables.layout import Form
from twin.sources.traces.source import Deal, find_file
from twin.sources.traces.trace import dealt_log
from twin.workload.workload import Workload


def read_azure(
    path: str | Path,
    trace: str = "conv",
    n_adapters: int = 200,
    exponent: float = 1.0,
    ranks: Any = (8, 16, 32),
    rank_weights: Any = None,
    total_rate_req_per_s: float | None = 40.0,
    max_request_tokens: int | None = 8192,
    seed: int = 0,
    length_shape: str = "gamma",
) -> Workload:
    """A workload whose requests are those of the trace, dealt to adapters at random (`dealt_workload`).

    Args:
        path: the trace file, or the folder that holds it.
        trace: `conv` or `code`, where `path` is a folder.
        n_adapters, exponent: how many adapters share the requests, with shares ~ popularity rank ** -exponent.
        ranks, rank_weights: LoRA ranks and their relative frequencies (None = equal).
        total_rate_req_per_s: rates are scaled to this total; None = as recorded (conv 5.5, code 2.6 req/s).
        max_request_tokens: longer requests are cut to this (said in the notes); None = never.
        seed: of the dealing.
        length_shape: `gamma`, `lognormal`, `constant`, `published`, or `empirical` (`twin.traffic.length_shapes`).

    Raises:
        InputError: names file, line, column, value and remedy.
    """
    deal = Deal(n_adapters, exponent, ranks, rank_weights, total_rate_req_per_s, max_request_tokens, seed, length_shape)
    file = find_file(
        path,
        [f"AzureLLMInferenceTrace_{trace}.csv", f"AzureLLMInferenceTrace_{trace}.csv.gz"],
        "azure_llm_2023",
        what="Azure trace",
        choices="conv, code",
    )
    return dealt_log(file, deal, Form(), what="Azure trace")
