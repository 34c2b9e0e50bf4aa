"""How close the twin is to real one-hour runs of vLLM multi-LoRA serving.

    python -m benchmarks.twin_fidelity data=<folder> [seeds=5] [every=1] [threads=2] [fold=i/k] [calibrations=<folder>]

Every run of `twin_validation_real.csv` and `placement_real_test.csv` is simulated for its hour from its flags, rates
and mean lengths alone; definitions in docs/calibration.md. The shipped calibrations were fitted on
`twin_validation_real.csv`, so that table shows the fit; `placement_real_test.csv` was not used and shows the
prediction. `fold=i/k` scores only every k-th run, for a calibration fitted on the others. `every=10` is a quick look.
Not measured: GPUs, engines and models other than these; tails per adapter (the data have none).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import key_values
from profiling.fidelity import Comparison, compare_all, f1, memory_scores, report, scores, smape
from profiling.models import MEASURED_MODELS
from profiling.replay import read_rig
from profiling.runs import MeasuredRun, fold_of, read_runs, read_table, thin
from twin.calibration import Calibration, calibration_dir, load_calibration
from twin.errors import PlacementError
from twin.metrics import STARVATION_THRESHOLD

TABLES = ("twin_validation_real", "placement_real_test")
SHOWN = ("throughput", "tpot", "itl", "ttft", "running", "kv_usage")


def published_twin(folder: Path, runs: Sequence[MeasuredRun], rows: Sequence[Comparison]) -> dict[str, Any]:
    """The published twin on the rows where it ran, and ours on the same rows in the same definitions.

    It replays the true arrivals and caps its queue at the real run's maximum; ours knows neither.
    """
    table = read_table(folder, "twin_validation_authors_dt.csv")
    theirs = table[table["dt_ok"]].set_index("run_id")
    both = [r for r in runs if r.usable and r.run_id in theirs.index]
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


def print_table(title: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """SMAPE in percent, labels in percent right."""
    print(f"\n{title}\n{'':26}{'runs':>5}" + "".join(f"{key:>11}" for key in SHOWN) + f"{'label %':>9}{'F1':>7}")
    for name, row in groups.items():
        values = "".join(f"{row[f'{key}_smape']:11.2f}" if f"{key}_smape" in row else f"{'-':>11}" for key in SHOWN)
        score = f"{row['starved_f1']:7.3f}" if "starved_f1" in row else f"{'-':>7}"
        label = f"{100 * row['starved_accuracy']:9.1f}{score}"
        print(f"{name:26}{int(row['runs']):5d}{values}{label}")


def run_table(
    folder: Path, name: str, calibrations: Mapping[str, Calibration], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Scores of one table of runs."""
    runs = read_runs(folder, f"{name}.csv")
    if name == TABLES[0]:
        runs, _ = fold_of(runs, options["fold"])
    runs = thin(runs, options["every"])
    start = time.perf_counter()
    rows = compare_all(runs, calibrations, read_rig(folder), options["seeds"], options["threads"])
    overall = {**scores(rows), **memory_scores(runs, calibrations)}
    result: dict[str, Any] = {"overall": overall, "by": report(rows)}
    shown: dict[str, Mapping[str, float]] = {"overall": overall, **result["by"]}
    if name == TABLES[0]:
        result["published_twin"] = published_twin(folder, runs, rows)
        shown |= {
            "published twin": result["published_twin"],
            "  ours, same rows": result["published_twin"]["ours_same_rows"],
        }
    print_table(f"{name}: SMAPE %, mean over {options['seeds']} seeds ({time.perf_counter() - start:.0f} s)", shown)
    print(
        f"memory errors: {100 * overall['memory_error_accuracy']:.1f} % of {overall['memory_error_runs']} starts, "
        f"{overall['memory_errors']} of them refusals, foreseen"
    )
    return result


def main(arguments: Sequence[str]) -> int:
    options = key_values(
        arguments, {"data": None, "seeds": 5, "every": 1, "threads": 2, "fold": "", "calibrations": ""}
    )
    folder = Path(options["data"])
    where = Path(options["calibrations"]) if options["calibrations"] else calibration_dir()
    calibrations = {m.spec.name: load_calibration(where / f"{m.calibration}.yaml") for m in MEASURED_MODELS}
    result = {name: run_table(folder, name, calibrations, options) for name in TABLES}
    print(json.dumps(result, allow_nan=False))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PlacementError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
