"""Everything measured about one (GPU, model, engine version).

A calibration is data, kept as YAML under `conf/calibration/` and written by `python -m profiling fit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from twin.config.folder import conf_dir
from twin.config.ranges import Range, check
from twin.errors import InputError
from twin.server.batching_laws import BatchingLaws, batching_laws
from twin.server.hardware import GpuType, ModelSpec
from twin.server.slots import ModelShape, reserved_bytes

_REFIT = "fit it again: python -m profiling fit"
FINITE, NOT_NEGATIVE = Range(hint=_REFIT), Range(0, hint=_REFIT)


@dataclass(frozen=True, slots=True)
class StepTimeLaw:
    """Wall time of one engine step in milliseconds, a sum of non-negative terms.

    With B decoding requests, P prompt tokens, T = B + P, K resident KV tokens, n distinct adapters in the
    step (0 = none), R = `max_lora_rank`, M = `max_loras`, W waiting requests and S requests scanned past::

        base + seq*B + prompt*P + kv*K/1000 + [T > graph_tokens]*cliff + past_graph*(T - graph_tokens)+
        + [n > 0] * (lora + adapter*n + adapter_rank*n*R/16 + slot*M + slot_token*M*T/1000 + lora_token*T
                     + adapter_token*n*T/1000 + adapter_small*n*[T < 128] + adapter_large*n*[T > graph_tokens])
        + skipped*S/1000 + queue*B*W/1e6

    Coefficients are collinear in saturated runs: a predictor inside `Calibration.valid`, not physics.
    """

    base: float
    seq: float
    prompt: float
    kv: float
    cliff: float
    past_graph: float
    lora: float
    adapter: float
    adapter_rank: float
    slot: float
    slot_token: float
    lora_token: float
    adapter_token: float
    adapter_small: float
    adapter_large: float
    skipped: float
    queue: float
    graph_tokens: float = 512.0

    def __post_init__(self) -> None:
        for field in fields(self):
            check(getattr(self, field.name), f"step-time coefficient {field.name}", NOT_NEGATIVE)

    def as_array(self) -> NDArray[np.float64]:
        """Coefficients in field order, shape (18,), for the kernel."""
        return np.array([getattr(self, f.name) for f in fields(self)], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class LoadLaw:
    """Times to load an adapter, ms: from host memory into a GPU slot, and from disk into host memory.

    Both block the step. An adapter of lower rank than `max_lora_rank` is padded while it is copied to the GPU and
    takes longer. A load from disk reads and parses the adapter's file, `disk_base_ms + disk_rank_ms * rank`: measured
    with files that the operating system had in its page cache (a first touch took up to 7 times as long). The
    defaults, 0, stand for adapters that are all in host memory, as in the published runs.
    """

    equal_rank_ms: float
    lower_rank_ms: float
    disk_base_ms: float = 0.0
    disk_rank_ms: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            check(getattr(self, field.name), f"load time {field.name}", NOT_NEGATIVE)

    def disk_ms(self, rank: int) -> float:
        """Disk to host memory, ms, for an adapter of this rank (the slots' rank does not matter)."""
        return self.disk_base_ms + self.disk_rank_ms * rank


@dataclass(frozen=True, slots=True)
class KvCapacityLaw:
    """KV cache tokens left after weights and adapter slots, at `gpu_memory_utilization` = 0.9.

    With a model shape the slots' allocations are replayed (`twin.server.slots`), which reproduces the measured
    capacities within two allocator segments and holds for ranks that were not measured:
    `tokens = (free_bytes - reserved_bytes(shape, max_loras, max_lora_rank)) / kv_bytes_per_token`.
    Without one, a straight line:
    `tokens = base_tokens - tokens_per_slot_rank * max_loras * max_lora_rank - tokens_per_slot * max_loras`.
    `twin.server.memory` rounds down to whole blocks.

    Args:
        free_bytes: memory for weights, slots and KV cache, that is without activations and the driver's share.
    """

    base_tokens: float
    tokens_per_slot_rank: float
    tokens_per_slot: float = 0.0
    free_bytes: int | None = None
    shape: ModelShape | None = None

    def __post_init__(self) -> None:
        for name in ("base_tokens", "tokens_per_slot_rank", "tokens_per_slot"):
            check(getattr(self, name), f"KV capacity {name}", FINITE)

    def tokens(self, max_loras: int, max_lora_rank: int, kv_bytes_per_token: int) -> float:
        """Tokens before rounding to blocks; negative where weights and slots do not fit."""
        if self.shape is None or self.free_bytes is None:
            slots = self.tokens_per_slot_rank * max_lora_rank + self.tokens_per_slot
            return self.base_tokens - slots * max_loras
        return (self.free_bytes - reserved_bytes(self.shape, max_loras, max_lora_rank)) / kv_bytes_per_token


@dataclass(frozen=True, slots=True)
class Stamp:
    """Where a calibration comes from."""

    gpu_type: str
    model: str
    engine: str
    engine_version: str
    date: str
    source: str
    points: Mapping[str, int]
    residuals: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """All the twin needs to know of a (GPU, model, engine version).

    Args:
        name: file name without `.yaml`.
        valid: ranges in which the laws were fitted, e.g. `{"max_loras": (8, 384)}`.
        batching: laws for batch sizes and servers that share a GPU; None = not measured.
    """

    name: str
    stamp: Stamp
    gpu: GpuType
    model: ModelSpec
    step: StepTimeLaw
    load: LoadLaw
    kv: KvCapacityLaw
    valid: Mapping[str, tuple[float, float]]
    first_token_overhead_ms: float = 0.0
    batching: BatchingLaws | None = None

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

    def require(self, *, model: str | None = None, engine_version: str | None = None) -> None:
        """Refuses a calibration of another model or engine version than asked for."""
        for asked, have, what in (
            (model, self.stamp.model, "model"),
            (engine_version, self.stamp.engine_version, "engine_version"),
        ):
            if asked is not None and asked != have:
                raise InputError(
                    f"calibration {self.name!r} was measured with {what} {have!r}, asked for {asked!r}",
                    remedy=f"choose another calibration, or override {what}={have} by name",
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for YAML."""
        data = asdict(self)
        data["valid"] = {k: list(v) for k, v in self.valid.items()}
        if self.batching is None:
            del data["batching"]
        return data


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
            first_token_overhead_ms=float(data.get("first_token_overhead_ms", 0.0)),
            batching=batching_laws(data.get("batching")),
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"calibration is malformed: {type(error).__name__} {error}",
            where=where,
            remedy="write it with `python -m profiling fit`",
        ) from error


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
