"""Measured operator times of vLLM on NVIDIA's GPUs, from the package `aiconfigurator-core` (Apache-2.0).

The only module that knows the package. It composes a model's step from operator times measured on the GPU; times of
the host are not in them.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from profiling.derive.architecture import Architecture
from profiling.derive.device import Device
from profiling.derive.work import Step, step_ms
from twin.config.schema import did_you_mean
from twin.errors import InputError
from twin.server.hardware import GIB

log = logging.getLogger(__name__)

PACKAGE = "aiconfigurator_core"
#: How the package is installed with this project.
INSTALL = "pip install 'adapter-placement[hardware]'"
BACKEND = "vllm"


class Kernels(Protocol):
    """Time of the GPU's kernels in a step."""

    def step_ms(self, step: Step) -> float: ...


def installed() -> bool:
    """Whether the package with the operator times is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def _root() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "measured operator times are not installed",
            where="hardware.system",
            remedy=f"{INSTALL}, or hardware.system=null to derive from the data sheet alone",
        )
    return Path(spec.origin).parent


def systems() -> dict[str, Device]:
    """GPUs that the package describes, by its names; sheets, not all with operator times."""
    found = {}
    for path in sorted((_root() / "systems").glob("*.yaml")):
        data = yaml.safe_load(path.read_text())
        if isinstance(data, dict) and "gpu" in data and "node" in data:
            gpu, node = data["gpu"], data["node"]
            found[path.stem] = Device(
                name=path.stem,
                memory_gib=gpu["mem_capacity"] / GIB,
                bandwidth=gpu["mem_bw"] / 1e9,
                flops=gpu["bfloat16_tc_flops"] / 1e12,
                pcie=node["pcie_bw"] / 1e9,
                link=node["intra_node_bw"] / 1e9,
                system=path.stem,
            )
    return found


def measured_systems() -> tuple[str, ...]:
    """Names of GPUs with operator times of vLLM."""
    data = _root() / "systems" / "data"
    return tuple(sorted(p.name for p in data.iterdir() if (p / "gemm" / BACKEND).is_dir()))


@dataclass(frozen=True, slots=True)
class MeasuredKernels:
    """Kernel times composed of measured operator times.

    A device whose memory or arithmetic differs from the measured GPU's (`h100-64gb` has the H100's processors and half
    its bandwidth) gets what the two data sheets differ by, as the roofline has it, on top.

    Args:
        engine: the package's compiled model.
        measured: the GPU that the times are of.
    """

    model: Architecture
    device: Device
    tensor_parallel: int
    engine: Any
    measured: Device

    def step_ms(self, step: Step) -> float:
        """Kernel time of a step, ms."""
        if step.prompt == 0:
            time = self.engine.decode_step_latency(step.decodes, max(1, step.context), 2)
        else:
            time = self.engine.mixed_step_latency(step.prompt, step.decodes, max(1, step.context), 2)
        if self.same_memory:
            return float(time)
        own, other = (step_ms(self.model, step, d, self.tensor_parallel) for d in (self.device, self.measured))
        return float(max(0.1 * time, time + own - other))

    @property
    def same_memory(self) -> bool:
        """Whether device and measured GPU have the same peaks, within 3 %."""
        pairs = ((self.device.bandwidth, self.measured.bandwidth), (self.device.flops, self.measured.flops))
        return all(abs(a / b - 1) < 0.03 for a, b in pairs)


def measured_kernels(model: Architecture, device: Device, tensor_parallel: int = 1) -> MeasuredKernels:
    """Operator times of `device.system` for a model.

    Raises:
        InputError: the package is missing, has no such system, or has no times for it or for this model.
    """
    known = measured_systems()
    if device.system not in known:
        sheet = " has a data sheet but no operator times" if device.system in systems() else " is not known"
        raise InputError(
            f"system {device.system!r}{sheet}{did_you_mean(device.system, known)}",
            where="hardware.system",
            remedy=f"choose one of {', '.join(known)}, or hardware.system=null to derive from the data sheet alone",
        )
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(model.hugging_face()))
        from aiconfigurator_core.sdk.engine import EngineHandle

        try:
            engine = EngineHandle.compile(folder, device.system, BACKEND, tp_size=tensor_parallel)
            engine.decode_step_latency(1, 128, 2)
        except (ValueError, AssertionError, RuntimeError, KeyError) as error:
            raise InputError(
                f"there are no operator times for this model on {device.system}: {str(error).splitlines()[0]}",
                where="model, hardware.system",
                remedy="use hardware.system=null to derive from the data sheet alone",
            ) from error
    return MeasuredKernels(model, device, tensor_parallel, engine, systems()[device.system])


@dataclass(frozen=True, slots=True)
class SheetKernels:
    """Kernel times by the roofline of a data sheet (`profiling.derive.work`)."""

    model: Architecture
    device: Device
    tensor_parallel: int = 1

    def step_ms(self, step: Step) -> float:
        """Kernel time of a step, ms."""
        return step_ms(self.model, step, self.device, self.tensor_parallel)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the package's notes on which table fills which gap out of the terminal; -vv shows them."""
    logger = logging.getLogger(PACKAGE)
    before = logger.level
    if not log.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
