"""The single-GPU task against measured optima: slots and adapters with the largest throughput without starvation.

    python -m benchmarks.optimum data=FOLDER [seed=0]

For every workload of `placement_real_optimum.csv` (arXiv 2508.08343) the optimum is found again by the twin on the
measured grid, with the publication's rule. `regret` is what choosing the found setting costs on the real machine: 1 -
measured throughput there / measured optimum, and all of it where that setting did not run.
Headline shares leave nothing out; workloads whose fewest adapters starve already are marked.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from surrogates.optimum import OptimumCommand, Point, best_points
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError
from twin.server.calibration import load_calibration

CALIBRATIONS = {
    "llama-3.1-8b-instruct": "llama-3.1-8b-h100-64gb",
    "qwen-2.5-7b-instruct": "qwen2.5-7b-h100-64gb",
}
OPTIMA, RUNS = "placement_real_optimum.csv", "placement_real_test.csv"


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    data: str
    seed: Annotated[int, Range(0)] = 0


def folder_of(data: str) -> Path:
    """The folder that holds both tables.

    Raises:
        InputError: there is none.
    """
    for folder in (Path(data), Path(data) / "adapter_serving"):
        if (folder / OPTIMA).is_file() and (folder / RUNS).is_file():
            return folder
    raise InputError(f"{data!r} holds no {OPTIMA} and {RUNS}", where="data", remedy="name the folder of measured runs")


def chosen(points: Sequence[Point]) -> Point:
    """The optimum, as the publication defines it: where even the fewest adapters starve, those count."""
    served = [p for p in points if p.adapters]
    if served:
        return max(served, key=lambda p: (p.throughput_tps, -p.slots))
    starved = [p for p in points if p.starves_at is not None]
    return min(starved, key=lambda p: p.slots)


def row_of(measured: Any, runs: Any, seed: int) -> dict[str, Any]:
    """One workload: found and measured optimum, and what the found one gives on the real machine."""
    options = OptimumCommand(
        calibration=CALIBRATIONS[measured.model],
        rates=tuple(float(r) for r in measured.rates.split()),
        ranks=tuple(int(r) for r in measured.ranks.split()),
        seed=seed,
    )
    found = chosen(best_points(options, load_calibration(options.calibration)))
    adapters = found.adapters or found.starves_at
    same = runs[
        (runs.model == measured.model)
        & (runs.workload == measured.workload)
        & (runs.max_loras == found.slots)
        & (runs.num_adapters == adapters)
    ]
    real = float(same.total_throughput_tps.iloc[0]) if len(same) else 0.0
    real = 0.0 if math.isnan(real) else real
    return {
        "model": measured.model,
        "workload": measured.workload,
        "measured": [int(measured.strict_slots), int(measured.strict_served_adapters)],
        "found": [found.slots, int(adapters or 0)],
        "measured_tps": float(measured.strict_throughput_tps),
        "found_tps": found.throughput_tps,
        "real_tps_there": real,
        "regret": max(0.0, 1 - real / float(measured.strict_throughput_tps)),
        "starves_at_once": not bool(measured.optimum_is_non_starved),
    }


def run(options: Options) -> int:
    import pandas as pd

    folder = folder_of(options.data)
    runs = pd.read_csv(folder / RUNS)
    began = time.perf_counter()
    rows = []
    print(
        f"{'model':22s} {'workload':42s} {'measured':>12s} {'found':>12s} {'tokens/s':>9s} {'there':>8s} {'regret':>7s}"
    )
    for measured in pd.read_csv(folder / OPTIMA).itertuples():
        row = row_of(measured, runs, options.seed)
        rows.append(row)
        pairs = [f"{n} on {slots}" for slots, n in (row["measured"], row["found"])]
        print(
            f"{row['model']:22s} {row['workload']:42s} {pairs[0]:>12s} {pairs[1]:>12s} {row['measured_tps']:9,.0f} "
            f"{row['real_tps_there']:8,.0f} {100 * row['regret']:5.1f} %" + (" *" if row["starves_at_once"] else ""),
            flush=True,
        )
    print("adapters on slots; * even the fewest adapters starve on the real machine")
    summary = {
        "workloads": len(rows),
        "same_adapters_and_slots": sum(r["found"] == r["measured"] for r in rows) / len(rows),
        "same_adapters": sum(r["found"][1] == r["measured"][1] for r in rows) / len(rows),
        "mean_regret": sum(r["regret"] for r in rows) / len(rows),
        "largest_regret": max(r["regret"] for r in rows),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(summary))
    return 0


APP = command("benchmarks.optimum", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
