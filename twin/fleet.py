"""Simulates a placement as a whole: a router before many servers, some of which may die and come back.

Routers: `shares` sends each request of an adapter to one of its holders at random, in proportion to the shares of
the placement; `least_loaded` to the holder with the fewest requests in the system at that moment. Both choose among
the servers that are up. When a server dies, its unfinished requests start again elsewhere, from nothing, after
`Failure.detect_s`; if no holder is up, they and new ones wait for the first that comes back. A server comes back as it
started, with the last adapters of its command line in the slots: the others load again as they are asked for.

The times of a request count from its first arrival at the router. Servers without common decisions run whole, in
parallel threads; otherwise each is advanced to every arrival that must choose (`twin.kernel.advance`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twin import kernel
from twin.arrivals import Requests, draw_requests
from twin.calibration import Calibration
from twin.column import Column
from twin.engine import add_request, outcome
from twin.errors import InputError
from twin.fleet_result import FleetResult, Served, fleet_result
from twin.kernel import EngineState, Limits, advance
from twin.memory import max_model_len
from twin.settings import EngineSetting
from twin.simulate import HOUR_S, check_column, engine_of, limits_of, random_streams
from twin.workload import DEFAULT_TTFT_P99_S, Adapter

ROUTERS = ("shares", "least_loaded")


@dataclass(frozen=True, slots=True)
class Server:
    """One vLLM server (one GPU) and what it holds.

    Args:
        shares: share of an adapter's requests by adapter id, > 0; over all servers they add up to 1.
    """

    name: str
    setting: EngineSetting
    shares: Mapping[str, float]


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


@dataclass(frozen=True, slots=True)
class Failure:
    """A server that dies at `at_s` and serves again from `back_s` on (infinity: never).

    Args:
        server: index into the fleet's servers.
        detect_s: time until the router notices and sends its requests elsewhere.
    """

    server: int
    at_s: float
    back_s: float = math.inf
    detect_s: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.at_s) and self.at_s >= 0 and self.back_s > self.at_s and self.detect_s >= 0):
            raise InputError(
                f"failure of server {self.server} at {self.at_s!r} s, back at {self.back_s!r} s, detected after "
                f"{self.detect_s!r} s is not possible",
                remedy="0 <= at_s < back_s and detect_s >= 0",
            )


@dataclass(slots=True)
class _Life:
    """A server from one start to its death: its engine, and which requests of the fleet it was sent."""

    engine: EngineState
    sent: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    """A server while it is simulated."""

    server: Server
    adapters: tuple[Adapter, ...]
    local: dict[int, int]
    calibration: Calibration
    limits: Limits
    walk: NDArray[np.int32]
    capacity: int
    longest_output: int
    life: _Life | None = None
    lives: list[_Life] = field(default_factory=list)

    def start(self, now_s: float) -> None:
        nothing = Requests(np.empty(0), *(np.empty(0, np.int32) for _ in range(4)))
        engine = engine_of(
            nothing, self.adapters, self.server.setting, self.calibration, self.limits, walk=self.walk,
            capacity=self.capacity, longest_output=self.longest_output,
        )  # fmt: skip
        engine.x[kernel.NOW] = engine.x[kernel.GPU_END] = now_s
        self.life = _Life(engine)
        self.lives.append(self.life)

    def send(self, r: int, now_s: float, requests: Requests) -> None:
        assert self.life is not None
        self.life.sent.append(r)
        add_request(
            self.life.engine, arrival_s=now_s, adapter=self.local[int(requests.adapter[r])],
            prompt=int(requests.prompt[r]), cached=int(requests.cached[r]), output=int(requests.output[r]),
        )  # fmt: skip

    def advance(self, until_s: float) -> None:
        if self.life is not None:
            advance(self.limits, self.life.engine, until_s)

    def load(self) -> tuple[int, int]:
        """Requests in the system; among equals the server that was sent fewer is less loaded."""
        assert self.life is not None
        n = self.life.engine.n
        in_system = n[kernel.N_RUNNING] + n[kernel.N_WAITING] + n[kernel.N_KNOWN] - n[kernel.N_UPCOMING]
        return int(in_system), len(self.life.sent)


def _nodes(
    fleet: Fleet, calibrations: Mapping[str, Calibration], requests: Requests, horizon_s: float, seed: int
) -> list[_Node]:
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
        _, stream = random_streams(adapters, seed)
        limits = limits_of(server.setting, calibration, adapters=len(adapters), horizon_s=horizon_s)
        walk = stream.permutation(len(adapters)).astype(np.int32)
        local = {g: i for i, g in enumerate(held)}
        size = int(per_adapter[held].sum())
        nodes.append(_Node(server, adapters, local, calibration, limits, walk, size, longest))
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
    default_ttft_slo_s: float = DEFAULT_TTFT_P99_S,
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
    if not (np.isfinite(horizon_s) and horizon_s > 0):
        raise InputError(f"horizon_s {horizon_s!r} is not a positive number of seconds", remedy="use 3600")
    _check_failures(fleet, failures)
    rng, choices = random_streams(fleet.adapters, seed)
    if requests is None:
        known = [s.setting for s in fleet.servers if s.setting.gpu_type in calibrations]
        shortest = min((max_model_len(s, calibrations[s.gpu_type]) for s in known), default=2)
        requests = draw_requests(fleet.adapters, horizon_s=horizon_s, rng=rng, max_model_len=shortest, phase_seed=seed)
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
    drawn = choices.random(len(requests))
    last_server, resent = _route(requests, nodes, holders, shares, drawn, router == "least_loaded", failures, horizon_s)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        list(pool.map(lambda node: node.advance(horizon_s), nodes))
    served = [
        Served(
            node.server.name, node.server.setting, node.adapters,
            tuple((outcome(life.engine), np.array(life.sent, np.int64)) for life in node.lives),
            node.limits.total_blocks, _down_s(i, failures, horizon_s),
        )
        for i, node in enumerate(nodes)
    ]  # fmt: skip
    return fleet_result(
        fleet.adapters, requests, served, router=router, last_server=last_server, resent=resent,
        horizon_s=horizon_s, seed=seed, default_ttft_slo_s=default_ttft_slo_s,
    )  # fmt: skip


def _down_s(server: int, failures: Sequence[Failure], horizon_s: float) -> float:
    return sum(max(0.0, min(f.back_s, horizon_s) - min(f.at_s, horizon_s)) for f in failures if f.server == server)


#: Events at the same time happen in this order.
_BACK, _DIES, _ARRIVES = 0, 1, 2


def _route(
    requests: Requests,
    nodes: Sequence[_Node],
    holders: Sequence[NDArray[np.int64]],
    shares: Sequence[NDArray[np.float64]],
    drawn: NDArray[np.float64],
    least_loaded: bool,
    failures: Sequence[Failure],
    horizon_s: float,
) -> tuple[NDArray[np.int64], int]:
    """Sends every request to a server, in order of time.

    Returns the server that each was sent to last (-1 = none), (N,), and how many were sent again after a death.
    """
    events: list[tuple[float, int, int, int]] = []  # time, kind, request or failure, sequence
    for i, failure in enumerate(failures):
        if failure.at_s < horizon_s:
            events.append((failure.at_s, _DIES, i, 0))
        if failure.back_s < horizon_s:
            events.append((failure.back_s, _BACK, i, 0))
    heapq.heapify(events)
    stranded: list[int] = []
    last_server = np.full(len(requests), -1, np.int64)
    resent = 0
    upcoming = 0
    while upcoming < len(requests) or events:
        arrival = float(requests.arrival_s[upcoming]) if upcoming < len(requests) else math.inf
        if events and events[0][:2] <= (arrival, _ARRIVES):
            now, kind, i, _ = heapq.heappop(events)
            if kind == _ARRIVES:
                arriving = [i]
                resent += 1
            elif kind == _BACK:
                nodes[failures[i].server].start(now)
                arriving, stranded = stranded, []
            else:
                node = nodes[failures[i].server]
                node.advance(now)
                assert node.life is not None
                unfinished = _unfinished(node.life, now)
                node.life = None
                for r in unfinished:
                    heapq.heappush(events, (now + failures[i].detect_s, _ARRIVES, r, 0))
                continue
        else:
            now, arriving = arrival, [upcoming]
            upcoming += 1
        if now >= horizon_s:
            continue
        for r in arriving:
            g = int(requests.adapter[r])
            up = [j for j, h in enumerate(holders[g]) if nodes[h].life is not None]
            if not up:
                stranded.append(r)
                continue
            chosen = up[0]
            if len(up) > 1 and least_loaded:
                for j in up:
                    nodes[int(holders[g][j])].advance(now)
                chosen = min(up, key=lambda j: nodes[int(holders[g][j])].load())
            elif len(up) > 1:
                weights = np.cumsum(shares[g][up])
                chosen = up[min(int(np.searchsorted(weights, drawn[r] * weights[-1], side="right")), len(up) - 1)]
            last_server[r] = holders[g][chosen]
            nodes[int(holders[g][chosen])].send(r, now, requests)
    return last_server, resent


def _unfinished(life: _Life, now_s: float) -> list[int]:
    """Requests of the fleet that a dying server has not finished by now; their progress is lost."""
    finish = life.engine.finish[: len(life.sent)]
    state = life.engine.state[: len(life.sent)]
    lost = np.flatnonzero(~(finish <= now_s) & (state != kernel.REJECTED))
    life.engine.first[lost] = life.engine.finish[lost] = np.nan
    life.engine.state[lost] = kernel.WAITING
    return [life.sent[i] for i in lost]
