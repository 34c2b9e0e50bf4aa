"""Trained weights on disk: `residual.safetensors` (arrays) and `residual.json` (what they mean, how good they are).

Nothing is unpickled. The JSON holds the hash of the weights and the names of all inputs and outputs; files that do not
belong together, or to this version, are refused. No calibration is named but for the record of what was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from surrogates.residual.forward import Network
from surrogates.residual.heads import BOUNDARY_INPUTS, BOUNDARY_OUTPUTS, OUTPUTS
from surrogates.residual.inputs import INPUTS
from twin.errors import InputError
from twin.files import write_bytes

FORMAT_VERSION = 1
WEIGHTS_FILE, META_FILE = "residual.safetensors", "residual.json"
#: What the arrays are read as: files of other numbers are refused.
NAMES: dict[str, list[str]] = {
    "boundary_inputs": list(BOUNDARY_INPUTS),
    "boundary_outputs": list(BOUNDARY_OUTPUTS),
    "column_inputs": list(INPUTS),
    "column_outputs": list(OUTPUTS),
}
REMEDY = "train it: python -m surrogates residual"


def weights_folder() -> Path:
    """Where the trained residual ships."""
    return Path(__file__).resolve().parent.parent / "weights" / "residual"


@dataclass(frozen=True, slots=True)
class Residual:
    """Both ensembles.

    Args:
        boundary: log(theta* / that of the physics), from `BOUNDARY_INPUTS`.
        column: logarithms of the corrections `OUTPUTS` of a column at its own load, from `INPUTS`.
        meta: plain containers: seed, data, options and scores.
    """

    boundary: Network
    column: Network
    meta: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Writes both files, the weights first; each is complete or absent."""
        arrays = self.boundary.arrays("boundary") | self.column.arrays("column")
        data = save({name: arrays[name] for name in sorted(arrays)})
        meta = {
            "format_version": FORMAT_VERSION,
            **NAMES,
            **self.meta,
            "weights_sha256": hashlib.sha256(data).hexdigest(),
        }
        write_bytes(folder / WEIGHTS_FILE, data)
        write_bytes(folder / META_FILE, json.dumps(meta, indent=1).encode() + b"\n")


def read_residual(folder: Path | None = None) -> Residual:
    """Reads and checks trained weights; None = those that ship.

    Raises:
        InputError: files are missing or damaged, or of another version.
    """
    folder = folder or weights_folder()
    where = str(folder)
    try:
        data = (folder / WEIGHTS_FILE).read_bytes()
        meta = json.loads((folder / META_FILE).read_text())
    except FileNotFoundError as error:
        raise InputError("there is no trained residual", where=where, remedy=REMEDY) from error
    except ValueError as error:
        raise InputError(f"{META_FILE} is not valid JSON: {error}", where=where, remedy=REMEDY) from error
    for key, value in {"format_version": FORMAT_VERSION, **NAMES}.items():
        if not isinstance(meta, dict) or meta.get(key) != value:
            raise InputError(f"the residual was written with other {key}", where=where, remedy=REMEDY)
    if meta.get("weights_sha256") != hashlib.sha256(data).hexdigest():
        raise InputError(f"{WEIGHTS_FILE} does not match the hash in {META_FILE}", where=where, remedy=REMEDY)
    try:
        arrays = load(data)
    except SafetensorError as error:
        raise InputError(f"{WEIGHTS_FILE} is damaged: {error}", where=where, remedy=REMEDY) from error
    return Residual(Network.from_arrays(arrays, "boundary"), Network.from_arrays(arrays, "column"), meta)
