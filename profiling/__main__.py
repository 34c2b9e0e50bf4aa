"""`python -m profiling <command> ...`: fits calibrations, checks them on runs they have not seen, derives others.

    record         model=<folder> out=<folder> [gpu=] [minutes=10] [slots=] [ranks=] ...   a real server, step by step
    import         bench=<result of vllm bench serve> out=<folder> ...                     as a run of a recording
    fit            records=<folder> [hardware=] [out=] [name=] [plot=true]                 a calibration from it
    validate       records=<folder> calibration=<file>                                     the twin beside its runs
    fit            data=<folder> [out=<folder>] [date=YYYY-MM-DD] [every=1] [threads=2] [fold=i/k] [model=]
                   [forced=<folder>]                                                       of the published runs
    crossvalidate  [folds=5] [seeds=1] [every=1] [threads=2] [curve_every=8] [forced=<folder>]
    memory_gap     [out=<folder>] [date=YYYY-MM-DD]       batch sizes and co-located servers (docs/batching.md)
    derive         model=... hardware=... [engine.tensor_parallel_size=1] [engine.version=] [out=<folder>]
    learn          [out=<file>]                           what `derive` takes from measured servers

The first four are for a server of one's own (docs/ten_minutes.md). `record` starts vLLM with every slot count and
rank, runs a grid of batches and open-loop workloads, and goes on where it stopped. `fit records=` starts from the
derived calibration of `hardware` (an option of conf/hardware; none = without a prior).

`derive` needs no data: it computes the calibration of a GPU and model that nobody measured, with an interval for every
coefficient (docs/my_gpu_is_not_listed.md).

`fit` writes the calibrations of the measured models, from all runs that the folder holds. `fold=i/k` leaves the
workloads of fold i out, so that `python -m benchmarks.twin_fidelity fold=i/k calibrations=<out>` scores workloads that
the fit has not seen. `crossvalidate` does that for all folds, and shows the score by the number of runs used; its last
line is JSON. `forced=<folder>` keeps the teacher-forced runs there (written if absent): nearly all of the time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import yaml

from profiling.derive.command import APP as DERIVE, LearnOptions, run_learn
from profiling.fit.crossval import Evidence, crossvalidate, with_few_runs
from profiling.fit.evidence import fit_model
from profiling.measured.command import ValidateOptions, fit_recording, validate
from profiling.published.fidelity import scores
from profiling.published.models import MEASURED_MODELS
from profiling.published.reports import by_table, print_scores
from profiling.published.runs import fold_of, read_all_runs, thin
from profiling.record.bench import ImportOptions, import_bench
from profiling.record.command import RecordOptions, record
from twin.config.program import command, run_subcommand
from twin.config.ranges import Range
from twin.errors import InputError
from twin.server.calibration import calibration_dir


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Of `fit`; what they mean is said above."""

    data: str = ""
    records: str = ""
    hardware: str = ""
    name: str = ""
    plot: bool = False
    out: str = ""
    every: Annotated[int, Range(1)] = 1
    date: str = ""
    threads: Annotated[int, Range(1, 256, unit="threads")] = 2
    model: str = ""
    fold: str = ""
    forced: str = ""


@dataclass(frozen=True, slots=True)
class CrossOptions:
    """Of `crossvalidate`."""

    data: str
    folds: Annotated[int, Range(2)] = 5
    seeds: Annotated[int, Range(1)] = 1
    every: Annotated[int, Range(1)] = 1
    curve_every: Annotated[int, Range(1)] = 8
    threads: Annotated[int, Range(1, 256, unit="threads")] = 2
    forced: str = ""


@dataclass(frozen=True, slots=True)
class GapOptions:
    """Of `memory_gap`."""

    data: str
    out: str = ""
    date: str = ""


#: Real runs per model in the learning curve; 0 = micro-benchmarks alone.
CURVE = (0, 5, 10, 20)
DRAWS = 3


