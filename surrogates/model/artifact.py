"""Trained weights on disk: `surrogate.safetensors` (arrays) and `surrogate.json` (what they mean).

Nothing is unpickled. The JSON holds the hash of the weights and of the calibration that the twin used; a file that
does not match is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from surrogates.model.context import CONTEXT_NAMES, calibration_hash
from surrogates.model.features import FEATURE_NAMES, FEATURE_UNITS
from surrogates.model.forward import Scaling
from twin.errors import InputError
from twin.server.calibration import Calibration

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

ARTIFACT_VERSION = 2
WEIGHTS_FILE, META_FILE = "surrogate.safetensors", "surrogate.json"


def weights_folder(calibration: str) -> Path:
    """Where the weights of a calibration ship."""
    return Path(__file__).resolve().parent.parent / "weights" / calibration


@dataclass(frozen=True, slots=True)
class Artifact:
    """All networks of one calibration.

    Args:
        tensors: arrays by `<network>.<array>`, e.g. `stable.gauge.out_weight`.
        meta: plain containers: calibration, features, hull, margins, scores, provenance.
    """

    tensors: Mapping[str, Array]
    meta: Mapping[str, Any]

    def block(self, prefix: str) -> dict[str, Array]:
        """Arrays of one network, e.g. `stable.gauge`."""
        return {k[len(prefix) + 1 :]: v for k, v in self.tensors.items() if k.startswith(prefix + ".")}

    @property
    def scaling(self) -> Scaling:
        return Scaling(**self.block("scaling"))

    def write(self, folder: Path) -> None:
        """Writes both files, the weights first; each is complete or absent."""
        folder.mkdir(parents=True, exist_ok=True)
        data = save({k: _stored(k, v) for k, v in sorted(self.tensors.items())})
        meta = {
            "artifact_version": ARTIFACT_VERSION,
            "feature_names": list(FEATURE_NAMES),
            "feature_units": list(FEATURE_UNITS),
            "context_names": list(CONTEXT_NAMES),
            **self.meta,
            "weights_sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, content in ((WEIGHTS_FILE, data), (META_FILE, json.dumps(meta, indent=1).encode() + b"\n")):
            temporary = folder / f"{name}.tmp"
            temporary.write_bytes(content)
            temporary.replace(folder / name)

    def summary(self) -> str:
        """Held-out scores as text."""
        return json.dumps(self.meta["scores"], indent=1)


def _stored(name: str, array: Array) -> NDArray[np.generic]:
    # Networks are trained in single precision; scales and limits keep double.
    single = not name.startswith(("scaling.", "hull."))
    return np.ascontiguousarray(array, dtype=np.float32 if single else np.float64)


def as_stored(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays as they come back from disk, so that margins are set for exactly those."""
    return {k: np.asarray(_stored(k, v), dtype=np.float64) for k, v in tensors.items()}


def read_artifact(folder: Path, calibration: Calibration) -> Artifact:
    """Reads and checks an artifact.

    Raises:
        InputError: files are missing or damaged, written by another version, or trained for another calibration.
    """
    remake = f"python -m surrogates dataset calibration={calibration.name} && python -m surrogates train calibration="
    remedy = f"make them: {remake}{calibration.name}"
    where = str(folder)
    try:
        data = (folder / WEIGHTS_FILE).read_bytes()
        meta = json.loads((folder / META_FILE).read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"no trained surrogate for calibration {calibration.name!r}", where=where, remedy=remedy
        ) from error
    except ValueError as error:
        raise InputError(f"{META_FILE} is not valid JSON: {error}", where=where, remedy=remedy) from error
    expected = {
        "artifact_version": ARTIFACT_VERSION,
        "feature_names": list(FEATURE_NAMES),
        "context_names": list(CONTEXT_NAMES),
    }
    for key, value in expected.items():
        if not isinstance(meta, dict) or meta.get(key) != value:
            raise InputError(f"the surrogate was written with other {key}", where=where, remedy=remedy)
    if meta.get("weights_sha256") != hashlib.sha256(data).hexdigest():
        raise InputError(f"{WEIGHTS_FILE} does not match the hash in {META_FILE}", where=where, remedy=remedy)
    if meta.get("calibration_sha256") != calibration_hash(calibration):
        raise InputError(
            f"the surrogate was trained on another version of calibration {calibration.name!r} "
            f"(its own: {meta.get('calibration')!r})",
            where=where,
            remedy=remedy,
        )
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise InputError(f"{WEIGHTS_FILE} is damaged: {error}", where=where, remedy=remedy) from error
    log.info("trained surrogate of %s from %s", calibration.name, folder)
    return Artifact({k: np.asarray(v, dtype=np.float64) for k, v in tensors.items()}, meta)
