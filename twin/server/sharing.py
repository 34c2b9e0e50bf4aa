"""Several equal servers on one GPU: how much longer a step takes.

A step is a launch gap, in which the GPU waits for the host, and kernels. While one server is in its gap, kernels of
another may run. With r servers that is the oldest model of a time-sharing machine: a closed queueing network with r
customers (servers), a delay station (what does not contend) and one shared station (the GPU), solved by exact mean
value analysis (Reiser and Lavenberg 1980). Under MPS kernels of two servers run side by side and contend for DRAM;
`mps_share` of their time is what they take from each other. Without MPS the driver gives the whole GPU to one process
at a time, and switching stretches the kernels by `time_sharing_stretch`.

Assumptions: equal servers, the load dealt evenly, enough CPU cores for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from twin.config.ranges import Range, check, check_fields
from twin.server.laws import StepTimeLaw

Sharing = Literal["mps", "time_sharing"]
SHARINGS: tuple[Sharing, ...] = ("mps", "time_sharing")


@dataclass(frozen=True, slots=True)
class SharingLaw:
    """What the steps of co-located servers cost each other.

    Args:
        gap_base_ms, gap_seq_ms: time that the GPU waits for the host in a step of B requests, `base + seq * B`.
        mps_share: share of the kernel time that contends with the kernels of other servers under MPS, 0..1.
        time_sharing_stretch: factor on the kernel time where processes take turns, >= 1.
        neighbour_bytes: GPU memory that each further server takes outside its own share (its CUDA context).
    """

    gap_base_ms: Annotated[float, Range(0, unit="ms")]
    gap_seq_ms: Annotated[float, Range(0, unit="ms")]
    mps_share: Annotated[float, Range(0, 1)]
    time_sharing_stretch: Annotated[float, Range(1)]
    neighbour_bytes: Annotated[float, Range(0, unit="bytes")] = 0.0

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"sharing law: {name}")

    def gap_ms(self, running: float) -> float:
        """Time of one step in which the GPU is idle."""
        return self.gap_base_ms + self.gap_seq_ms * running

    def demand_ms(self, step_ms: float, gap_ms: float, sharing: Sharing) -> tuple[float, float]:
        """(delay, GPU demand) of one step; the demand is what servers queue for."""
        kernels = max(0.0, step_ms - gap_ms)
        if sharing == "mps":
            return step_ms - self.mps_share * kernels, self.mps_share * kernels
        return min(gap_ms, step_ms), self.time_sharing_stretch * kernels

    def step_ms(self, step_ms: float, gap_ms: float, servers: int, sharing: Sharing = "mps") -> float:
        """Time of a step that takes `step_ms` alone, with `servers` such servers on the GPU."""
        if servers == 1:
            return step_ms
        delay, demand = self.demand_ms(step_ms, gap_ms, sharing)
        return cycle_ms(delay, demand, servers)

    def busy_share(self, step_ms: float, gap_ms: float, servers: int, sharing: Sharing = "mps") -> float:
        """Share of the time in which the shared station is busy, 0..1: the GPU's utilization by kernels."""
        if servers == 1:
            return 1.0 - min(gap_ms, step_ms) / step_ms
        delay, demand = self.demand_ms(step_ms, gap_ms, sharing)
        return min(1.0, servers * demand / cycle_ms(delay, demand, servers))


def cycle_ms(delay_ms: float, demand_ms: float, customers: int) -> float:
    """Mean time between two visits in a closed network of one delay and one shared station (exact MVA)."""
    queue, cycle = 0.0, delay_ms + demand_ms
    for n in range(1, customers + 1):
        response = demand_ms * (1.0 + queue)
        cycle = delay_ms + response
        queue = n * response / cycle if cycle > 0 else 0.0
    return cycle


def colocated_step_law(
    step: StepTimeLaw,
    law: SharingLaw,
    servers: int,
    *,
    running: float,
    step_ms: float,
    busy: float = 1.0,
    sharing: Sharing = "mps",
) -> StepTimeLaw:
    """The step-time law of one of `servers` equal servers, as the linear law that the engine computes.

    The co-located time is a function of delay and demand, homogeneous of degree one, and both are linear in the
    step's features. Its tangent at the mean step (`step_ms` alone, `running` requests) is therefore a law of the same
    form, exact there and for all steps with the same ratio of delay and demand. The other servers are in a step with
    probability `busy` each, independently.

    Raises:
        InputError: `step_ms` is not positive.
    """
    if servers == 1:
        return step
    check(step_ms, "mean step", Range(above=0, unit="ms"))

    def time_ms(alone: float, gap: float) -> float:
        return sum(
            math.comb(servers - 1, j)
            * math.prod([busy] * j)
            * math.prod([1 - busy] * (servers - 1 - j))
            * law.step_ms(alone, gap, 1 + j, sharing)
            for j in range(servers)
        )

    gap = min(law.gap_ms(running), step_ms)
    d = 1e-4
    per_step = (time_ms(step_ms * (1 + d), gap) - time_ms(step_ms * (1 - d), gap)) / (2 * d * step_ms)
    # Euler's theorem for homogeneous functions gives the other derivative.
    per_gap = (time_ms(step_ms, gap) - per_step * step_ms) / gap if gap > 0 else 0.0
    scaled = {name: per_step * getattr(step, name) for name in step.__slots__ if name != "graph_tokens"}
    scaled["base"] = max(0.0, scaled["base"] + per_gap * law.gap_base_ms)
    scaled["seq"] = max(0.0, scaled["seq"] + per_gap * law.gap_seq_ms)
    return replace(step, **scaled)