def fit(options: FitOptions) -> None:
    """Fits the calibrations of all measured models and writes them as YAML."""
    if options.records:
        fit_recording(
            options.records, hardware=options.hardware, out=options.out, name=options.name, stamp_date=options.date,
            plot=options.plot,
        )  # fmt: skip
        return
    if not options.data:
        raise InputError(
            "data is missing, and so is records",
            where="fit",
            remedy="records=<a recording> or data=<the published runs>",
        )
    folder = Path(options.data)
    out = Path(options.out) if options.out else calibration_dir()
    runs = thin(read_all_runs(folder, _say), options.every)
    _, runs = fold_of(runs, options.fold)
    stamp_date = options.date or date.today().isoformat()
    models = [m for m in MEASURED_MODELS if options.model in ("", m.calibration)]
    if not models:
        known = ", ".join(m.calibration for m in MEASURED_MODELS)
        raise InputError(f"model={options.model} was not measured", remedy=f"one of: {known}")
    out.mkdir(parents=True, exist_ok=True)
    for model in models:
        result = fit_model(
            folder, model, runs, date=stamp_date, threads=options.threads, cache=options.forced, say=_say
        )
        path = out / f"{model.calibration}.yaml"
        path.write_text(yaml.safe_dump(result.calibration.to_dict(), sort_keys=False))
        _say(f"  {dict(result.calibration.stamp.residuals)}")
        _say(f"  written to {path}")


def cross(options: CrossOptions) -> None:
    """Scores every run with a law of other workloads, then runs with laws of few runs; JSON last."""
    folder, threads, folds = Path(options.data), options.threads, options.folds
    runs = thin(read_all_runs(folder, _say), options.every)
    evidence: dict[str, Evidence] = {}
    for model in MEASURED_MODELS:
        made = fit_model(folder, model, runs, date="", threads=threads, cache=options.forced, say=_say)
        evidence[model.spec.name] = Evidence(made.calibration, made.forced, made.micro)
    result: dict[str, Any] = by_table(crossvalidate(evidence, folds, options.seeds, threads))
    shown: dict[str, Mapping[str, float]] = {}
    for name, table in result.items():
        shown[name] = table if name == "overall" else table["overall"]
        if name != "overall":
            shown |= {f"  {name[:5]}: {group}": row for group, row in table["by"].items()}
    print_scores(f"workloads left out of the fit, {folds} folds, SMAPE %", shown)
    scored = thin([f.run for e in evidence.values() for f in e.forced], options.curve_every)
    curve = {"left-out workloads": result["overall"]}
    for size in CURVE:
        draws = [with_few_runs(evidence, size, scored, 1, threads, d) for d in range(DRAWS if size else 1)]
        curve[str(size)] = scores([row for rows in draws for row in rows])
    print_scores("runs not in the fit, by real runs used per model (and all micro-benchmarks)", curve)
    print(json.dumps({**result, "by_runs_used": curve}, allow_nan=False))


def _say(text: str) -> None:
    print(text, flush=True)


def memory_gap(options: GapOptions) -> None:
    """Fits the calibrations of the batch-size measurements (docs/batching.md)."""
    from profiling.fit.memory_gap import fit_memory_gap, write

    calibrations = fit_memory_gap(Path(options.data), date=options.date or date.today().isoformat())
    for path in write(calibrations, Path(options.out) if options.out else calibration_dir()):
        _say(f"written to {path}")


COMMANDS = {
    "fit": command("profiling fit", FitOptions, fit, about=__doc__),
    "crossvalidate": command("profiling crossvalidate", CrossOptions, cross, about=__doc__),
    "memory_gap": command("profiling memory_gap", GapOptions, memory_gap, about=__doc__),
    "derive": DERIVE,
    "import": command("profiling import", ImportOptions, import_bench, about=__doc__),
    "validate": command("profiling validate", ValidateOptions, validate, about=__doc__),
    "record": command("profiling record", RecordOptions, record, about=__doc__),
    "learn": command("profiling learn", LearnOptions, run_learn, about=__doc__),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    return run_subcommand("python -m profiling", COMMANDS, sys.argv[1:] if argv is None else argv, about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
