"""Several equal servers on one GPU in the twin: requests dealt in turn, steps longer by the co-location law.

Each server is simulated on its own requests. What a step costs depends on how busy the other servers are and on the
mean step, which the simulation gives: both are found by repeating it (a fixed point, deterministic). Not modelled: a
load that is uneven beyond what the dealing leaves, and moments in which all servers are busier than on average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from twin.engine.outcome import KernelOutput
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.laws import STEP_TERMS
from twin.server.memory import sharing_law
from twin.server.settings import EngineSetting
from twin.server.sharing import colocated_step_law
from twin.workload.requests import Requests

#: Most repetitions, and the relative change of the mean step below which they end.
ROUNDS, TOLERANCE = 8, 0.002

RunServer = Callable[[Requests, Calibration], tuple[KernelOutput, int]]


def run_replicas(
    requests: Requests, setting: EngineSetting, calibration: Calibration, run: RunServer, *, horizon_s: float
) -> tuple[KernelOutput, int]:
    """Runs `setting.servers_per_gpu` servers; the output is the whole GPU's, with its KV blocks.

    Args:
        run: simulates one server on given requests by a given calibration.

    Raises:
        InputError: the calibration has no measurement of co-located servers.
    """
    servers, law = setting.servers_per_gpu, sharing_law(calibration)
    dealt = [_part(requests, slice(s, None, servers)) for s in range(servers)]
    outs = [run(part, calibration) for part in dealt]
    step_ms = 0.0
    for _ in range(ROUNDS):
        total = sum(out.steps for out, _ in outs)
        if total == 0:
            break
        features = np.sum([out.features for out, _ in outs], axis=0) / total
        alone_ms = float((features * calibration.step.as_array()[: len(STEP_TERMS)]).sum())
        busy = sum(out.busy_s for out, _ in outs) / (servers * _span_s(requests, [o for o, _ in outs], horizon_s))
        colocated = colocated_step_law(
            calibration.step,
            law,
            servers,
            running=float(features[STEP_TERMS.index("seq")]),
            step_ms=alone_ms,
            busy=min(1.0, busy),
        )
        last, step_ms = step_ms, float((features * colocated.as_array()[: len(STEP_TERMS)]).sum())
        if abs(step_ms - last) <= TOLERANCE * step_ms:
            break
        outs = [run(part, replace(calibration, step=colocated)) for part in dealt]
    return _merged(requests, [out for out, _ in outs]), sum(blocks for _, blocks in outs)


def refuse_records(setting: EngineSetting, trace_steps: int, events: int) -> None:
    """Raises `InputError` where steps of several servers would have to be recorded in one list."""
    if trace_steps or events:
        raise InputError(
            f"steps cannot be recorded with engine.servers_per_gpu {setting.servers_per_gpu}",
            remedy="record one server: servers_per_gpu=1",
        )


def _part(requests: Requests, which: slice) -> Requests:
    values = {f.name: getattr(requests, f.name) for f in fields(Requests)}
    return Requests(**{name: v[which] if isinstance(v, np.ndarray) else v for name, v in values.items()})


def _span_s(requests: Requests, outs: list[KernelOutput], horizon_s: float) -> float:
    """Time from the first arrival to the last completion, or to the end of the window if something is left."""
    if not len(requests):
        return horizon_s
    last = max(float(np.where(np.isnan(o.finish_s), horizon_s, o.finish_s).max()) for o in outs if len(o.finish_s))
    return max(1e-9, min(horizon_s, last) - float(requests.arrival_s[0]))


def _merged(requests: Requests, outs: list[KernelOutput]) -> KernelOutput:
    """One output of all servers: requests in their own order, totals and series added."""
    servers, n = len(outs), len(requests)
    joined: dict[str, Any] = {}
    for name in ("first_token_s", "finish_s", "state"):
        values = np.empty(n, getattr(outs[0], name).dtype)
        for s, out in enumerate(outs):
            values[s::servers] = getattr(out, name)
        joined[name] = values
    summed = {
        name: sum(getattr(o, name) for o in outs)
        for name in (
            "running_bins", "waiting_bins", "kv_integral", "itl_histogram", "features", "blocked_s", "steps", "loads",
            "load_s", "disk_loads", "disk_s", "preemptions", "skips", "max_waiting", "free_blocks_end",
        )
    }  # fmt: skip
    # A server's share of the window, as for one server.
    busy_s = sum(o.busy_s for o in outs) / servers
    return outs[0]._replace(**joined, **summed, busy_s=busy_s)
