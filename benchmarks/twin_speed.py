"""How fast the twin is: wall seconds per simulated hour, warm, one process.

    python -m benchmarks.twin_speed [repeats=5]

Three columns: light (64 adapters, a tenth of a GPU), saturated (192 adapters at the edge) and overloaded (384 hot
adapters, queue without end). `cold_start_s` is a fresh process with an empty compile cache up to its first result.
Not measured: reading a calibration, drawing plots, fleets.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate, simulate_many
from twin.workload.adapter import Adapter, Lengths

CALIBRATION = "llama-3.1-8b-h100-64gb"
COLUMNS = {
    "light": (64, (0.05, 0.0125, 0.003125), 64),
    "saturated": (192, (0.1, 0.05, 0.025), 128),
    "overloaded": (384, (0.4, 0.1, 0.05), 96),
}


def build(adapters: int, rates: tuple[float, ...], max_loras: int) -> Column:
    """ShareGPT-like adapters whose rates go round `rates`, rank 16."""
    return Column(
        tuple(
            Adapter(f"a{i}", 16, rates[i % len(rates)], Lengths(223, 1.1), Lengths(197, 1.06)) for i in range(adapters)
        ),
        EngineSetting("h100-64gb", max_loras, 16),
    )


def cold_start_s() -> float:
    """A fresh process with an empty cache: imports, compilation, one short simulation."""
    code = (
        "from benchmarks.twin_speed import *; "
        "simulate(build(*COLUMNS['light']), load_calibration(CALIBRATION), horizon_s=60)"
    )
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "NUMBA_CACHE_DIR": cache})
        return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    repeats: Annotated[int, Range(1)] = 5


def run(options: Options) -> int:
    repeats = options.repeats
    calibration = load_calibration(CALIBRATION)
    walls: dict[str, float] = {}
    for name, shape in COLUMNS.items():
        column = build(*shape)
        simulate(column, calibration, seed=0)
        best = float("inf")
        for seed in range(1, 1 + repeats):
            start = time.perf_counter()
            result = simulate(column, calibration, seed=seed)
            best = min(best, time.perf_counter() - start)
        walls[name] = best
        print(f"{name:11s} {1e3 * best:8.1f} ms   {result.steps:7d} steps   {result.arrivals:7d} requests")
    columns = [build(*shape) for shape in COLUMNS.values()]
    start = time.perf_counter()
    simulate_many(columns, calibration, seeds=range(8), threads=2)
    rate = 8 * len(columns) / (time.perf_counter() - start)
    mean = sum(walls.values()) / len(walls)
    print(
        json.dumps(
            {
                **{f"{name}_s": round(wall, 5) for name, wall in walls.items()},
                "mean_s": round(mean, 5),
                "realtime_factor": round(3600 / mean),
                "simulations_per_s": round(rate, 1),
                "cold_start_s": round(cold_start_s(), 2),
                "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
    )
    return 0


APP = command("benchmarks.twin_speed", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
