"""The same saturated run in the digital twin: every scheduling rule of vLLM V1, chunked prefill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.batching.curves import Curve, CurvePoint, Server, law_point
from placement.batching.lengths import RequestLengths
from twin.engine.play import run_requests
from twin.engine.state import FINISHED_STATE
from twin.errors import InputError
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests

#: Longer than any run; the twin stops when nothing is left.
HORIZON_S = 1e6


def saturating_requests(lengths: RequestLengths) -> Requests:
    """All requests at time 0, to the base model."""
    n = len(lengths)
    return Requests(
        arrival_s=np.zeros(n),
        adapter=np.zeros(n, np.int32),
        prompt=np.array(lengths.prompt, np.int32),
        cached=np.zeros(n, np.int32),
        output=np.array(lengths.output, np.int32),
    )


def twin_point(server: Server, batch: int, servers: int = 1) -> CurvePoint:
    """One point, the mean over several orders of the requests; KV tokens by the law's run.

    Raises:
        InputError: a request does not fit into the KV cache.
    """
    base_model = Adapter("base", 0, 1.0, Lengths(1, 0), Lengths(1, 0))
    rows, preempting = [], False
    for lengths in server.orders():
        requests = saturating_requests(lengths)
        out, _ = run_requests(
            requests, [base_model], server.setting(batch, servers), server.calibration, horizon_s=HORIZON_S,
            walk=np.zeros(1, np.int32),
        )  # fmt: skip
        if not (out.state == FINISHED_STATE).all():
            raise InputError(
                f"{int((out.state != FINISHED_STATE).sum())} requests do not fit into the KV cache at a batch of "
                f"{batch}",
                where="curve=twin",
                remedy="give shorter lengths or more memory",
            )
        preempting |= out.preemptions > 0
        gaps = requests.output - 1
        decode_ms = 1000 * (out.finish_s - out.first_token_s)
        several = gaps > 0
        busy_s = out.busy_s
        rows.append(
            (
                len(requests) / out.finish_s.max(),
                decode_ms.sum() / max(1, gaps.sum()),
                (decode_ms[several] / gaps[several]).mean() if several.any() else np.nan,
                1000 * busy_s * servers / max(1, out.steps),
            )
        )
    throughput, itl, tpot, step = np.mean(rows, axis=0)
    law = law_point(server, batch, servers)
    return CurvePoint(
        batch=batch,
        throughput_req_per_s=float(throughput),
        itl_ms=float(itl),
        tpot_ms=float(tpot),
        step_ms=float(step),
        kv_peak_tokens=law.kv_peak_tokens,
        busy_share=law.busy_share,
        preempting=preempting,
        servers=servers,
    )


def twin_curve(server: Server, batches: Sequence[int]) -> Curve:
    """The curve of one server in the twin."""
    return Curve("twin", tuple(twin_point(server, b) for b in sorted(set(batches))))
