"""Published one-hour runs of a real server (`twin_validation_real.csv`, `placement_real_test.csv`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from twin.errors import InputError

#: Tables of one-hour runs; a folder may hold either or both.
TABLES = ("twin_validation_real", "placement_real_test")
#: Slot count and rank are what a run was started with; `no_metrics` and crashes have NaN figures.
METRICS = (
    "total_throughput_tps", "in_throughput_tps", "out_throughput_tps", "tpot_mean_ms", "itl_mean_ms",
    "ttft_mean_completed_ms", "ttft_p50_completed_ms", "ttft_p99_completed_ms", "running_mean", "waiting_mean",
    "kv_usage_mean", "preemptions_total", "throughput_over_ideal", "completed", "duration_s", "total_output_tokens",
    "ttft_authors_ms", "sampling_interval_median_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run: what was served, under which setting, and what came out.

    Args:
        table: name of the table it comes from.
        group: model and workload it belongs to (cross-validation never splits one).
        rates, ranks: adapter i gets `rates[i % len(rates)]`; ranks likewise, then shuffled.
        prompt_mean, output_mean: of the prompt pool, in tokens.
        metrics: columns named in `METRICS`, NaN where the run has none.
        started: False for a memory error, None where the run says nothing about it.
        arrivals: requests sent, exact or estimated; NaN where unknown.
    """

    run_id: str
    table: str
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
    """All runs of a table (without `.csv`) whose adapters the right client saw (swapped clients are left out)."""
    table = read_table(folder, f"{name}.csv")
    group = "subset" if "subset" in table else "workload"
    pools = table.groupby("model")[["pool_mean_input_tokens", "pool_mean_output_tokens"]].mean()
    return [
        _run(row, name, str(row[group]), pools.loc[row["model"]])
        for row in table.to_dict("records")
        if str(row["port_collision"]) != "True"  # the column may hold NaN
    ]


def read_all_runs(folder: Path, say: Callable[[str], None] = print) -> list[MeasuredRun]:
    """Runs of both tables; a table that the folder lacks is named and skipped.

    Raises:
        InputError: the folder has neither.
    """
    present = [name for name in TABLES if (folder / f"{name}.csv").is_file()]
    for name in TABLES:
        if name not in present:
            say(f"{name}.csv is not in {folder}: its runs are left out")
    if not present:
        read_table(folder, f"{TABLES[0]}.csv")
    return [run for name in present for run in read_runs(folder, name)]


def records(table: pd.DataFrame) -> list[Any]:
    """Rows as named tuples; cells have whatever type the file gave them."""
    return list(table.itertuples())


def _numbers(text: Any) -> tuple[float, ...]:
    return tuple(float(word) for word in str(text).split())


def _run(row: Mapping[Any, Any], table: str, group: str, pool: Any) -> MeasuredRun:
    prompt, output = row["pool_mean_input_tokens"], row["pool_mean_output_tokens"]
    crashed, no_metrics = bool(row["crashed_memory"]), bool(row["no_metrics"])
    arrivals = row["arrivals"] if "arrivals" in row else float("nan")
    if not math.isfinite(arrivals):
        arrivals = row["requests_sent_est"] if row["requests_sent_source"] != "nominal" else float("nan")
    return MeasuredRun(
        run_id=str(row["run_id"]),
        table=table,
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
        metrics={key: float(row[key]) if key in row else float("nan") for key in METRICS},
    )


def fold_of(runs: Sequence[MeasuredRun], fold: str) -> tuple[list[MeasuredRun], list[MeasuredRun]]:
    """Splits whole workloads: `i/k` gives (runs of fold i, all others); an empty fold is (all, all).

    Workloads of one model are dealt out in order of their names, so a fit without fold i has never seen a rate or
    rank mix that fold i is scored on.

    Raises:
        InputError: not `i/k` with 0 <= i < k.
    """
    if not fold:
        return list(runs), list(runs)
    first, _, second = fold.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise InputError(f"fold={fold} is not i/k with 0 <= i < k", remedy="use e.g. fold=0/2")
    i, k = int(first), int(second)
    number = {
        group: n % k
        for model in sorted({r.model for r in runs})
        for n, group in enumerate(sorted({r.group for r in runs if r.model == model}))
    }
    return [r for r in runs if number[r.group] == i], [r for r in runs if number[r.group] != i]


def thin(runs: Sequence[MeasuredRun], every: int) -> list[MeasuredRun]:
    """Every n-th run, for a quick look."""
    return list(runs[::every])
