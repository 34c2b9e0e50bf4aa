"""Rays on disk: one Parquet file a shard, one row a ray, the adapters and the simulated columns of a ray as lists.

What is stored are columns and what the twin said about them, never what the physics says: that is computed again when
the physics has changed. `rays.json` beside the shards says what was asked for and holds all calibrations.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from surrogates.residual.mixes import Draw, Mix
from twin.errors import InputError
from twin.figures.prediction import Prediction
from twin.files import write_bytes
from twin.server.calibration import Calibration, calibration_from_dict
from twin.server.settings import EngineSetting

Floats = NDArray[np.float64]

FORMAT_VERSION = 1
HEADER_FILE = "rays.json"
METRICS: tuple[str, ...] = tuple(f.name for f in fields(Prediction))
_MIX_FIELDS: tuple[str, ...] = tuple(f.name for f in fields(Mix))


@dataclass(frozen=True, slots=True)
class Ray:
    """A mix under a setting and C simulated columns of it, which differ in the factor on all rates.

    Args:
        calibration: its name. index: among the rays of that calibration.
        guess: theta* by the physics when the ray was made; NaN = it saw no healthy factor.
        theta: largest healthy factor in the twin; NaN = none was found.
        loads: factors, (C,). healthy: the verdict of the rule `stable`, (C,).
        metrics: fields of `Prediction`, (C,) each.
    """

    calibration: str
    index: int
    draw: Draw
    guess: float
    theta: float
    loads: Floats
    healthy: NDArray[np.bool_]
    metrics: dict[str, Floats]


def shard_path(folder: Path, calibration: str, shard: int) -> Path:
    return folder / f"{calibration}-{shard:04d}.parquet"


def write_shard(path: Path, rays: Sequence[Ray]) -> None:
    """Writes a shard, whole or not at all; the same rays give the same bytes."""
    parquet, arrow = _pyarrow()
    columns: dict[str, list[Any]] = {
        "index": [r.index for r in rays],
        "kind": [r.draw.kind for r in rays],
        "setting": [json.dumps(asdict(r.draw.setting)) for r in rays],
        "slo_s": [r.draw.slo_s for r in rays],
        "simulation_seed": [r.draw.simulation_seed for r in rays],
        "guess": [r.guess for r in rays],
        "theta": [r.theta for r in rays],
        "loads": [r.loads.tolist() for r in rays],
        "healthy": [r.healthy.tolist() for r in rays],
    }
    columns |= {f"adapter.{name}": [getattr(r.draw.mix, name).tolist() for r in rays] for name in _MIX_FIELDS}
    columns |= {f"twin.{name}": [r.metrics[name].tolist() for r in rays] for name in METRICS}
    buffer = io.BytesIO()
    parquet.write_table(arrow.table(columns), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_shard(path: Path, calibration: str) -> list[Ray]:
    """The rays of a shard, in order."""
    parquet, _ = _pyarrow()
    rows = parquet.read_table(path).to_pylist()

    def array(values: list[float]) -> Floats:
        return np.array(values, np.float64)

    return [
        Ray(
            calibration=calibration,
            index=row["index"],
            draw=Draw(
                Mix(**{name: array(row[f"adapter.{name}"]) for name in _MIX_FIELDS}),
                EngineSetting(**json.loads(row["setting"])),
                row["kind"],
                row["slo_s"],
                row["simulation_seed"],
            ),
            guess=row["guess"],
            theta=row["theta"],
            loads=array(row["loads"]),
            healthy=np.array(row["healthy"], np.bool_),
            metrics={name: array(row[f"twin.{name}"]) for name in METRICS},
        )
        for row in rows
    ]


def read_rays(folder: Path) -> tuple[list[Ray], dict[str, Calibration], dict[str, Any]]:
    """All finished rays of a data set, its calibrations by name, and what was asked for (`RaySpec` as a dictionary).

    Raises:
        InputError: there is no data set, or one of another format.
    """
    path = folder / HEADER_FILE
    if not path.is_file():
        raise InputError(
            f"no rays in {str(folder)!r}", where=str(path), remedy="make them: python -m surrogates rays out=..."
        )
    header = json.loads(path.read_text())
    if header["format_version"] != FORMAT_VERSION or header["metrics"] != list(METRICS):
        raise InputError("the rays were written by another version", where=str(path), remedy="make them again")
    calibrations = {c["name"]: calibration_from_dict(c, where=str(path)) for c in header["calibrations"]}
    rays = [
        ray
        for name in calibrations
        for shard in sorted(folder.glob(f"{name}-[0-9][0-9][0-9][0-9].parquet"))
        for ray in read_shard(shard, name)
    ]
    return rays, calibrations, header["spec"]


def write_header(
    folder: Path, spec: dict[str, Any], calibrations: Sequence[Calibration], growing: frozenset[str]
) -> None:
    """Writes `rays.json`, or checks that the one that is there asks for the same.

    Args:
        growing: keys of `spec` that may differ from the ones that are there: counts, of which more can be asked for.

    Raises:
        InputError: the folder holds rays made with other options.
    """
    path = folder / HEADER_FILE
    header = {
        "format_version": FORMAT_VERSION,
        "metrics": list(METRICS),
        "spec": spec,
        "calibrations": [c.to_dict() for c in calibrations],
    }
    text = json.dumps(header, indent=1)
    if path.is_file():
        have, wanted = json.loads(path.read_text()), json.loads(text)
        different = [k for k in ("format_version", "metrics") if have.get(k) != wanted[k]]
        different += [k for k in spec if k not in growing and have["spec"].get(k) != wanted["spec"][k]]
        shared = {c["name"]: c for c in have["calibrations"]}
        different += [c["name"] for c in wanted["calibrations"] if shared.get(c["name"], c) != c]
        if different:
            raise InputError(
                f"the folder holds rays made with another {', '.join(different)}",
                where=str(path),
                remedy="give the same options to continue, or another out=",
            )
    if not path.is_file() or path.read_text() != text:
        write_bytes(path, text.encode())


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise InputError(
            "rays are kept in Parquet files, which needs the package 'pyarrow'",
            remedy="pip install 'adapter-placement[train]'",
        ) from error
    return pyarrow.parquet, pyarrow
