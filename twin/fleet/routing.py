"""Which server of a fleet gets a request, in order of time, while servers die and come back."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twin.engine.state import REJECTED, WAITING
from twin.fleet.node import Failure, Life, Node
from twin.workload.requests import Requests

#: Events at the same time happen in this order.
_BACK, _DIES, _ARRIVES = 0, 1, 2


def route(
    requests: Requests,
    nodes: Sequence[Node],
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


def _unfinished(life: Life, now_s: float) -> list[int]:
    """Requests of the fleet that a dying server has not finished by now; their progress is lost."""
    served = life.engine.served
    finish, state = served.finish_s[: len(life.sent)], served.state[: len(life.sent)]
    lost = np.flatnonzero(~(finish <= now_s) & (state != REJECTED))
    served.first_token_s[lost] = served.finish_s[lost] = np.nan
    served.state[lost] = WAITING
    return [life.sent[i] for i in lost]
