"""`python -m profiling <command> data=<folder> ...`: fits calibrations and checks them on runs they have not seen.

    fit            [out=<folder>] [date=YYYY-MM-DD] [every=1] [threads=2] [fold=i/k] [model=] [forced=<folder>]
    crossvalidate  [folds=5] [seeds=1] [every=1] [threads=2] [forced=<folder>] [curve=yes]
    memory_gap     [out=<folder>] [date=YYYY-MM-DD]       batch sizes and co-located servers (docs/batching.md)

`fit` writes the calibrations of the measured models. `fold=i/k` leaves the workloads of fold i out, so that
`python -m benchmarks.twin_fidelity fold=i/k calibrations=<out>` scores on workloads that the fit has not seen.
`forced=<folder>` keeps the teacher-forced runs there (written if absent), which is nearly all of the time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import yaml

from profiling.fit import Fit, fit_calibration, fit_of, law_from, micro_calibration
from profiling.forced_file import read_forced, write_forced
from profiling.micro import read_micro
from profiling.models import MEASURED_MODELS, MeasuredModel
from profiling.options import read_options, whole_number
from profiling.runs import MeasuredRun, fold_of, read_all_runs, thin
from twin.calibration import calibration_dir
from twin.errors import InputError, PlacementError

COMMANDS = "fit, memory_gap"
FIT_DEFAULTS = {
    "data": "???", "out": "", "every": "1", "date": "", "threads": "2", "model": "", "fold": "", "forced": "",
}  # fmt: skip


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
        cache = Path(options["forced"]) / f"{model.calibration}.json" if options["forced"] else None
        result = fit_model(folder, model, runs, stamp_date, whole_number(options, "threads"), cache)
        path = out / f"{model.calibration}.yaml"
        path.write_text(yaml.safe_dump(result.calibration.to_dict(), sort_keys=False))
        _say(f"  {dict(result.calibration.stamp.residuals)}")
        _say(f"  written to {path}")


def fit_model(
    folder: Path, model: MeasuredModel, runs: Sequence[MeasuredRun], stamp_date: str, threads: int, cache: Path | None
) -> Fit:
    """Fits one model, from the forced runs of the cache if it has them."""
    if cache is None or not cache.is_file():
        result = fit_calibration(folder, model, runs, date=stamp_date, threads=threads, say=_say)
        if cache is not None:
            write_forced(cache, result.forced)
        return result
    mine = [r for r in runs if r.usable and r.model == model.spec.name]
    forced, micro = read_forced(cache, mine), read_micro(folder, model.spec.name)
    if len(forced) < len(mine):
        raise InputError(
            f"{len(mine) - len(forced)} runs are missing from the forced ones", where=str(cache), remedy="delete it"
        )
    calibration, capacity = micro_calibration(folder, model, mine, date=stamp_date)
    from dataclasses import replace

    return fit_of(replace(calibration, step=law_from(forced, micro)), capacity, forced, micro)


def _say(text: str) -> None:
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["memory_gap"]:
            from profiling.memory_gap import command

            command(words[1:])
            return 0
        if not words or words[0] != "fit":
            raise InputError(f"subcommand {words[0] if words else ''!r} is unknown", remedy=f"one of: {COMMANDS}")
        fit(words[1:])
    except PlacementError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
