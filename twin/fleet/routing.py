"""Which server of a fleet gets a request, in order of time, while servers die and come back."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twin.fleet.node import Failure, Node
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

    A death that the router has not noticed yet (`Failure.noticed_s`) changes nothing for it: what it sends to the dead
    server is lost, and sent again when it notices.

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
                resent += now < horizon_s
            elif kind == _BACK:
                nodes[failures[i].server].start(now)
                arriving, stranded = stranded, []
            else:
                noticed_s = failures[i].noticed_s
                for r in nodes[failures[i].server].die(now, noticed_s):
                    heapq.heappush(events, (noticed_s, _ARRIVES, r, 0))
                continue
        else:
            now, arriving = arrival, [upcoming]
            upcoming += 1
        if now >= horizon_s:
            continue
        for r in arriving:
            g = int(requests.adapter[r])
            up = [j for j, h in enumerate(holders[g]) if nodes[h].seems_up(now)]
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
            node = nodes[int(holders[g][chosen])]
            node.send(r, now, requests)
            if node.life is None:
                heapq.heappush(events, (node.unnoticed_until_s, _ARRIVES, r, 0))
    return last_server, resent
