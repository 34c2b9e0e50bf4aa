"""What a certificate is about: hashes of a workload and of a `placement.json` document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from twin.server.calibration import Calibration, fingerprint
from twin.workload.adapter import Adapter

#: What a placement is and claims; other entries of the document tell how it was found.
CLAIMED = (
    "objective", "terms", "bound", "bound_outer", "gap", "gap_parts", "bound_rests_on", "termination", "gpus",
)  # fmt: skip
#: Of a GPU.
DECIDED = ("gpu_id", "gpu_type", "setting", "adapters")


def workload_hash(adapters: Iterable[Adapter]) -> str:
    """SHA-256 of everything that planning knows of the adapters, in their order."""
    return hashlib.sha256("\n".join(repr(a) for a in adapters).encode()).hexdigest()


def placement_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of a `placement.json` document: what is placed where, and what is claimed of it."""
    said = {name: document.get(name) for name in CLAIMED}
    said["gpus"] = [gpu_hash(gpu) for gpu in document["gpus"]]
    return _sha256(said)


def calibrations_hash(calibrations: Mapping[str, Calibration]) -> str:
    """SHA-256 of what planning reads of the calibrations, by type of GPU."""
    return _sha256({name: fingerprint(calibration) for name, calibration in calibrations.items()})


def gpu_hash(gpu: Mapping[str, Any]) -> str:
    """SHA-256 of an entry of `gpus`: which adapters it holds under which setting."""
    return _sha256({name: gpu[name] for name in DECIDED})


def _sha256(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
