"""`python -m surrogates rays` and `python -m surrogates residual`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from twin.config.entry import INTERRUPTED
from twin.config.ranges import Range
from twin.config.schema import parse
from twin.errors import InputError


@dataclass(frozen=True, slots=True)
class RaysCommand:
    """`conf/commands/rays.yaml`."""

    out: str
    threads: Annotated[int, Range(1, 256, unit="threads")]
    spec: Any


@dataclass(frozen=True, slots=True)
class ResidualCommand:
    """`conf/commands/residual.yaml`."""

    rays: Any
    simulate: bool
    without: tuple[str, ...]
    out: str | None
    logs: str
    training: Any


def run_rays(options: RaysCommand) -> int:
    """Simulates rays in the twin: mixes of adapters, each with its boundary and columns on both sides of it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from surrogates.residual.rays import RaySpec, make_rays
    from surrogates.residual.shards import shard_path
    from twin.figures.result import SimulationResult
    from twin.server.calibration import Calibration, load_calibration
    from twin.server.column import Column
    from twin.simulation import simulate

    spec = parse(RaySpec, options.spec, "spec")
    shipped = [load_calibration(name) for name in spec.calibrations]
    folder = Path(options.out)

    def simulate_column(column: Column, calibration: Calibration, seed: int, slo_s: float) -> SimulationResult:
        return simulate(column, calibration, horizon_s=spec.horizon_s, seed=seed, default_ttft_slo_s=slo_s)

    counts = spec.counts(shipped)
    shards = spec.shards(counts)
    done = sum(shard_path(folder, *shard).is_file() for shard in shards)
    bars = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(*bars) as progress:
            task = progress.add_task("", total=len(shards), completed=done)
            make_rays(
                folder, spec, shipped, simulate_column, threads=options.threads,
                on_shard=lambda: progress.advance(task),
            )  # fmt: skip
    except KeyboardInterrupt:
        print("interrupted; finished shards are kept, the same command continues", file=sys.stderr)
        return INTERRUPTED
    print(f"{sum(rays for _, rays in counts.values())} rays under {len(counts)} calibrations in {folder}")
    return 0


def run_residual(options: ResidualCommand) -> int:
    """Simulates the rays that are missing, trains the residual on all of them and writes its weights."""
    try:
        from surrogates.residual.training import ResidualOptions, train_residual
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs the package {error.name!r}", remedy="pip install 'adapter-placement[train]'"
        ) from error
    from surrogates.residual.assemble import summary
    from surrogates.residual.shards import read_rays
    from surrogates.residual.weights import weights_folder

    training = parse(ResidualOptions, options.training, "training")
    rays_options = parse(RaysCommand, options.rays, "rays")
    if options.simulate:
        code = run_rays(rays_options)
        if code:
            return code
    rays, calibrations, spec = read_rays(Path(rays_options.out))
    residual = train_residual(
        rays, calibrations, spec, training, without=options.without, logs=Path(options.logs), on_step=print
    )
    out = Path(options.out) if options.out else weights_folder()
    residual.write(out)
    print(summary(residual))
    print(f"written to {out}")
    return 0
