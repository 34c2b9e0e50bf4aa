"""`python -m surrogates dataset|train key=value ...`: data and training of the shipped surrogates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twin.config.folder import conf_dir
from twin.errors import InputError, PlacementError

COMMANDS = ("dataset", "train")


def load_options(command: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Reads `conf/commands/<command>.yaml` and applies `key=value` overrides; keys must exist."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = conf_dir() / "commands" / f"{command}.yaml"
    config = OmegaConf.load(path)
    OmegaConf.set_struct(config, True)
    try:
        options = OmegaConf.to_container(OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides))), resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(
            str(error).strip().splitlines()[0],
            where=" ".join(overrides),
            remedy=f"keys of {command}: {', '.join(str(k) for k in config)}",
        ) from error
    assert isinstance(options, dict)
    return {str(k): v for k, v in options.items()}


def run_dataset(options: dict[str, Any]) -> None:
    """Simulates the data set of one calibration."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from surrogates.training.dataset import DatasetSpec, make_dataset, shard_path
    from twin.figures.result import SimulationResult
    from twin.server.calibration import load_calibration
    from twin.server.column import Column
    from twin.server.memory import memory_error
    from twin.server.settings import setting_grid
    from twin.simulation import simulate

    calibration = load_calibration(options["calibration"])
    spec = DatasetSpec(**options["spec"])
    grid = setting_grid([calibration.stamp.gpu_type], **options["settings"])
    settings = [s for s in grid if memory_error(s, calibration) is None]
    folder = Path(options["out"])

    def simulate_column(column: Column, seed: int) -> SimulationResult:
        return simulate(column, calibration, horizon_s=spec.horizon_s, seed=seed)

    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bars) as progress:
        done = sum(shard_path(folder, k).is_file() for k in range(spec.shards))
        task = progress.add_task(f"{calibration.name}: shards", total=spec.shards, completed=done)
        make_dataset(
            folder, spec, settings, calibration, simulate_column,
            threads=int(options["threads"]), on_shard=lambda shard: progress.advance(task),
        )  # fmt: skip
    print(f"{spec.rays} rays and {spec.columns} columns under {len(settings)} settings in {folder}")


def run_train(options: dict[str, Any]) -> None:
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

    calibration = load_calibration(options["calibration"])
    folders = options["data"] if isinstance(options["data"], list) else [options["data"]]
    records = join_records([read_records(Path(folder)) for folder in folders])
    out = Path(options["out"]) if options["out"] else weights_folder(calibration.name)
    artifact = train(records, calibration, TrainingOptions(**options["training"]), on_step=print)
    artifact.write(out)
    print(artifact.summary())
    print(f"written to {out}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        print(f"usage: python -m surrogates {'|'.join(COMMANDS)} [key=value ...]", file=sys.stderr)
        return 2
    try:
        options = load_options(words[0], words[1:])
        (run_dataset if words[0] == "dataset" else run_train)(options)
    except PlacementError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; finished shards are kept, the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
