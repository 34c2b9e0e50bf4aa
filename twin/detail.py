"""One simulation request by request: what `simulate` condenses, for tables, plots and traces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.arrivals import Requests, draw_requests
from twin.calibration import Calibration
from twin.column import Column
from twin.kernel import KernelOutput
from twin.memory import max_model_len
from twin.simulate import HOUR_S, check_column, random_streams, run_requests


@dataclass(frozen=True, slots=True)
class Detail:
    """The requests of a window, what became of each, and the usable KV blocks of the server."""

    requests: Requests
    out: KernelOutput
    total_blocks: int


def in_detail(
    column: Column, calibration: Calibration, *, horizon_s: float = HOUR_S, seed: int = 0, trace_steps: int = 0
) -> Detail:
    """The same simulation as `simulate(column, calibration, horizon_s=..., seed=...)`.

    Raises:
        InputError: the column cannot be simulated.
    """
    check_column(column, calibration)
    rng, engine_rng = random_streams(column.adapters, seed)
    longest = max_model_len(column.setting, calibration)
    requests = draw_requests(column.adapters, horizon_s=horizon_s, rng=rng, max_model_len=longest, phase_seed=seed)
    walk = engine_rng.permutation(len(column.adapters)).astype(np.int32)
    out, blocks = run_requests(
        requests, column.adapters, column.setting, calibration, horizon_s=horizon_s, walk=walk, trace_steps=trace_steps
    )
    return Detail(requests, out, blocks)
