"""Published one-hour runs of a real server (`twin_validation_real.csv`, `placement_real_test.csv`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from twin.errors import InputError

#: Slot count and rank are what a run was started with; `no_metrics` and crashes have NaN figures.
METRICS = (
    "total_throughput_tps", "in_throughput_tps", "out_throughput_tps", "tpot_mean_ms", "itl_mean_ms",
    "ttft_mean_completed_ms", "ttft_p50_completed_ms", "ttft_p99_completed_ms", "running_mean", "waiting_mean",
    "kv_usage_mean", "preemptions_total", "throughput_over_ideal", "completed", "duration_s", "total_output_tokens",
    "ttft_authors_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run: what was served, under which setting, and what came out.

    Args:
        group: the workload it belongs to (cross-validation never splits one).
        rates, ranks: adapter i gets `rates[i % len(rates)]`; ranks likewise, then shuffled.
        prompt_mean, output_mean: of the prompt pool, in tokens.
        metrics: columns named in `METRICS`, NaN where the run has none.
        started: False for a memory error, None where the run says nothing about it.
        arrivals: requests sent, exact or estimated; NaN where unknown.
    """

    run_id: str
    group: str
    model: str
    max_loras: int
    num_adapters: int
    max_lora_rank: int
    rates: tuple[float, ...]
    ranks: tuple[int, ...]
    prompt_mean: float
    output_mean: float
    arrivals: float
    started: bool | None
    starved: bool | None
    metrics: Mapping[str, float]

    @property
    def usable(self) -> bool:
        """Whether the run has figures to compare with."""
        return all(math.isfinite(self.metrics[key]) for key in ("total_throughput_tps", "running_mean", "tpot_mean_ms"))

    @property
    def rate_req_per_s(self) -> float:
        k = len(self.rates)
        return math.fsum(self.rates[i % k] for i in range(self.num_adapters))

    @property
    def step_ms(self) -> float:
        """Mean step time seen by a running request: running mean / output token rate, ms."""
        return 1000.0 * self.metrics["running_mean"] / self.metrics["out_throughput_tps"]


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of the data folder.

    Raises:
        InputError: the folder does not have it.
    """
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"{name} is not in the data folder", where=str(folder), remedy="give data=<folder> with the published runs"
        )
    return pd.read_csv(path)


def read_runs(folder: Path, name: str) -> list[MeasuredRun]:
    """All runs of a table whose adapters the right client saw (swapped clients are left out)."""
    table = read_table(folder, name)
    group = "subset" if "subset" in table else "workload"
    pools = table.groupby("model")[["pool_mean_input_tokens", "pool_mean_output_tokens"]].mean()
    return [
        _run(row, str(row[group]), pools.loc[row["model"]])
        for row in table.to_dict("records")
        if str(row["port_collision"]) != "True"  # the column may hold NaN
    ]


def records(table: pd.DataFrame) -> list[Any]:
    """Rows as named tuples; cells have whatever type the file gave them."""
    return list(table.itertuples())


def _numbers(text: Any) -> tuple[float, ...]:
    return tuple(float(word) for word in str(text).split())


def _run(row: Mapping[Any, Any], group: str, pool: Any) -> MeasuredRun:
    prompt, output = row["pool_mean_input_tokens"], row["pool_mean_output_tokens"]
    crashed, no_metrics = bool(row["crashed_memory"]), bool(row["no_metrics"])
    arrivals = row["arrivals"] if "arrivals" in row else float("nan")
    if not math.isfinite(arrivals):
        arrivals = row["requests_sent_est"] if row["requests_sent_source"] != "nominal" else float("nan")
    return MeasuredRun(
        run_id=str(row["run_id"]),
        group=f"{row['model']}/{group}",
        model=str(row["model"]),
        max_loras=int(row["max_loras"]),
        num_adapters=int(row["num_adapters"]),
        max_lora_rank=int(row["max_lora_rank"]),
        rates=_numbers(row["rates"]),
        ranks=tuple(int(r) for r in _numbers(row["ranks"])),
        prompt_mean=float(prompt if math.isfinite(prompt) else pool.iloc[0]),
        output_mean=float(output if math.isfinite(output) else pool.iloc[1]),
        arrivals=float(arrivals),
        started=False if crashed else (None if no_metrics else True),
        starved=None if no_metrics or not math.isfinite(row["throughput_over_ideal"]) else bool(row["starved"]),
        metrics={key: float(row[key]) for key in METRICS},
    )


def fold_of(runs: Sequence[MeasuredRun], fold: str) -> tuple[list[MeasuredRun], list[MeasuredRun]]:
    """Splits for cross-validation: `i/k` gives (runs of fold i, all others); an empty fold is (all, all).

    Settings of one workload are neighbours in the tables, so every fold sees all of them.

    Raises:
        InputError: not `i/k` with 0 <= i < k.
    """
    if not fold:
        return list(runs), list(runs)
    first, _, second = fold.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise InputError(f"fold={fold} is not i/k with 0 <= i < k", remedy="use e.g. fold=0/2")
    i, k = int(first), int(second)
    inside = [r for n, r in enumerate(runs) if n % k == i]
    return inside, [r for n, r in enumerate(runs) if n % k != i]


def thin(runs: Sequence[MeasuredRun], every: int) -> list[MeasuredRun]:
    """Every n-th run, for a quick look."""
    return list(runs[::every])
