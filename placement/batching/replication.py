"""Replicas of a server on one GPU: what fits, what it is worth, and the best batch and number of servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from placement.batching.curves import CurvePoint, Server, law_point
from twin.errors import InfeasibleError
from twin.server.memory import kv_cache_tokens, memory_error

Objective = Literal["throughput", "latency"]
PointOf = Callable[[Server, int, int], CurvePoint]


@dataclass(frozen=True, slots=True)
class Replication:
    """`servers` servers at one batch limit.

    Args:
        utilization: `gpu_memory_utilization` of each server.
        kv_capacity_tokens: of each server.
        problem: why it does not fit; None if it does, and only then there is a point.
    """

    batch: int
    servers: int
    utilization: float
    kv_capacity_tokens: int
    problem: str | None
    point: CurvePoint | None


def replication(server: Server, batch: int, servers: int, point_of: PointOf = law_point) -> Replication:
    """Whether `servers` servers at a batch limit fit, and how they run."""
    setting = server.setting(batch, servers)
    capacity = kv_cache_tokens(setting, server.calibration)
    problem = memory_error(setting, server.calibration)
    point = None
    if problem is None:
        point = point_of(server, batch, servers)
        if point.preempting:
            problem = f"a batch of {batch} needs more KV cache than the {capacity} tokens of each server: it preempts"
            point = None
    return Replication(batch, servers, setting.gpu_memory_utilization, capacity, problem, point)


def replications(
    server: Server, batches: Sequence[int], most_servers: int, point_of: PointOf = law_point
) -> list[Replication]:
    """All combinations, by batch and number of servers. A number that does not fit ends the row of its batch."""
    found = []
    for batch in sorted(set(batches)):
        for servers in range(1, most_servers + 1):
            found.append(replication(server, batch, servers, point_of))
            if found[-1].problem is not None:
                break
    return found


def best(
    found: Sequence[Replication], *, objective: Objective, slo_ms: float, least_throughput: float = 0.0
) -> Replication:
    """The combination with the highest throughput within the SLO, or with the lowest latency at a throughput.

    Raises:
        InfeasibleError: none fits and meets the limits.
    """
    good = [
        r for r in found
        if r.point is not None and r.point.itl_ms <= slo_ms and r.point.throughput_req_per_s >= least_throughput
    ]  # fmt: skip
    if not good:
        raise InfeasibleError(
            f"no batch and number of servers stays within {slo_ms:.3g} ms between tokens"
            + (f" at {least_throughput:.3g} requests/s" if least_throughput else ""),
            where="slo",
            remedy="relax the SLO, or give other batches",
        )

    def key(r: Replication) -> tuple[float, ...]:
        assert r.point is not None
        throughput, latency = r.point.throughput_req_per_s, r.point.itl_ms
        return (-throughput, latency, r.servers) if objective == "throughput" else (latency, -throughput, r.servers)

    return min(good, key=key)
