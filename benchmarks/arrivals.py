"""How long drawing requests takes, and what changing rates do to a server at the same mean rate.

    python -m benchmarks.arrivals [repeats=5] [seeds=5]

Drawing: an hour of about 100,000 requests of 300 adapters (power law), best of `repeats`, warm, CPU time of one
thread. Servers: the published shape on a 64 GB H100 with Llama-3.1-8B, an hour under each of `seeds` seeds, healthy
if at most 1 % of the requests wait longer than 5 s; `crowded` has twice as many adapters as slots, `roomy` a slot each.
Not measured: the first call, which compiles; reading files.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate_many
from twin.sources.synthetic import discrete_rates, power_law
from twin.traffic.arrivals import draw_requests, stream_requests
from twin.traffic.drift import Drift, Peaks, Reshuffled, Switching, Unpredictable
from twin.workload.adapter import Adapter

CALIBRATION = "llama-3.1-8b-h100-64gb"
HOUR_S, REQUESTS = 3600.0, 100_000
DRIFTS: dict[str, Drift | None] = {
    "stationary": None,
    "on/off, 120 s of 600 s": Switching(),
    "unpredictable, each on its own": Unpredictable(),
    "unpredictable, half in common": Unpredictable(common_share=0.5),
    "reshuffled": Reshuffled(),
    "peaks of 2 times the rate": Peaks(height=2.0),
    "peaks of 4 times the rate": Peaks(height=4.0),
}
#: name -> adapters, slots, factor on the rates 0.1 / 0.05 / 0.025 req/s.
SERVERS = {"crowded": (192, 96, 0.65), "roomy": (64, 64, 2.6)}
SLO_S, LATE_SHARE = 5.0, 0.01


def draw_ms(adapters: Sequence[Adapter], repeats: int, *, stream: bool = False) -> float:
    """CPU milliseconds of drawing the hour, whole or as 60 windows."""
    best = float("inf")
    for seed in range(repeats + 1):
        start = time.process_time()
        if stream:
            for _ in stream_requests(adapters, horizon_s=HOUR_S, window_s=60.0, seed=seed, max_model_len=4096):
                pass
        else:
            draw_requests(adapters, horizon_s=HOUR_S, seed=seed, max_model_len=4096)
        if seed:  # the first one compiles
            best = min(best, time.process_time() - start)
    return 1000 * best


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    repeats: Annotated[int, Range(1)] = 5
    seeds: Annotated[int, Range(1)] = 5


def run(options: Options) -> int:
    calibration = load_calibration(CALIBRATION)
    rate = REQUESTS / HOUR_S
    drawing, streaming = {}, {}
    print(f"{'drawing 100,000 requests':34s} {'whole, ms':>10s} {'60 windows, ms':>15s}")
    for name, drift in DRIFTS.items():
        adapters = power_law(300, rate, 1.0, [8, 16, 32], drift=drift).adapters
        drawing[name] = draw_ms(adapters, options.repeats)
        streaming[name] = draw_ms(adapters, options.repeats, stream=True)
        print(f"{name:34s} {drawing[name]:10.1f} {streaming[name]:15.0f}")
    servers: dict[str, dict[str, dict[str, float]]] = {}
    for server, (count, slots, scale) in SERVERS.items():
        print(f"\n{server}: {count} adapters, {slots} slots{'':12s} req/s  healthy  TTFT p99 s  late %")
        servers[server] = {}
        for name, drift in DRIFTS.items():
            workload = discrete_rates(count, [0.1, 0.05, 0.025], [8, 16, 32], drift=drift)
            column = Column(workload.scaled(scale).adapters, EngineSetting(calibration.gpu.name, slots, 32))
            results = simulate_many([column], calibration, seeds=range(options.seeds), default_ttft_slo_s=SLO_S)[0]
            rows = [r.prediction_row() for r in results]
            late = float(np.mean([r["late_fraction"] for r in rows]))
            found = {
                "rate_req_per_s": float(np.mean([r.arrivals / r.horizon_s for r in results])),
                "ttft_p99_s": float(np.mean([r["ttft_p99_s"] for r in rows])),
                "late_fraction": late,
                "healthy_seeds": sum(r["late_fraction"] <= LATE_SHARE for r in rows),
            }
            servers[server][name] = found
            print(
                f"{name:34s} {found['rate_req_per_s']:9.2f} {found['healthy_seeds']:4d} of {len(rows)} "
                f"{found['ttft_p99_s']:11.2f} {100 * late:7.2f}"
            )
    rounded = {s: {n: {k: round(v, 4) for k, v in d.items()} for n, d in t.items()} for s, t in servers.items()}
    print(
        json.dumps(
            {
                "draw_ms": {name: round(ms, 1) for name, ms in drawing.items()},
                "stream_ms": {name: round(ms, 1) for name, ms in streaming.items()},
                "servers": rounded,
            }
        )
    )
    return 0


APP = command("benchmarks.arrivals", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
