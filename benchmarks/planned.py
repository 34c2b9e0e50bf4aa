"""Is the planning model true to the twin on the workloads that are planned, and under other promises?

    python -m benchmarks.planned [data=FOLDER] [columns=5] [seed=0]

First, random healthy columns of the named workloads (`benchmarks.workloads`) under random settings: mean E2E and ITL
of the steady state with its residual against the mean of three simulated hours. Nothing is corrected by simulations of
the workload at hand. Then theta*, the largest factor on all rates that is healthy, of four columns under TTFT promises
of 0.3, 1, 5 and 60 s, against a bisection in the twin. Left out: workloads whose rates change or repeat others at
another size, and traces that `data` does not hold.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from benchmarks.workloads import WORKLOADS, composed
from placement.config import load_run
from surrogates.residual.model import corrected_largest_load, corrected_model
from surrogates.residual.weights import Residual, read_residual
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError
from twin.figures.health import stable
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.memory import memory_error
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.sources.synthetic import discrete_rates, power_law
from twin.workload.adapter import Adapter

LEFT_OUT = {"azure_conv", "peaks", "unpredictable", "published_3000", "published_10000", "published_100000"}
#: Hours of a comparison, most adapters of a random column, draws for one, and how far it stays from its boundary.
HOURS, MOST_ADAPTERS, DRAWS, LEAST_MARGIN = 3, 250, 12, 0.05
PROMISES_S = (0.3, 1.0, 5.0, 60.0)
#: A bisection looks between these parts of what is expected.
FROM, TO, HALVINGS = 0.6, 1.6, 7


def healthy_columns(
    name: str, count: int, data: str, residual: Residual, seed: int
) -> list[tuple[Column, float, float]]:
    """Random columns of a workload that are healthy by the planning model, each with mean E2E (s) and ITL (ms)."""
    run = load_run(composed(name, data))
    settings = [s for s in run.settings if memory_error(s, run.calibration_of(s)) is None]
    rng = np.random.default_rng([seed, *name.encode()])
    adapters = run.workload.adapters
    found: list[tuple[Column, float, float]] = []
    for _ in range(DRAWS * count):
        setting = settings[int(rng.integers(len(settings)))]
        size = int(rng.integers(3, min(len(adapters), MOST_ADAPTERS) + 1))
        chosen = tuple(adapters[i] for i in rng.choice(len(adapters), size, replace=False).tolist())
        column = Column(tuple(a for a in chosen if a.rank <= setting.max_lora_rank), setting)
        if not column.adapters:
            continue
        model, groups = corrected_model([column], run.calibration_of(setting), residual)
        states = model.states(groups, [setting])
        if states.state.healthy[0] > 0 and states.log_margin[0] > LEAST_MARGIN:
            found.append((column, float(states.state.e2e_mean_s[0]), 1000.0 * float(states.state.itl_mean_s[0])))
        if len(found) == count:
            break
    return found


def errors_of(columns: Sequence[tuple[Column, float, float]], calibration: Calibration) -> list[tuple[float, float]]:
    """Planned / simulated - 1 of mean E2E and mean ITL."""
    errors = []
    for column, e2e_s, itl_ms in columns:
        rows = [simulate(column, calibration, seed=100 + hour).row for hour in range(HOURS)]
        simulated = [float(np.mean([row[name] for row in rows])) for name in ("e2e_mean_s", "itl_mean_ms")]
        errors.append((e2e_s / simulated[0] - 1, itl_ms / simulated[1] - 1))
    return errors


def promised_columns(gpu: str) -> dict[str, tuple[tuple[Adapter, ...], EngineSetting]]:
    """Columns that differ in what limits them."""
    return {
        "60 adapters, 64 slots": (discrete_rates(60, [0.1, 0.05, 0.025], [16]).adapters, EngineSetting(gpu, 64, 16)),
        "120 adapters, 32 slots": (power_law(120, 8.0, 1.0, [16]).adapters, EngineSetting(gpu, 32, 16)),
        "100 adapters, 16 slots": (power_law(100, 6.0, 1.0, [8]).adapters, EngineSetting(gpu, 16, 8)),
        "100 bursty adapters, 128 slots": (
            discrete_rates(100, [0.1, 0.05], [16], arrival_cv=2.0).adapters, EngineSetting(gpu, 128, 16),
        ),
    }  # fmt: skip


def largest_in_twin(
    adapters: Sequence[Adapter], setting: EngineSetting, slo_s: float, expected: float, calibration: Calibration
) -> float:
    """theta* by bisection, three hours a point; NaN where it is not near what is expected."""

    def healthy(factor: float) -> bool:
        column = Column(tuple(a.scaled(factor) for a in adapters), setting)
        return stable(
            [simulate(column, calibration, seed=seed, default_ttft_slo_s=slo_s) for seed in range(HOURS)]
        ).healthy

    low, high = FROM * expected, TO * expected
    if not healthy(low) or healthy(high):
        return math.nan
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if healthy(middle) else (low, middle)
    return math.sqrt(low * high)


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    data: str = ""
    columns: Annotated[int, Range(1)] = 5
    calibration: str = "llama-3.1-8b-h100-64gb"
    seed: Annotated[int, Range(0)] = 0


def run(options: Options) -> int:
    residual, calibration = read_residual(), load_calibration(options.calibration)
    errors: list[tuple[float, float]] = []
    print(f"{'workload':20s} planned / simulated - 1 of mean E2E, and of mean ITL, %")
    for name in WORKLOADS:
        if name in LEFT_OUT:
            continue
        try:
            columns = healthy_columns(name, options.columns, options.data, residual, options.seed)
        except InputError as error:
            print(f"{name:20s} left out: {error.problem}")
            continue
        own = errors_of(columns, calibration)
        errors += own
        shown = ["  ".join(f"{100 * pair[k]:5.1f}" for pair in own) for k in (0, 1)]
        print(f"{name:20s} {shown[0]}   |  {shown[1]}", flush=True)
    sweep = {}
    for name, (adapters, setting) in promised_columns(calibration.stamp.gpu_type).items():
        for slo_s in PROMISES_S:
            column = Column(adapters, setting)
            found = corrected_largest_load(column, calibration, residual, default_ttft_slo_s=slo_s)
            planned = float(found.theta[0])
            twin = largest_in_twin(adapters, setting, slo_s, planned, calibration)
            sweep[f"{name}, {slo_s:g} s"] = round(100 * (planned / twin - 1), 1) if math.isfinite(twin) else None
            print(f"{name:32s} TTFT {slo_s:4g} s: theta* {planned:6.3f}, in the twin {twin:6.3f}", flush=True)
    absolute = np.abs(np.array(errors))
    print(
        json.dumps(
            {
                "columns": len(errors),
                "e2e_error_median_pct": round(100 * float(np.median(absolute[:, 0])), 2),
                "e2e_error_p90_pct": round(100 * float(np.quantile(absolute[:, 0], 0.9)), 2),
                "itl_error_median_pct": round(100 * float(np.median(absolute[:, 1])), 2),
                "itl_error_p90_pct": round(100 * float(np.quantile(absolute[:, 1], 0.9)), 2),
                "theta_error_pct": sweep,
            }
        )
    )
    return 0


APP = command("benchmarks.planned", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
