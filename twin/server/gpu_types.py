"""The GPU types of a fleet: one, or several with a calibration, a price and a stock each.

One type is a flat group `hardware`; several are a group each in it, under any keys:

    hardware:
      h100-sxm: {name: h100-sxm, price_per_hour: 2.5, count: 4, ...}
      l40s: {name: l40s, price_per_hour: 0.9, tensor_parallel_size: 2, ...}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twin.config.schema import parse
from twin.errors import DoesNotFitError, InputError
from twin.server.calibration import Calibration
from twin.server.groups import HardwareConfig, ModelConfig, matching_calibration


@dataclass(frozen=True, slots=True)
class GpuTypes:
    """Types of GPU that a model is placed on.

    Args:
        hardware: of each type.
        calibrations: by the name of the type, in the same order; prices and stock filled in.
        notes: types that are left out, and why.
    """

    hardware: tuple[HardwareConfig, ...]
    calibrations: Mapping[str, Calibration]
    notes: tuple[str, ...] = ()


def read_hardware(node: Any) -> dict[str, HardwareConfig]:
    """The types of a group `hardware` by their keys in it; one type alone has the key "".

    Raises:
        InputError: an option is unknown or out of its range, or two types have one name.
    """
    if not _several(node):
        return {"": parse(HardwareConfig, node, "hardware")}
    found = {str(key): parse(HardwareConfig, value, f"hardware.{key}") for key, value in node.items()}
    names = [hardware.name for hardware in found.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two GPU types have the name {twice!r}", where="hardware", remedy="give each its own name")
    return found


def read_gpu_types(
    hardware: Mapping[str, HardwareConfig],
    node: Mapping[str, Any] | None,
    model: ModelConfig,
    engine: Mapping[str, Any],
) -> GpuTypes:
    """Calibrations of the types that the model fits on.

    Args:
        hardware: as `read_hardware` gives it.
        node: the group `calibration`: measured ones, under the same keys; one that is missing is derived.

    Raises:
        InputError: as `matching_calibration`; of several types, only where the model fits on none.
    """
    if "" in hardware:
        (one,) = hardware.values()
        return GpuTypes((one,), {one.name: matching_calibration(node, model, one, engine)})
    measured = dict(node or {})
    unknown = [key for key in measured if key not in hardware]
    if unknown:
        raise InputError(
            f"calibration.{unknown[0]} belongs to none of the GPU types {', '.join(hardware)}",
            where="calibration",
            remedy="leave calibration out to follow model and hardware, or give calibration.<type> for one of these",
        )
    found: dict[str, Calibration] = {}
    refused: dict[str, DoesNotFitError] = {}
    for key, one in hardware.items():
        try:
            found[one.name] = matching_calibration(measured.get(key), model, one, engine)
        except DoesNotFitError as error:
            refused[key] = error
        except InputError as error:
            raise InputError(error.problem, where=f"hardware.{key}: {error.where}", remedy=error.remedy) from error
    if not found:
        raise next(iter(refused.values()))
    notes = [
        f"{hardware[key].name} is left out: {error.problem}; "
        f"{error.remedy.replace('engine.tensor_parallel_size', f'hardware.{key}.tensor_parallel_size')}"
        for key, error in refused.items()
    ]
    return GpuTypes(tuple(h for h in hardware.values() if h.name in found), found, tuple(notes))


def _several(node: Any) -> bool:
    return isinstance(node, Mapping) and bool(node) and all(isinstance(value, Mapping) for value in node.values())
