"""The measuring rig's HTTP frontend: what keeps its one event loop busy before requests reach the engine.

vLLM 0.8.5 serves HTTP from one Python event loop. Two things show in the published runs:

* **first requests.** At the first request of an adapter the frontend opens that adapter's tokenizer, on the loop, for
  0.3 s. Nothing else is read meanwhile. With 384 busy adapters the engine therefore sees hardly any work for the
  first two minutes (the published series: below 100 running and none waiting until 120 s, then a flood).
* **intake.** Reading a request takes 2.6 ms; after such a stall the queue grows by some 380 requests/s at most.

Production servers have both too, but an hour from a cold start counts them more than a day does: a correction of
replays, off for planning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frontend:
    """Times the event loop is busy, seconds.

    Args:
        first_request_s: opening an adapter's tokenizer.
        intake_s: reading one request.
    """

    first_request_s: float = 0.3
    intake_s: float = 0.0026


@dataclass(frozen=True, slots=True)
class Intake:
    """What the frontend does with N requests.

    Args:
        release_s: when the engine gets each, ascending where `accepted`, (N,).
        accepted: False where the client had no port left while the frontend was behind, (N,).
        busy_s: start and end of every opening of a tokenizer, ascending, (A, 2).
    """

    release_s: Array
    accepted: NDArray[np.bool_]
    busy_s: Array


def take_in(arrival_s: Array, adapter: NDArray[np.int32], frontend: Frontend, client_ports: int) -> Intake:
    """First come, first served through the event loop.

    As long as the frontend is behind, the client has at most `client_ports` requests under way (0 = no limit). Once
    that many were sent and the frontend has caught up, the engine's own queue decides (`twin.engine.queue`).
    """
    n = len(arrival_s)
    limited = min(n, client_ports) if client_ports > 0 else n
    service = np.full(limited, frontend.intake_s)
    first = np.sort(np.unique(adapter[:limited], return_index=True)[1])
    service[first] += frontend.first_request_s
    total = np.cumsum(service)
    # Departures of a single server: D_i = max over j <= i of (a_j - work before j) + work up to i.
    done = np.maximum.accumulate(arrival_s[:limited] - (total - service)) + total
    release = arrival_s.copy()
    release[:limited] = done - frontend.intake_s
    accepted = np.ones(n, np.bool_)
    if limited < n:
        caught_up_s = release[limited - 1]
        accepted[limited:] = arrival_s[limited:] >= caught_up_s
    opened = release[first]
    return Intake(release, accepted, np.column_stack([opened - frontend.first_request_s, opened]))
