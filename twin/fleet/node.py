"""A server of a fleet while it is simulated: its engine from one start to its death, and what it was sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twin.engine.build import add_request
from twin.engine.engine import advance
from twin.engine.outcome import requests_in_system
from twin.engine.play import engine_of
from twin.engine.state import REJECTED, WAITING, EngineState, Limits
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests


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
class Failure:
    """A server that dies at `at_s` and serves again from `back_s` on (infinity: never).

    Args:
        server: index into the fleet's servers.
        detect_s: time until the router notices, unless the server is back before. Until then the router goes on
            sending requests to it; when it notices, they and the unfinished ones are sent again.
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

    @property
    def noticed_s(self) -> float:
        """When the router knows: clients of a server that starts anew see their connections reset."""
        return min(self.at_s + self.detect_s, self.back_s)


@dataclass(slots=True)
class Life:
    """A server from one start to its death: its engine, and which requests of the fleet it was sent."""

    engine: EngineState
    sent: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Node:
    """A server while it is simulated.

    Args:
        life: since its last start; None while it is dead.
        unnoticed_until_s: until then the router takes a dead server for a living one.
        believed: requests that the router takes to be in a dead server.
        unanswered: requests that were sent to it while it was dead.
    """

    server: Server
    adapters: tuple[Adapter, ...]
    local: dict[int, int]
    calibration: Calibration
    limits: Limits
    walk: NDArray[np.int32]
    capacity: int
    longest_output: int
    life: Life | None = None
    lives: list[Life] = field(default_factory=list)
    unnoticed_until_s: float = 0.0
    believed: int = 0
    unanswered: int = 0

    def start(self, now_s: float) -> None:
        nothing = Requests(np.empty(0), *(np.empty(0, np.int32) for _ in range(4)))
        engine = engine_of(
            nothing, self.adapters, self.server.setting, self.calibration, self.limits, walk=self.walk,
            capacity=self.capacity, longest_output=self.longest_output, start_s=now_s,
        )  # fmt: skip
        self.life = Life(engine)
        self.lives.append(self.life)

    def send(self, r: int, now_s: float, requests: Requests) -> None:
        if self.life is None:
            self.believed += 1
            self.unanswered += 1
            return
        self.life.sent.append(r)
        add_request(
            self.life.engine, arrival_s=now_s, adapter=self.local[int(requests.adapter[r])],
            prompt=int(requests.prompt[r]), cached=int(requests.cached[r]), output=int(requests.output[r]),
        )  # fmt: skip

    def die(self, now_s: float, noticed_s: float) -> list[int]:
        """Ends its life and returns the requests of the fleet that it has not finished; their progress is lost."""
        self.advance(now_s)
        assert self.life is not None
        served, sent = self.life.engine.served, self.life.sent
        finish, state = served.finish_s[: len(sent)], served.state[: len(sent)]
        lost = np.flatnonzero(~(finish <= now_s) & (state != REJECTED))
        served.first_token_s[lost] = served.finish_s[lost] = np.nan
        served.state[lost] = WAITING
        self.life, self.unnoticed_until_s, self.believed = None, noticed_s, len(lost)
        return [sent[i] for i in lost]

    def seems_up(self, now_s: float) -> bool:
        """Whether the router sends requests to it."""
        return self.life is not None or now_s < self.unnoticed_until_s

    def advance(self, until_s: float) -> None:
        if self.life is not None:
            advance(self.life.engine, until_s)

    def load(self) -> tuple[int, int]:
        """Requests in the system, as the router sees it; among equals who was sent fewer is less loaded."""
        if self.life is None:
            return self.believed, len(self.lives[-1].sent)
        return requests_in_system(self.life.engine), len(self.life.sent)
