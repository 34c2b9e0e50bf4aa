"""Reads a data set back: rays, their boundaries and all simulated columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.model.features import AdapterArrays, features_of_arrays
from surrogates.training.dataset import FORMAT_VERSION, METRICS
from twin.errors import InputError
from twin.figures.health import RULES, Rule
from twin.server.settings import EngineSetting

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Records:
    """R rays (lone columns are rays without a boundary) and C simulated columns.

    Args:
        mixes: the adapters of each ray at factor 1.
        setting: index into `settings`, (R,).
        theta: boundary factor by rule, NaN where none was found, (R,) each.
        ray: ray of each column, (C,).
        factor: factor of each column, (C,).
        metrics: fields of `Prediction` by name, (C,) each.
    """

    calibration: str
    calibration_sha256: str
    spec: dict[str, Any]
    settings: tuple[EngineSetting, ...]
    mixes: tuple[AdapterArrays, ...]
    setting: NDArray[np.int64]
    theta: dict[Rule, Array]
    ray: NDArray[np.int64]
    factor: Array
    metrics: dict[str, Array]

    @property
    def max_loras(self) -> NDArray[np.int64]:
        """Slots of each ray, (R,)."""
        return np.array([s.max_loras for s in self.settings])[self.setting]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Adapters in slots of each ray, (R,)."""
        return np.array([int((mix.rank > 0).sum()) for mix in self.mixes])

    def adapter_features(self, ray: int, factor: float) -> Array:
        """Features of every adapter of a ray at a factor, (A, F)."""
        return features_of_arrays(self.mixes[ray].scaled(factor))

    def features(self, ray: int, factor: float) -> Array:
        """Summed features of a ray at a factor, (F,)."""
        return np.asarray(self.adapter_features(ray, factor).sum(axis=0))

    def column_features(self) -> Array:
        """Summed features of every simulated column, (C, F)."""
        return np.stack([self.features(r, t) for r, t in zip(self.ray.tolist(), self.factor.tolist(), strict=True)])


def read_records(folder: Path) -> Records:
    """Reads all finished shards of a data set.

    Raises:
        InputError: there is no data set, it is of another format, or a shard is missing.
    """
    header_path = folder / "dataset.json"
    if not header_path.is_file():
        raise InputError(
            f"no data set in {str(folder)!r}",
            where=str(header_path),
            remedy="make one: python -m surrogates dataset calibration=... out=...",
        )
    header = json.loads(header_path.read_text())
    if header["format_version"] != FORMAT_VERSION or header["metrics"] != list(METRICS):
        raise InputError("the data set was written by another version", where=str(header_path), remedy="make it again")
    spec = header["spec"]
    wanted = -(-(spec["rays"] + spec["columns"]) // spec["shard_size"])
    paths = sorted(folder.glob("shard-*.npz"))
    if len(paths) != wanted:
        raise InputError(
            f"{len(paths)} of {wanted} shards are finished",
            where=str(folder),
            remedy="run the same `python -m surrogates dataset` command again: it continues",
        )
    shards = []
    for path in paths:
        with np.load(path, allow_pickle=False) as data:
            shards.append({k: data[k] for k in data.files})
    joined = {k: np.concatenate([s[k] for s in shards]) for k in shards[0]}
    ends = np.cumsum(joined["ray_size"])
    return Records(
        calibration=header["calibration"],
        calibration_sha256=header["calibration_sha256"],
        spec=spec,
        settings=tuple(EngineSetting(**s) for s in header["settings"]),
        mixes=tuple(AdapterArrays.from_matrix(m) for m in np.split(joined["ray_adapters"], ends[:-1])),
        setting=joined["ray_setting"],
        theta={rule: joined["ray_theta"][:, k] for k, rule in enumerate(RULES)},
        ray=joined["column_ray"],
        factor=joined["column_theta"],
        metrics=dict(zip(METRICS, joined["column_metrics"].T, strict=True)),
    )


def join_records(parts: Sequence[Records]) -> Records:
    """Data sets of several seeds as one; more rays are the surest way to a better boundary.

    Raises:
        InputError: they differ in calibration, settings or horizon, or one seed appears twice.
    """
    first = parts[0]
    for part in parts[1:]:
        if (part.calibration_sha256, part.settings, part.spec["horizon_s"]) != (
            first.calibration_sha256, first.settings, first.spec["horizon_s"],
        ):  # fmt: skip
            raise InputError(
                "data sets of different calibrations, settings or horizons cannot be joined",
                remedy="make them with the same options and different spec.seed",
            )
    seeds = [part.spec["seed"] for part in parts]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"data sets with the same seed: {seeds}", remedy="give each a spec.seed of its own")
    starts = np.cumsum([0, *(len(part.mixes) for part in parts)])
    sizes = ("rays", "columns")
    return Records(
        calibration=first.calibration,
        calibration_sha256=first.calibration_sha256,
        spec=first.spec | {k: sum(p.spec[k] for p in parts) for k in sizes} | ({"seed": seeds} if parts[1:] else {}),
        settings=first.settings,
        mixes=tuple(mix for part in parts for mix in part.mixes),
        setting=np.concatenate([part.setting for part in parts]),
        theta={rule: np.concatenate([part.theta[rule] for part in parts]) for rule in RULES},
        ray=np.concatenate([part.ray + start for part, start in zip(parts, starts, strict=False)]),
        factor=np.concatenate([part.factor for part in parts]),
        metrics={name: np.concatenate([part.metrics[name] for part in parts]) for name in METRICS},
    )
