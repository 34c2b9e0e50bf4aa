"""A GPU as its data sheet describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from twin.config.ranges import Range, check_fields
from twin.server.hardware import GIB


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU.

    Args:
        name: as in `conf/hardware`.
        memory_gib: device memory that programs see, GiB.
        bandwidth: peak of its memory, GB/s.
        flops: peak of 16-bit matrix products without sparsity, TFLOP/s.
        pcie: from host memory, one direction, GB/s.
        link: between GPUs of a server, one direction, GB/s (NVLink, or PCIe without).
        system: the operator times that belong to it, by the name they have there; empty = none.
    """

    name: str
    memory_gib: Annotated[float, Range(above=0, high=4096, unit="GiB")]
    bandwidth: Annotated[
        float, Range(above=0, high=100_000, unit="GB/s", hint="as the data sheet writes it, e.g. 3350")
    ]
    flops: Annotated[float, Range(above=0, high=100_000, unit="TFLOP/s", hint="dense, 16 bits, e.g. 989")]
    pcie: Annotated[float, Range(above=0, high=2_000, unit="GB/s", hint="one direction, e.g. 32 or 64")]
    link: Annotated[float, Range(above=0, high=10_000, unit="GB/s")] = 32.0
    system: str = ""

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"hardware.{name}")

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)

    @property
    def bytes_per_s(self) -> float:
        return 1e9 * self.bandwidth

    @property
    def flops_per_s(self) -> float:
        return 1e12 * self.flops
