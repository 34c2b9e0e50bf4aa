"""How close the twin is to real one-hour runs of vLLM multi-LoRA serving.

    python -m benchmarks.twin_fidelity data=<folder> [seeds=5] [every=1] [threads=2] [fold=i/k] [calibrations=<folder>]

Every run of `twin_validation_real.csv` and `placement_real_test.csv` is simulated for its hour from its flags, rates
and mean lengths alone; definitions in docs/calibration.md. A folder may hold one of the tables only. The shipped
calibrations were fitted on published runs of both: on those rows this shows how well the law *fits*, on others it is a
prediction. `fold=i/k` scores the workloads that `python -m profiling fit fold=i/k` left out; `python -m profiling
crossvalidate` does all folds. `every=10` is a quick look.
Not measured: GPUs, engines and models other than these; tails per adapter (the data have none).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from profiling.published.fidelity import Comparison, compare_all, f1, memory_scores, scores, smape
from profiling.published.models import MEASURED_MODELS
from profiling.published.replay import Rig
from profiling.published.reports import by_table, print_scores
from profiling.published.runs import TABLES, MeasuredRun, fold_of, read_all_runs, read_table, thin
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.figures.health import STARVATION_THRESHOLD
from twin.server.calibration import calibration_dir, load_calibration

PUBLISHED_TWIN = "twin_validation_authors_dt.csv"


def published_twin(folder: Path, runs: Sequence[MeasuredRun], rows: Sequence[Comparison]) -> dict[str, Any] | None:
    """The published twin on the rows where it ran, and ours on the same rows; None if it ran on none of them.

    It replays the true arrivals and caps its queue at the real run's maximum; ours knows neither.
    """
    table = read_table(folder, PUBLISHED_TWIN)
    theirs = table[table["dt_ok"]].set_index("run_id")
    both = [r for r in runs if r.usable and r.run_id in theirs.index]
    if not both:
        return None
    dt = theirs.loc[[r.run_id for r in both]]
    measured = {
        key: [r.metrics[key] for r in both] for key in ("total_throughput_tps", "itl_mean_ms", "ttft_authors_ms")
    }
    ideal = [r.metrics["total_throughput_tps"] / r.metrics["throughput_over_ideal"] for r in both]
    label = [bool(t / i < STARVATION_THRESHOLD) for t, i in zip(dt["dt_total_throughput_tps"], ideal, strict=True)]
    facts = [bool(r.starved) for r in both]
    shared = {r.run_id for r in both}
    return {
        "runs": len(both),
        "throughput_smape": round(smape(dt["dt_total_throughput_tps"].to_list(), measured["total_throughput_tps"]), 3),
        "itl_smape": round(smape(dt["dt_itl_ms"].to_list(), measured["itl_mean_ms"]), 3),
        "ttft_published_smape": round(smape(dt["dt_ttft_ms"].to_list(), measured["ttft_authors_ms"]), 3),
        "starved_accuracy": round(sum(a == b for a, b in zip(label, facts, strict=True)) / len(both), 4),
        "starved_f1": round(f1(label, facts), 4),
        "ours_same_rows": scores([r for r in rows if r.run.run_id in shared]),
    }


def show(name: str, table: Mapping[str, Any], seeds: int) -> None:
    """Prints one table's scores."""
    shown: dict[str, Mapping[str, float]] = {"overall": table["overall"], **table["by"]}
    if "published_twin" in table:
        shown |= {
            "published twin": table["published_twin"],
            "  ours, same rows": table["published_twin"]["ours_same_rows"],
        }
    print_scores(f"{name}: SMAPE %, mean over {seeds} seeds", shown)
    overall = table["overall"]
    if overall.get("memory_error_runs"):
        print(
            f"memory errors: {100 * overall['memory_error_accuracy']:.1f} % of {overall['memory_error_runs']} starts, "
            f"{overall['memory_errors']} of them refusals, foreseen"
        )


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    data: str
    seeds: Annotated[int, Range(1)] = 5
    every: Annotated[int, Range(1)] = 1
    threads: Annotated[int, Range(1)] = 2
    fold: str = ""
    calibrations: str = ""


def run(options: Options) -> int:
    folder = Path(options.data)
    where = Path(options.calibrations) if options.calibrations else calibration_dir()
    calibrations = {m.spec.name: load_calibration(where / f"{m.calibration}.yaml") for m in MEASURED_MODELS}
    runs, _ = fold_of(read_all_runs(folder), options.fold)
    runs = thin(runs, options.every)
    start = time.perf_counter()
    rows = compare_all(runs, calibrations, Rig(), options.seeds, options.threads)
    result = by_table(rows)
    for name in TABLES:
        if name not in result:
            continue
        mine = [r for r in runs if r.table == name]
        result[name]["overall"] |= memory_scores(mine, calibrations)
        if (folder / PUBLISHED_TWIN).is_file():
            theirs = published_twin(folder, mine, [r for r in rows if r.run.table == name])
            if theirs is not None:
                result[name]["published_twin"] = theirs
        show(name, result[name], options.seeds)
    if not (folder / PUBLISHED_TWIN).is_file():
        print(f"{PUBLISHED_TWIN} is not in {folder}: no comparison with the published twin")
    result["overall"] |= memory_scores(runs, calibrations)
    print_scores(f"all runs ({time.perf_counter() - start:.0f} s)", {"overall": result["overall"]})
    print(json.dumps(result, allow_nan=False))
    return 0


APP = command("benchmarks.twin_fidelity", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
