"""Groups of the configuration that every command reads: base model, hardware, calibration."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from twin.config.ranges import Range
from twin.config.schema import parse
from twin.errors import InputError
from twin.server.flags import engine_version
from twin.server.hardware import GIB

if TYPE_CHECKING:
    from twin.server.calibration import Calibration

log = logging.getLogger(__name__)

#: Options of the group `hardware` that no calibration depends on, or only as options of the group `engine`.
NOT_OF_THE_SHEET = ("price_per_hour", "count", "host_memory_gib", "tensor_parallel_size")
#: Options of the group `engine` that a derived calibration depends on.
DERIVED_FROM = ("version", "tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """`conf/model`: the base model.

    Args:
        sizes: what derived calibrations need of it (`profiling.derive.architecture.Architecture`).
        config: a Hugging Face `config.json` instead of `sizes`.
    """

    name: str
    weights: str
    sizes: Any = None
    config: str | None = None


@dataclass(frozen=True, slots=True)
class HardwareConfig:
    """`conf/hardware`: one GPU type; from `memory_gib` on the data sheet that derived calibrations need.

    Args:
        price_per_hour: of one GPU, in any currency.
        count: GPUs that exist; None = as many as needed.
        tensor_parallel_size: GPUs that one server is split over; None = `engine.tensor_parallel_size`.
        memory_gib: memory that programs see.
        bandwidth: peak of its memory, GB/s.
        flops: peak of dense 16-bit matrix products, TFLOP/s.
        pcie, link: from host memory, and between GPUs, one direction, GB/s.
        system: whose measured operator times are used; None = the data sheet alone.
    """

    name: str
    price_per_hour: Annotated[float, Range(above=0)] = 1.0
    count: Annotated[int | None, Range(1, 1_000_000, unit="GPUs")] = None
    host_memory_gib: Annotated[float | None, Range(above=0, unit="GiB")] = None
    tensor_parallel_size: Annotated[int | None, Range(1, 64, unit="GPUs")] = None
    memory_gib: Annotated[float | None, Range(above=0, high=4096, unit="GiB")] = None
    bandwidth: Annotated[float | None, Range(above=0, high=100_000, unit="GB/s")] = None
    flops: Annotated[float | None, Range(above=0, high=100_000, unit="TFLOP/s")] = None
    pcie: Annotated[float | None, Range(above=0, high=2_000, unit="GB/s")] = None
    link: Annotated[float | None, Range(above=0, high=10_000, unit="GB/s")] = None
    system: str | None = None


def read_model(node: Any) -> ModelConfig:
    """The base model; one given by its `config.json` alone is named after the folder.

    Raises:
        InputError: an option is unknown or missing.
    """
    if isinstance(node, Mapping) and node.get("config") is not None:
        path = Path(str(node["config"])).expanduser()
        folder = path.parent if path.name == "config.json" else path
        usual = {"name": re.sub(r"[^a-z0-9.]+", "-", folder.stem.lower() if path == folder else folder.name.lower())}
        usual["weights"] = str(folder)
        node = {**node, **{key: value for key, value in usual.items() if node.get(key) is None}}
    return parse(ModelConfig, node, "model")


def engine_on(engine: Mapping[str, Any], hardware: HardwareConfig) -> Mapping[str, Any]:
    """The group `engine` as it is on one type of GPU: with its own `tensor_parallel_size`, where it has one."""
    if hardware.tensor_parallel_size is None:
        return engine
    return {**engine, "tensor_parallel_size": hardware.tensor_parallel_size}


def derivation_request(model: ModelConfig, hardware: HardwareConfig, engine: Mapping[str, Any]) -> dict[str, Any]:
    """What a calibration is derived from, in plain containers; prices and stock are no part of it."""
    sheet = {k: v for k, v in asdict(hardware).items() if k not in NOT_OF_THE_SHEET}
    sizes: dict[str, Any] = {"name": model.name, "sizes": model.sizes, "config": model.config}
    engine = engine_on(engine, hardware)
    flags = {key: engine[key] for key in DERIVED_FROM if engine.get(key) is not None}
    return {"model": sizes, "hardware": sheet, "engine": flags}


def matching_calibration(
    node: Mapping[str, Any] | None, model: ModelConfig, hardware: HardwareConfig, engine: Mapping[str, Any]
) -> Calibration:
    """The calibration for this model, GPU and engine; prices and stock filled in.

    Args:
        node: the measured one; None = there is none, so one is derived. A measured one is of servers on one GPU, so
            one is also derived for several.
        engine: of its options `version`, `tensor_parallel_size` and what takes memory from the KV cache count.

    Raises:
        InputError: it is malformed or was measured with something else, or none can be derived.
    """
    from twin.server.calibration import calibration_from_dict
    from twin.server.derivation import derived_calibration

    if node is not None:
        calibration = calibration_from_dict(node, where="calibration")
    engine = engine_on(engine, hardware)
    unit = engine.get("tensor_parallel_size", 1)
    if node is None or (calibration.stamp.tensor_parallel_size == 1 and unit != 1):
        calibration = derived_calibration(derivation_request(model, hardware, engine))
    _check_stamp(calibration, model, hardware, engine_version(engine), unit)
    stamp = calibration.stamp
    log.info("calibration %s: %s on %s, vLLM %s", calibration.name, stamp.model, stamp.gpu_type, stamp.engine_version)
    gpu = replace(
        calibration.gpu,
        name=hardware.name,
        # One unit of the fleet is a server with all its GPUs.
        price_per_hour=unit * hardware.price_per_hour,
        count=None if hardware.count is None else hardware.count // unit,
        host_memory_bytes=calibration.gpu.host_memory_bytes
        if hardware.host_memory_gib is None
        else int(hardware.host_memory_gib * GIB),
    )
    return replace(calibration, gpu=gpu)


def _check_stamp(
    calibration: Calibration, model: ModelConfig, hardware: HardwareConfig, version: str | None, unit: int
) -> None:
    """Refuses a calibration of something else."""
    from twin.server.calibration import calibration_dir

    stamp = calibration.stamp
    for group, asked, have in (
        ("model", model.name, stamp.model),
        ("hardware", hardware.name, stamp.gpu_type),
        ("engine.version", version, stamp.engine_version),
        ("engine.tensor_parallel_size", unit, stamp.tensor_parallel_size),
    ):
        if asked is not None and asked != have:
            known = ", ".join(sorted(p.stem for p in calibration_dir().glob("*.yaml")))
            raise InputError(
                f"calibration {calibration.name!r} was measured with {have!r}, not with {asked!r}",
                where=f"calibration, {group}",
                remedy=f"leave calibration out to follow model and hardware, or choose one of: {known}",
            )
    if hardware.count is not None and hardware.count < unit:
        raise InputError(
            f"{hardware.name}: count {hardware.count} is less than one server of {unit} GPUs",
            where="hardware.count, engine.tensor_parallel_size",
            remedy=f"raise hardware.count to {unit}, or split a server over fewer GPUs",
        )
