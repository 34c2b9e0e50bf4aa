"""`python -m profiling fit data=<folder> [out=<folder>] [every=1] [date=YYYY-MM-DD] [threads=2] [fold=i/k]`.

`fold` leaves every k-th run out, so that `python -m benchmarks.twin_fidelity fold=i/k calibrations=<out>` scores the
calibration on runs that it has not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import yaml

from profiling.fit import fit_calibration
from profiling.models import MEASURED_MODELS
from profiling.options import read_options, whole_number
from profiling.runs import fold_of, read_runs, thin
from twin.calibration import calibration_dir
from twin.errors import InputError, PlacementError

COMMANDS = "fit"
FIT_DEFAULTS = {"data": "???", "out": "", "every": "1", "date": "", "threads": "2", "model": "", "fold": ""}


def fit(words: Sequence[str]) -> None:
    """Fits the calibrations of all measured models and writes them as YAML."""
    options = read_options(words, FIT_DEFAULTS, command="python -m profiling fit")
    folder = Path(options["data"])
    out = Path(options["out"]) if options["out"] else calibration_dir()
    runs = thin(read_runs(folder, "twin_validation_real.csv"), whole_number(options, "every"))
    _, runs = fold_of(runs, options["fold"])
    stamp_date = options["date"] or date.today().isoformat()
    models = [m for m in MEASURED_MODELS if options["model"] in ("", m.calibration)]
    if not models:
        known = ", ".join(m.calibration for m in MEASURED_MODELS)
        raise InputError(f"model={options['model']} was not measured", remedy=f"one of: {known}")
    out.mkdir(parents=True, exist_ok=True)
    for model in models:
        result = fit_calibration(
            folder, model, runs, date=stamp_date, threads=whole_number(options, "threads"),
            source="published micro-benchmarks and one-hour runs (arXiv 2508.08343)", say=_say,
        )  # fmt: skip
        path = out / f"{model.calibration}.yaml"
        path.write_text(yaml.safe_dump(result.calibration.to_dict(), sort_keys=False))
        _say("  error on runs left over, by real runs used: " + _curve(result.curve))
        _say(f"  {result.residuals}")
        _say(f"  written to {path}")


def _curve(curve: dict[int, float]) -> str:
    return ", ".join(f"{runs}: {error:.1f} %" for runs, error in curve.items())


def _say(text: str) -> None:
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] != "fit":
            raise InputError(f"subcommand {words[0] if words else ''!r} is unknown", remedy=f"one of: {COMMANDS}")
        fit(words[1:])
    except PlacementError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
