"""`python -m surrogates rays|residual|dataset|train key=value ...`: data and training of the shipped surrogates."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from surrogates.residual.command import RaysCommand, ResidualCommand, run_rays, run_residual
from twin.config.entry import INTERRUPTED
from twin.config.program import command, run_subcommand
from twin.config.ranges import Range
from twin.config.schema import parse
from twin.errors import InputError

log = logging.getLogger("surrogates.command")


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """`conf/commands/dataset.yaml`."""

    calibration: str
    out: str
    threads: Annotated[int, Range(1, 256, unit="threads")]
    spec: Any
    settings: Any


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """`conf/commands/train.yaml`."""

    calibration: str
    data: str | tuple[str, ...]
    out: str | None
    training: Any


def run_dataset(options: DatasetOptions) -> int:
    """Simulates the data set of one calibration."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from surrogates.training.dataset import DatasetSpec, make_dataset, shard_path
    from twin.figures.result import SimulationResult
    from twin.server.calibration import load_calibration
    from twin.server.column import Column
    from twin.server.flags import GRID_FLAGS, setting_choices
    from twin.server.memory import memory_error
    from twin.simulation import simulate

    calibration = load_calibration(options.calibration)
    spec = parse(DatasetSpec, options.spec, "spec")
    grid = setting_choices(options.settings, calibration.stamp.gpu_type, where="settings", lists=GRID_FLAGS)
    settings = [s for s in grid if memory_error(s, calibration) is None]
    log.info("%d of %d settings leave room for the longest request", len(settings), len(grid))
    folder = Path(options.out)

    def simulate_column(column: Column, seed: int) -> SimulationResult:
        return simulate(column, calibration, horizon_s=spec.horizon_s, seed=seed)

    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*bars) as progress:
            done = sum(shard_path(folder, k).is_file() for k in range(spec.shards))
            task = progress.add_task(f"{calibration.name}: shards", total=spec.shards, completed=done)
            make_dataset(
                folder, spec, settings, calibration, simulate_column,
                threads=options.threads, on_shard=lambda shard: progress.advance(task),
            )  # fmt: skip
    except KeyboardInterrupt:
        print("interrupted; finished shards are kept, the same command continues", file=sys.stderr)
        return INTERRUPTED
    print(f"{spec.rays} rays and {spec.columns} columns under {len(settings)} settings in {folder}")
    return 0


def run_train(options: TrainOptions) -> None:
    """Trains all networks of one calibration and writes its artifact."""
    try:
        from surrogates.training.train import TrainingOptions, train
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs the package {error.name!r}", remedy="pip install 'adapter-placement[train]'"
        ) from error
    from surrogates.model.artifact import weights_folder
    from surrogates.training.records import join_records, read_records
    from twin.server.calibration import load_calibration

    calibration = load_calibration(options.calibration)
    folders = (options.data,) if isinstance(options.data, str) else options.data
    records = join_records([read_records(Path(folder)) for folder in folders])
    out = Path(options.out) if options.out else weights_folder(calibration.name)
    artifact = train(records, calibration, parse(TrainingOptions, options.training, "training"), on_step=print)
    artifact.write(out)
    print(artifact.summary())
    print(f"written to {out}")


COMMANDS = {
    "rays": command("surrogates rays", RaysCommand, run_rays, about=run_rays.__doc__, config_name="rays"),
    "residual": command(
        "surrogates residual", ResidualCommand, run_residual, about=run_residual.__doc__, config_name="residual"
    ),
    "dataset": command(
        "surrogates dataset", DatasetOptions, run_dataset, about=run_dataset.__doc__, config_name="dataset"
    ),
    "train": command("surrogates train", TrainOptions, run_train, about=run_train.__doc__, config_name="train"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    return run_subcommand(
        "python -m surrogates", COMMANDS, sys.argv[1:] if arguments is None else arguments, about=__doc__
    )


if __name__ == "__main__":
    sys.exit(main())
