"""From the groups of a configuration (`model`, `hardware`, options of `engine`) to a derived calibration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import yaml

from profiling.derive.architecture import Architecture, from_sizes, read_config
from profiling.derive.constants import shipped_constants
from profiling.derive.derivation import derive, fitted
from profiling.derive.device import Device
from profiling.derive.operators import INSTALL, Kernels, SheetKernels, installed, measured_kernels
from profiling.derive.runs import Runs
from profiling.derive.target import MEASURED_ENGINE, Request
from twin.config.folder import conf_dir
from twin.errors import InputError
from twin.server.calibration import Calibration

SHEET = ("memory_gib", "bandwidth", "flops", "pcie")


def architecture_of(model: Mapping[str, Any]) -> Architecture:
    """The sizes of the model, from its `config.json` or from `conf/model`.

    Raises:
        InputError: it has neither, or they are not usable.
    """
    if model.get("config") is not None:
        return read_config(model["config"])
    if model.get("sizes") is None:
        raise InputError(
            f"the sizes of model {model['name']!r} are not known, so no calibration can be derived for it",
            where="model.sizes, model.config",
            remedy="give its configuration: model=hf model.config=<path of a Hugging Face config.json>",
        )
    return from_sizes(model["sizes"], f"model {model['name']}: sizes")


def device_of(hardware: Mapping[str, Any]) -> Device:
    """The GPU's data sheet.

    Raises:
        InputError: a number of it is missing.
    """
    missing = [key for key in SHEET if hardware.get(key) is None]
    if missing:
        raise InputError(
            f"the data sheet of {hardware['name']!r} lacks {', '.join(missing)}, so no calibration can be derived",
            where="hardware",
            remedy="give " + " ".join(f"hardware.{key}=..." for key in missing),
        )
    numbers = {key: float(hardware[key]) for key in (*SHEET, "link") if hardware.get(key) is not None}
    return Device(str(hardware["name"]), **numbers, system=str(hardware.get("system") or ""))


def request_of(data: Mapping[str, Any]) -> Request:
    """What to derive, from plain containers `{"model": ..., "hardware": ..., "engine": ...}`."""
    model, engine = data["model"], data.get("engine") or {}
    names = ("tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens")
    flags = {key: engine[key] for key in names if engine.get(key) is not None}
    version = str(engine.get("version") or MEASURED_ENGINE)
    return Request(str(model["name"]), architecture_of(model), device_of(data["hardware"]), version, **flags)


def for_names(model: str, hardware: str) -> Request:
    """What to derive for options of `conf/model` and `conf/hardware`."""
    named = {"model": model, "hardware": hardware}
    return request_of({g: yaml.safe_load((conf_dir() / g / f"{n}.yaml").read_text()) for g, n in named.items()})


def kernels_of(request: Request) -> Kernels:
    """Measured operator times where the GPU has them, else the roofline.

    Raises:
        InputError: the GPU has operator times, and the package that holds them is not installed.
    """
    request.model.check_tensor_parallel(request.tensor_parallel_size)
    if not request.device.system:
        return SheetKernels(request.model, request.device, request.tensor_parallel_size)
    if not installed():
        raise InputError(
            f"no calibration of {request.model_name} on {request.device.name} was measured, and the operator times to "
            "derive one are not installed",
            where=f"calibration of {request.name}",
            remedy=f"{INSTALL}, then the same command again "
            f"(python -m profiling derive model=... hardware=... shows what it derives); "
            "or hardware.system=null to derive from the data sheet alone",
        )
    return measured_kernels(request.model, request.device, request.tensor_parallel_size)


def derived(data: Mapping[str, Any], runs: Runs | None = None) -> Calibration:
    """The derived calibration of a configuration, fitted to runs of one's own where there are any.

    Raises:
        InputError: something is missing, unknown or does not fit.
    """
    request, today = request_of(data), date.today().isoformat()
    kernels, constants = kernels_of(request), shipped_constants()
    if runs is None:
        return derive(request, kernels, constants, date=today)
    return fitted(request, kernels, constants, runs.rows, date=today, capacities=runs.capacities)
