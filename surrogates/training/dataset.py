"""A data set of simulated rays in resumable shards.

A folder with `dataset.json` (what was asked for) and `shard-00000.npz`, ... A shard is written to a temporary name
and renamed when complete, and depends on seed and index alone: a run that was stopped anywhere and continued gives
the same bytes as one that was not.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from surrogates.model.context import calibration_hash
from surrogates.model.features import AdapterArrays
from surrogates.training.boundary import trace_ray
from surrogates.training.sampling import KINDS, sample
from twin.config.ranges import Range, check_fields
from twin.errors import InputError
from twin.figures.health import RULES
from twin.figures.prediction import Prediction
from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
METRICS: tuple[str, ...] = tuple(f.name for f in fields(Prediction))
#: `simulate(column, seed)`.
SimulateColumn = Callable[[Column, int], SimulationResult]
#: Lone columns are placed at these multiples of a token rate that every GPU can serve.
_LONE_TPS = (100.0, 12_000.0)


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What to simulate.

    Args:
        rays: mixes bisected to the boundary under both rules.
        columns: further mixes simulated once at a random load, for the metrics.
        pooled_seeds: seeds pooled near the boundary where adapters > slots.
        interior: further columns inside the healthy part of each ray.
        shard_size: rays or columns a shard.
    """

    rays: Annotated[int, Range(0)]
    columns: Annotated[int, Range(0)]
    seed: Annotated[int, Range(0)] = 0
    horizon_s: Annotated[float, Range(above=0, unit="seconds")] = 3600.0
    pooled_seeds: Annotated[int, Range(1)] = 3
    interior: Annotated[int, Range(0)] = 3
    shard_size: Annotated[int, Range(1)] = 25

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"dataset.{name}")

    @property
    def shards(self) -> int:
        return -(-(self.rays + self.columns) // self.shard_size)


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.npz"


def make_dataset(
    folder: Path,
    spec: DatasetSpec,
    settings: Sequence[EngineSetting],
    calibration: Calibration,
    simulate: SimulateColumn,
    *,
    threads: int = 2,
    on_shard: Callable[[int], None] = lambda shard: None,
) -> int:
    """Simulates all shards that are missing in `folder`; returns how many were made.

    The kernel releases the GIL, so threads run in parallel. On an interrupt the finished shards stay.

    Raises:
        InputError: the folder holds a data set made with other settings.
    """
    if not settings:
        raise InputError("no engine setting of the grid fits into memory", remedy="use a smaller max_model_len")
    folder.mkdir(parents=True, exist_ok=True)
    _check_header(folder / "dataset.json", _header(spec, settings, calibration))
    missing = [k for k in range(spec.shards) if not shard_path(folder, k).is_file()]
    log.info("%d of %d shards are to be made in %s", len(missing), spec.shards, folder)
    stop = threading.Event()

    def stoppable(column: Column, seed: int) -> SimulationResult:
        if stop.is_set():
            raise InterruptedError
        return simulate(column, seed)

    with ThreadPoolExecutor(threads) as pool:
        jobs = {pool.submit(_make_shard, folder, k, spec, settings, stoppable): k for k in missing}
        try:
            for job in as_completed(jobs):
                job.result()
                log.debug("shard %d is complete", jobs[job])
                on_shard(jobs[job])
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return len(missing)


def _header(spec: DatasetSpec, settings: Sequence[EngineSetting], calibration: Calibration) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "calibration": calibration.name,
        "calibration_sha256": calibration_hash(calibration),
        "metrics": list(METRICS),
        "kinds": list(KINDS),
        "spec": asdict(spec),
        "settings": [asdict(s) for s in settings],
    }


def _check_header(path: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header, indent=1)
    if not path.is_file():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(path)
        return
    have = json.loads(path.read_text())
    different = [k for k in header if have.get(k) != json.loads(text)[k]]
    if different:
        raise InputError(
            f"the folder holds a data set with another {', '.join(different)}",
            where=str(path),
            remedy="give the same options to continue it, or another out=",
        )


def _make_shard(
    folder: Path, shard: int, spec: DatasetSpec, settings: Sequence[EngineSetting], simulate: SimulateColumn
) -> None:
    first = shard * spec.shard_size
    rows: dict[str, list[Any]] = {k: [] for k in ("index", "setting", "kind", "theta", "adapters", "size")}
    columns: dict[str, list[Any]] = {k: [] for k in ("ray", "theta", "seed", "metrics")}
    for index in range(first, min(first + spec.shard_size, spec.rays + spec.columns)):
        drawn = sample(spec.seed, index, settings)
        setting, mix = settings[drawn.setting_index], drawn.adapters
        rng = np.random.default_rng([spec.seed, index, 1])

        def simulate_mix(adapters: AdapterArrays, seed: int, setting: EngineSetting = setting) -> SimulationResult:
            return simulate(Column(adapters.to_adapters(), setting), seed)

        if index < spec.rays:
            crowded = int((mix.rank > 0).sum()) > setting.max_loras
            ray = trace_ray(
                mix, simulate_mix, pooled_seeds=spec.pooled_seeds if crowded else 1, interior=spec.interior, rng=rng
            )
            simulated, theta = ray.columns, [ray.theta[rule] for rule in RULES]
        else:
            tokens = float((mix.rate_req_per_s * (mix.prompt_mean + mix.output_mean)).sum())
            factor = float(np.exp(rng.uniform(*np.log(_LONE_TPS)))) / tokens
            simulated, theta = [(factor, 0, simulate_mix(mix.scaled(factor), 0).row)], [np.nan] * len(RULES)
        rows["index"].append(index)
        rows["setting"].append(drawn.setting_index)
        rows["kind"].append(list(KINDS).index(drawn.kind))
        rows["theta"].append(theta)
        rows["size"].append(len(mix))
        rows["adapters"].append(mix.matrix())
        for factor, seed, row in simulated:
            columns["ray"].append(index)
            columns["theta"].append(factor)
            columns["seed"].append(seed)
            columns["metrics"].append([row.get(name, np.nan) for name in METRICS])
    arrays: dict[str, NDArray[Any]] = {f"ray_{k}": np.array(v) for k, v in rows.items() if k != "adapters"}
    arrays["ray_adapters"] = np.concatenate(rows["adapters"])
    arrays |= {f"column_{k}": np.array(v) for k, v in columns.items()}
    target = shard_path(folder, shard)
    temporary = target.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    temporary.replace(target)
