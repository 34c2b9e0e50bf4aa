"""`python -m profiling <command> data=<folder> ...`: fits calibrations and checks them on runs they have not seen.

    fit            [out=<folder>] [date=YYYY-MM-DD] [every=1] [threads=2] [fold=i/k] [model=] [forced=<folder>]
    crossvalidate  [folds=5] [seeds=1] [every=1] [threads=2] [curve_every=8] [forced=<folder>]
    memory_gap     [out=<folder>] [date=YYYY-MM-DD]       batch sizes and co-located servers (docs/batching.md)

`fit` writes the calibrations of the measured models, from all runs that the folder holds. `fold=i/k` leaves the
workloads of fold i out, so that `python -m benchmarks.twin_fidelity fold=i/k calibrations=<out>` scores workloads that
the fit has not seen. `crossvalidate` does that for all folds, and shows the score by the number of runs used; its last
line is JSON. `forced=<folder>` keeps the teacher-forced runs there (written if absent): nearly all of the time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from profiling.fit.crossval import Evidence, crossvalidate, with_few_runs
from profiling.fit.evidence import fit_model
from profiling.options import read_options, whole_number
from profiling.published.fidelity import scores
from profiling.published.models import MEASURED_MODELS
from profiling.published.reports import by_table, print_scores
from profiling.published.runs import fold_of, read_all_runs, thin
from twin.errors import InputError, PlacementError
from twin.server.calibration import calibration_dir

FIT_DEFAULTS = {
    "data": "???", "out": "", "every": "1", "date": "", "threads": "2", "model": "", "fold": "", "forced": "",
}  # fmt: skip
CROSS_DEFAULTS = {
    "data": "???", "folds": "5", "seeds": "1", "every": "1", "curve_every": "8", "threads": "2", "forced": "",
}  # fmt: skip
#: Real runs per model in the learning curve; 0 = micro-benchmarks alone.
CURVE = (0, 5, 10, 20)
DRAWS = 3


def fit(words: Sequence[str]) -> None:
    """Fits the calibrations of all measured models and writes them as YAML."""
    options = read_options(words, FIT_DEFAULTS, command="python -m profiling fit")
    folder = Path(options["data"])
    out = Path(options["out"]) if options["out"] else calibration_dir()
    runs = thin(read_all_runs(folder, _say), whole_number(options, "every"))
    _, runs = fold_of(runs, options["fold"])
    stamp_date = options["date"] or date.today().isoformat()
    models = [m for m in MEASURED_MODELS if options["model"] in ("", m.calibration)]
    if not models:
        known = ", ".join(m.calibration for m in MEASURED_MODELS)
        raise InputError(f"model={options['model']} was not measured", remedy=f"one of: {known}")
    out.mkdir(parents=True, exist_ok=True)
    for model in models:
        threads = whole_number(options, "threads")
        result = fit_model(folder, model, runs, date=stamp_date, threads=threads, cache=options["forced"], say=_say)
        path = out / f"{model.calibration}.yaml"
        path.write_text(yaml.safe_dump(result.calibration.to_dict(), sort_keys=False))
        _say(f"  {dict(result.calibration.stamp.residuals)}")
        _say(f"  written to {path}")


def cross(words: Sequence[str]) -> None:
    """Scores every run with a law of other workloads, then runs with laws of few runs; JSON last."""
    options = read_options(words, CROSS_DEFAULTS, command="python -m profiling crossvalidate")
    folder, threads = Path(options["data"]), whole_number(options, "threads")
    folds, seeds = whole_number(options, "folds", least=2), whole_number(options, "seeds")
    runs = thin(read_all_runs(folder, _say), whole_number(options, "every"))
    evidence: dict[str, Evidence] = {}
    for model in MEASURED_MODELS:
        made = fit_model(folder, model, runs, date="", threads=threads, cache=options["forced"], say=_say)
        evidence[model.spec.name] = Evidence(made.calibration, made.forced, made.micro)
    result: dict[str, Any] = by_table(crossvalidate(evidence, folds, seeds, threads))
    shown: dict[str, Mapping[str, float]] = {}
    for name, table in result.items():
        shown[name] = table if name == "overall" else table["overall"]
        if name != "overall":
            shown |= {f"  {name[:5]}: {group}": row for group, row in table["by"].items()}
    print_scores(f"workloads left out of the fit, {folds} folds, SMAPE %", shown)
    scored = thin([f.run for e in evidence.values() for f in e.forced], whole_number(options, "curve_every"))
    curve = {"left-out workloads": result["overall"]}
    for size in CURVE:
        draws = [with_few_runs(evidence, size, scored, 1, threads, d) for d in range(DRAWS if size else 1)]
        curve[str(size)] = scores([row for rows in draws for row in rows])
    print_scores("runs not in the fit, by real runs used per model (and all micro-benchmarks)", curve)
    print(json.dumps({**result, "by_runs_used": curve}, allow_nan=False))


def _say(text: str) -> None:
    print(text, flush=True)


def memory_gap(words: Sequence[str]) -> None:
    """Fits the calibrations of the batch-size measurements (docs/batching.md)."""
    from profiling.fit.memory_gap import command

    command(words)


COMMANDS = {"fit": fit, "crossvalidate": cross, "memory_gap": memory_gap}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] not in COMMANDS:
            raise InputError(
                f"subcommand {words[0] if words else ''!r} is unknown", remedy=f"one of: {', '.join(COMMANDS)}"
            )
        COMMANDS[words[0]](words[1:])
    except PlacementError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
