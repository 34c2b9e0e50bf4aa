"""Reads a data set back: rays, their boundaries and all simulated columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.dataset import FORMAT_VERSION, METRICS
from surrogates.features import AdapterArrays, features_of_arrays
from surrogates.rules import RULES, Rule
from twin.errors import InputError
from twin.settings import EngineSetting

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
