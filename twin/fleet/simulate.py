"""Simulates a placement as a whole: a router before many servers, some of which may die and come back.

Routers: `shares` sends each request of an adapter to one of its holders at random, in proportion to the shares of
the placement; `least_loaded` to the holder with the fewest requests in the system at that moment. Both choose among
the servers that they take to be up. When a server dies, they notice after `Failure.detect_s`: until then it is sent
requests as before, which it never answers. Then these and its unfinished ones start again elsewhere, from nothing; if
no holder is up, they and new ones wait for the first that comes back. A server comes back as it started, with the last
adapters of its command line in the slots: the others load again as they are asked for.

The times of a request count from its first arrival at the router. Servers without common decisions run whole, in
parallel threads; otherwise each is advanced to every arrival that must choose (`twin.engine.engine.advance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from twin.engine.input_check import check_seconds
from twin.engine.outcome import outcome
from twin.engine.play import HOUR_S, check_column, limits_of
from twin.errors import InputError
from twin.fleet.node import Failure, Node, Server
from twin.fleet.result import FleetResult, Served, fleet_result
from twin.fleet.routing import route
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.memory import max_model_len
from twin.traffic.arrivals import draw_requests
from twin.traffic.streams import ROUTING, set_order, stream_keys, streams, uniforms
from twin.workload.adapter import DEFAULT_TTFT_P99_S, Adapter
from twin.workload.requests import Requests

ROUTERS = ("shares", "least_loaded")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Adapters with their whole rates, and the servers that hold them."""

    adapters: tuple[Adapter, ...]
    servers: tuple[Server, ...]

    def __post_init__(self) -> None:
        if not self.servers:
            raise InputError("a fleet without servers cannot be simulated", remedy="give it at least one")
        known = {a.adapter_id: 0.0 for a in self.adapters}
        for server in self.servers:
            for adapter_id, share in server.shares.items():
                if adapter_id not in known:
                    raise InputError(
                        f"server {server.name!r} holds adapter {adapter_id!r}, which the workload does not have",
                        remedy="use the workload that the placement was made for",
                    )
                if not 0 < share <= 1 + 1e-9:
                    raise InputError(
                        f"server {server.name!r}: share {share!r} of adapter {adapter_id!r} is outside (0, 1]",
                        remedy="shares of an adapter are positive and add up to 1",
                    )
                known[adapter_id] += share
        for adapter_id, total in known.items():
            if abs(total - 1.0) > 1e-6:
                raise InputError(
                    f"the shares of adapter {adapter_id!r} add up to {total:g}, not to 1",
                    remedy="place all of its requests, or use the workload that the placement was made for",
                )


def _nodes(
    fleet: Fleet, calibrations: Mapping[str, Calibration], requests: Requests, horizon_s: float, seed: int
) -> list[Node]:
    index = {a.adapter_id: i for i, a in enumerate(fleet.adapters)}
    per_adapter = np.bincount(requests.adapter, minlength=len(fleet.adapters))
    longest = int(requests.output.max()) if len(requests) else 1
    nodes = []
    for server in fleet.servers:
        calibration = calibrations.get(server.setting.gpu_type)
        if calibration is None:
            raise InputError(
                f"server {server.name!r} has GPU type {server.setting.gpu_type!r}, calibrations are given for "
                f"{', '.join(sorted(calibrations)) or 'none'}",
                remedy="give a calibration of that GPU type",
            )
        held = [index[i] for i in server.shares]
        adapters = tuple(fleet.adapters[i] for i in held)
        if adapters:
            check_column(Column(adapters, server.setting), calibration)
        limits = limits_of(server.setting, calibration, adapters=len(adapters), horizon_s=horizon_s)
        walk = set_order([a.adapter_id for a in adapters], seed)
        local = {g: i for i, g in enumerate(held)}
        size = int(per_adapter[held].sum())
        nodes.append(Node(server, adapters, local, calibration, limits, walk, size, longest))
    return nodes


def _check_failures(fleet: Fleet, failures: Sequence[Failure]) -> None:
    for failure in failures:
        if not 0 <= failure.server < len(fleet.servers):
            raise InputError(
                f"failure of server {failure.server}: the fleet has servers 0 to {len(fleet.servers) - 1}",
                remedy="count servers from 0",
            )
    for a in failures:
        for b in failures:
            if a is not b and a.server == b.server and a.at_s <= b.at_s < a.back_s:
                raise InputError(
                    f"server {a.server} fails at {b.at_s:g} s while it is down since {a.at_s:g} s",
                    remedy="let it come back before",
                )


def simulate_fleet(
    fleet: Fleet,
    calibrations: Mapping[str, Calibration],
    *,
    router: str = "shares",
    failures: Sequence[Failure] = (),
    horizon_s: float = HOUR_S,
    seed: int = 0,
    default_ttft_slo_s: float | None = DEFAULT_TTFT_P99_S,
    requests: Requests | None = None,
    threads: int = 2,
) -> FleetResult:
    """Simulates `horizon_s` seconds of a whole placement from empty queues.

    Args:
        calibrations: by GPU type.
        router: one of `ROUTERS`.
        seed: of arrivals, lengths, routing and set order.
        requests: replays these instead of drawing them; `adapter` indexes `fleet.adapters`.

    Raises:
        InputError: an unknown router, a failure that cannot be, or a server that vLLM would refuse to start.
    """
    if router not in ROUTERS:
        raise InputError(f"router {router!r} is not known", remedy=f"choose one of: {', '.join(ROUTERS)}")
    check_seconds("horizon_s", horizon_s, "e.g. 3600")
    _check_failures(fleet, failures)
    if requests is None:
        known = [s.setting for s in fleet.servers if s.setting.gpu_type in calibrations]
        shortest = min((max_model_len(s, calibrations[s.gpu_type]) for s in known), default=2)
        requests = draw_requests(fleet.adapters, horizon_s=horizon_s, seed=seed, max_model_len=shortest)
    nodes = _nodes(fleet, calibrations, requests, horizon_s, seed)
    holders = [
        np.array([i for i, node in enumerate(nodes) if g in node.local], np.int64) for g in range(len(fleet.adapters))
    ]
    shares = [
        np.array([nodes[i].server.shares[fleet.adapters[g].adapter_id] for i in holders[g]])
        for g in range(len(holders))
    ]
    for node in nodes:
        node.start(0.0)
    keys = stream_keys([a.adapter_id for a in fleet.adapters], seed)[:, ROUTING].copy()
    drawn = uniforms(streams(keys), requests.adapter)
    last_server, resent = route(requests, nodes, holders, shares, drawn, router == "least_loaded", failures, horizon_s)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        list(pool.map(lambda node: node.advance(horizon_s), nodes))
    served = [
        Served(
            node.server.name, node.server.setting, node.adapters,
            tuple((outcome(life.engine), np.array(life.sent, np.int64)) for life in node.lives),
            node.limits.total_blocks, _down_s(i, failures, horizon_s), node.unanswered,
        )
        for i, node in enumerate(nodes)
    ]  # fmt: skip
    return fleet_result(
        fleet.adapters, requests, served, router=router, last_server=last_server, resent=resent,
        horizon_s=horizon_s, seed=seed, default_ttft_slo_s=default_ttft_slo_s,
    )  # fmt: skip


def _down_s(server: int, failures: Sequence[Failure], horizon_s: float) -> float:
    return sum(max(0.0, min(f.back_s, horizon_s) - min(f.at_s, horizon_s)) for f in failures if f.server == server)
