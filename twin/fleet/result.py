"""Figures of a simulated fleet: the whole, in the metrics of one server, and each server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.engine.outcome import KernelOutput
from twin.engine.state import REJECTED
from twin.figures.metrics import measure
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter
from twin.workload.requests import Requests

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Served:
    """What a server did: per life (start to death) its output and the requests of the fleet that it was sent.

    Args:
        unanswered: requests sent to it while it was dead and the router did not know.
    """

    name: str
    setting: EngineSetting
    adapters: tuple[Adapter, ...]
    lives: tuple[tuple[KernelOutput, NDArray[np.int64]], ...]
    total_blocks: int
    down_s: float
    unanswered: int


@dataclass(frozen=True, slots=True)
class ServerResult:
    """One server of a fleet.

    Args:
        row: fields of `twin.figures.prediction.Prediction` over the requests that it finished or still has; times count
            from a request's first arrival at the router, wherever it was sent first.
        requests: requests sent to it, with those that its deaths took away (`lost`), unnoticed ones included.
        down_s: seconds without service.
    """

    name: str
    setting: EngineSetting
    row: dict[str, float]
    requests: int
    lost: int
    loads: int
    preemptions: int
    down_s: float
    running_series: Array
    waiting_series: Array


@dataclass(frozen=True, slots=True)
class FleetResult:
    """A whole placement over a window.

    Args:
        row: fields of `twin.figures.prediction.Prediction` over all requests; per-server shares (KV use) are weighted
            by capacity. The queue label judges the sum of all queues.
        counts, late_counts: requests with a decided TTFT and those later than their SLO, per adapter, (A,).
        adapter_sums, adapters: mean ITL, TPOT and E2E of every adapter, and the adapters with their promises.
        resent: requests sent again because a server died.
        unrouted: requests that never found a server.
    """

    row: dict[str, float]
    servers: tuple[ServerResult, ...]
    counts: NDArray[np.int64]
    late_counts: NDArray[np.int64]
    adapter_sums: Array
    adapters: tuple[Adapter, ...]
    arrivals: int
    resent: int
    unrouted: int
    rejected: int
    router: str
    horizon_s: float
    seed: int

    def prediction_row(self) -> dict[str, float]:
        """The fields of `twin.figures.prediction.Prediction` as floats."""
        return self.row


def _merged(outputs: Sequence[KernelOutput], first: Array, finish: Array, state: NDArray[np.int8]) -> KernelOutput:
    """One output for many engines that ran at the same time: sums, and the requests' times as given."""
    summed = {
        name: sum(getattr(o, name) for o in outputs)
        for name in (
            "running_bins", "waiting_bins", "kv_integral", "itl_histogram", "features", "blocked_s", "steps", "busy_s",
            "loads", "load_s", "disk_loads", "disk_s", "preemptions", "skips", "max_waiting", "free_blocks_end",
        )
    }  # fmt: skip
    return KernelOutput(
        first_token_s=first, finish_s=finish, state=state, trace=outputs[0].trace[:0], events=outputs[0].events[:0],
        **summed,
    )  # fmt: skip


def fleet_result(
    adapters: Sequence[Adapter],
    requests: Requests,
    served: Sequence[Served],
    *,
    router: str,
    last_server: NDArray[np.int64],
    resent: int,
    horizon_s: float,
    seed: int,
    default_ttft_slo_s: float | None,
) -> FleetResult:
    """Collects the times of every request from the life that served it, and measures.

    Args:
        last_server: index of the server that a request was sent to last, -1 = none, (N,).
    """
    size = len(requests)
    first, finish = np.full(size, np.nan), np.full(size, np.nan)
    state = np.zeros(size, np.int8)
    for server in served:
        for out, sent in server.lives:
            alive = ~np.isnan(out.finish_s) | ~np.isnan(out.first_token_s) | (out.state == REJECTED)
            # A request that a death took away has no times here; its next server gives them.
            first[sent[alive]], finish[sent[alive]] = out.first_token_s[alive], out.finish_s[alive]
            state[sent[alive]] = out.state[alive]
    slo_s = np.array([a.ttft_slo_s(default_ttft_slo_s) for a in adapters])
    outputs = [out for server in served for out, _ in server.lives]
    blocks = sum(server.total_blocks for server in served)
    whole = measure(
        requests, _merged(outputs, first, finish, state), horizon_s=horizon_s, slo_s=slo_s, total_blocks=blocks
    )
    rows = [_server(s, i, requests, first, finish, state, last_server, horizon_s, slo_s) for i, s in enumerate(served)]
    return FleetResult(
        row=whole.row, servers=tuple(rows), counts=whole.counts, late_counts=whole.late_counts,
        adapter_sums=whole.adapter_sums, adapters=tuple(adapters), arrivals=size, resent=resent,
        unrouted=int((last_server < 0).sum()), rejected=int((state == REJECTED).sum()), router=router,
        horizon_s=horizon_s, seed=seed,
    )  # fmt: skip


def _server(
    server: Served,
    index: int,
    requests: Requests,
    first: Array,
    finish: Array,
    state: NDArray[np.int8],
    last_server: NDArray[np.int64],
    horizon_s: float,
    slo_s: Array,
) -> ServerResult:
    mine = np.flatnonzero(last_server == index)
    cohort = Requests(
        requests.arrival_s[mine], requests.adapter[mine], requests.prompt[mine], requests.cached[mine],
        requests.output[mine],
    )  # fmt: skip
    out = _merged([o for o, _ in server.lives], first[mine], finish[mine], state[mine])
    window = measure(cohort, out, horizon_s=horizon_s, slo_s=slo_s, total_blocks=server.total_blocks)
    sent = sum(len(s) for _, s in server.lives) + server.unanswered
    per_bin = len(out.running_bins) / horizon_s
    return ServerResult(
        name=server.name, setting=server.setting, row=window.row, requests=sent, lost=sent - len(mine),
        loads=out.loads, preemptions=out.preemptions, down_s=server.down_s, running_series=out.running_bins * per_bin,
        waiting_series=out.waiting_bins * per_bin,
    )  # fmt: skip
