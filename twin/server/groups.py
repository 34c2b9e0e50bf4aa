"""Groups of the configuration that every command reads: base model, hardware, calibration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from twin.config.ranges import Range
from twin.errors import InputError
from twin.server.hardware import GIB

if TYPE_CHECKING:
    from twin.server.calibration import Calibration

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """`conf/model`: the base model."""

    name: str
    weights: str


@dataclass(frozen=True, slots=True)
class HardwareConfig:
    """`conf/hardware`: one GPU type."""

    name: str
    price_per_hour: Annotated[float, Range(above=0)] = 1.0
    count: Annotated[int | None, Range(1, 1_000_000, unit="GPUs")] = None
    host_memory_gib: Annotated[float | None, Range(above=0, unit="GiB")] = None


def matching_calibration(
    node: Mapping[str, Any], model: ModelConfig, hardware: HardwareConfig, engine_version: str | None
) -> Calibration:
    """The calibration, if it was measured with this model, GPU and engine version; prices and stock filled in.

    Raises:
        InputError: it is malformed or was measured with something else.
    """
    from twin.server.calibration import calibration_dir, calibration_from_dict

    calibration = calibration_from_dict(node, where="calibration")
    stamp = calibration.stamp
    for group, asked, have in (
        ("model", model.name, stamp.model),
        ("hardware", hardware.name, stamp.gpu_type),
        ("engine.version", engine_version, stamp.engine_version),
    ):
        if asked is not None and asked != have:
            known = ", ".join(sorted(p.stem for p in calibration_dir().glob("*.yaml")))
            raise InputError(
                f"calibration {calibration.name!r} was measured with {have!r}, not with {asked!r}",
                where=f"calibration, {group}",
                remedy=f"leave calibration out to follow model and hardware, or choose one of: {known}",
            )
    log.info("calibration %s: %s on %s, vLLM %s", calibration.name, stamp.model, stamp.gpu_type, stamp.engine_version)
    gpu = replace(
        calibration.gpu,
        name=hardware.name,
        price_per_hour=hardware.price_per_hour,
        count=hardware.count,
        host_memory_bytes=calibration.gpu.host_memory_bytes
        if hardware.host_memory_gib is None
        else int(hardware.host_memory_gib * GIB),
    )
    return replace(calibration, gpu=gpu)
