"""Everything measured about one (GPU, model, engine version).

A calibration is data, kept as YAML under `conf/calibration/` and written by `python -m profiling fit`; where nobody
measured, `python -m profiling derive` computes one, with an interval for every coefficient.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from twin.config.folder import conf_dir
from twin.errors import InputError
from twin.server.derived import Derived, End, derived_from_dict
from twin.server.hardware import GpuType, ModelSpec
from twin.server.laws import KvCapacityLaw, LoadLaw, StepTimeLaw
from twin.server.roofline import Roofline
from twin.server.sharing import SharingLaw
from twin.server.slots import ModelShape


@dataclass(frozen=True, slots=True)
class Stamp:
    """Where a calibration comes from.

    Args:
        tensor_parallel_size: GPUs of the server that it is of.
    """

    gpu_type: str
    model: str
    engine: str
    engine_version: str
    date: str
    source: str
    points: Mapping[str, int]
    residuals: Mapping[str, float]
    tensor_parallel_size: int = 1


@dataclass(frozen=True, slots=True)
class SeparatePrefill:
    """Costs of an engine that prefills prompts in steps of their own (vLLM V0 without chunked prefill).

    Args:
        prefill_step_ms: a prefill step without its tokens: weights are read again, no CUDA graph.
        eager_seq_ms: of a decode step, per request beyond `graph_seqs`, the largest batch with a CUDA graph.
    """

    prefill_step_ms: float
    eager_seq_ms: float
    graph_seqs: int


@dataclass(frozen=True, slots=True)
class BatchingLaws:
    """Laws fitted on measurements over batch sizes and co-located servers.

    Args:
        sequence_bytes: memory that the engine sets aside per `max_num_seqs` when it profiles itself (logits and
            sampling buffers); it is taken from the KV cache.
    """

    roofline: Roofline
    sharing: SharingLaw
    prefill: SeparatePrefill
    sequence_bytes: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """All the twin needs to know of a (GPU, model, engine version).

    Args:
        name: file name without `.yaml`.
        valid: ranges in which the laws were fitted, e.g. `{"max_loras": (8, 384)}`.
        batching: laws for batch sizes and servers that share a GPU; None = not measured.
        derived: of a calibration that was computed, what it knows of its uncertainty; None = measured.
    """

    name: str
    stamp: Stamp
    gpu: GpuType
    model: ModelSpec
    step: StepTimeLaw
    load: LoadLaw
    kv: KvCapacityLaw
    valid: Mapping[str, tuple[float, float]]
    batching: BatchingLaws | None = None
    derived: Derived | None = None

    @property
    def has_adapter_costs(self) -> bool:
        """Whether adapters were measured at all; without, only base-model requests can be simulated."""
        return any(x > 0 for x in (self.step.lora, self.step.adapter, self.step.slot, self.load.equal_rank_ms))

    def outside(self, **values: float) -> list[str]:
        """Names the values that lie outside the fitted ranges, e.g. `max_loras 512 is outside 8..384`."""
        notes = []
        for key, value in values.items():
            low, high = self.valid.get(key, (-math.inf, math.inf))
            if not low <= value <= high:
                notes.append(f"{key} {value:g} is outside {low:g}..{high:g}, where {self.name} was fitted")
        return notes

    def at(self, end: End) -> Calibration:
        """With the coefficients at one end of what a derived calibration may be; a measured one stays as it is."""
        if self.derived is None:
            return self
        coefficients = self.derived.end(end)

        def group(name: str) -> dict[str, float]:
            return {k.partition(".")[2]: v for k, v in coefficients.items() if k.startswith(f"{name}.")}

        return replace(
            self,
            step=replace(self.step, **group("step")),
            load=replace(self.load, **group("load")),
            kv=replace(self.kv, free_bytes=int(coefficients["kv.free_bytes"])),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for YAML; what only some calibrations have is left out of the others."""
        data = asdict(self)
        data["valid"] = {k: list(v) for k, v in self.valid.items()}
        if self.batching is None:
            del data["batching"]
        if self.stamp.tensor_parallel_size == 1:
            del data["stamp"]["tensor_parallel_size"]
        shape = data["kv"]["shape"]
        if shape is not None:
            for name in ("query_width", "tied"):
                if not shape[name]:
                    del shape[name]
        if self.derived is None:
            del data["derived"]
        else:
            data["derived"] = self.derived.to_dict()
        return data


def fingerprint(calibration: Calibration) -> str:
    """SHA-256 of what the twin reads of a calibration: laws, memory and model; not prices, counts or residuals."""
    data = calibration.to_dict()
    parts: dict[str, Any] = {
        "engine": [data["stamp"][k] for k in ("gpu_type", "model", "engine", "engine_version")],
        "memory_bytes": data["gpu"]["memory_bytes"],
        **{k: data[k] for k in ("model", "step", "load", "kv", "batching") if k in data},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=float).encode()).hexdigest()


def calibration_from_dict(data: Mapping[str, Any], *, where: str = "") -> Calibration:
    """Builds a calibration from plain containers (a YAML file or a Hydra node)."""
    try:
        return Calibration(
            name=str(data["name"]),
            stamp=Stamp(**data["stamp"]),
            gpu=GpuType(**data["gpu"]),
            model=ModelSpec(**data["model"]),
            step=StepTimeLaw(**data["step"]),
            load=LoadLaw(**data["load"]),
            kv=_kv_law(data["kv"]),
            valid={k: (float(v[0]), float(v[1])) for k, v in data["valid"].items()},
            batching=_batching_laws(data.get("batching")),
            derived=None if data.get("derived") is None else derived_from_dict(data["derived"]),
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"calibration is malformed: {type(error).__name__} {error}",
            where=where,
            remedy="write it with `python -m profiling fit`",
        ) from error


def _batching_laws(data: Mapping[str, Any] | None) -> BatchingLaws | None:
    """From plain containers; None stays None."""
    if data is None:
        return None
    return BatchingLaws(
        roofline=Roofline(**data["roofline"]),
        sharing=SharingLaw(**data["sharing"]),
        prefill=SeparatePrefill(**data["prefill"]),
        sequence_bytes=float(data["sequence_bytes"]),
    )


def _kv_law(data: Mapping[str, Any]) -> KvCapacityLaw:
    shape = data.get("shape")
    return KvCapacityLaw(**{**data, "shape": None if shape is None else ModelShape(**shape)})


def load_calibration(name_or_path: str | Path) -> Calibration:
    """Reads a shipped calibration by name, or a YAML file by path."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = calibration_dir() / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in calibration_dir().glob("*.yaml")))
        raise InputError(
            f"calibration {str(name_or_path)!r} does not exist", where=str(path), remedy=f"choose one of: {known}"
        )
    return calibration_from_dict(yaml.safe_load(path.read_text()), where=str(path))


def calibration_dir() -> Path:
    """Folder of the shipped calibrations."""
    return conf_dir() / "calibration"
