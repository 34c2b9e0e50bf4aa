"""The reload cascade: one server, two states, a fast one and a slow one that loads adapters all the time.

    python -m benchmarks.cascade [out=FILE.png] [adapters=400] [slots=64] [rate=0.0135] [scan=false]

Many adapters of low rates share few slots. First the very same column in the twin, hour by hour: which minutes are slow
(loads per second beyond `SLOW` times those of a steady state without cascade), and when each hour fell. Then the same
over a range of rates: the share of slow minutes, both states' figures, and what the steady state says, which has one
answer. `pushed` hours get one minute of three times the traffic in their tenth minute and are otherwise the same
requests: slow minutes long after it show two states under one load. Last, the largest healthy request rate by the
physics, by the physics with its residual, and by the twin. `out` draws it (needs the extra `plot`). `scan=true` counts
second states that the physics knows, over numbers of adapters and slots and rates (half a minute), and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from benchmarks.cascade_figure import Hour, Load, cascade_png
from surrogates.residual.model import corrected, corrected_largest_load
from surrogates.residual.weights import read_residual
from surrogates.steady_state.model import steady_state
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.engine.play import HOUR_S, limits_of
from twin.figures.health import stable
from twin.figures.series import time_series
from twin.figures.warmup import steps_to_trace
from twin.files import write_bytes
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.memory import max_model_len
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.sources.synthetic import discrete_rates
from twin.traffic.arrivals import draw_requests
from twin.workload.requests import Requests

Array = NDArray[np.float64]
RANK = 16
#: A minute is slow with more than this many times the loads of the fast state.
SLOW = 2.5
#: When the pushed hours are pushed, s, for how long, and how many times the traffic.
PUSH_S, PUSH_FOR_S, PUSH = 600.0, 60.0, 3
#: Rates of the sweep, hours of a point of it, and hours of a point of the bisection for the largest healthy rate, which
#: looks between two factors: with few hours a single bad one decides.
FACTORS, SWEEP_HOURS, LARGEST_HOURS = (0.7, 0.8, 0.9, 0.925, 0.95, 0.975, 1.0, 1.025, 1.05, 1.1), 20, 60
FROM, TO, HALVINGS = 0.6, 1.4, 8
#: Columns in which a second state of the physics is looked for: equal adapters, slots, requests per second of all.
SCAN_ADAPTERS, SCAN_SLOTS = (100, 200, 400, 800, 1600), (8, 16, 32, 48, 64, 96, 128)
SCAN_RATES = tuple(np.linspace(1.0, 12.0, 45).tolist())


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments; `rate` in requests per second of each adapter."""

    out: str = ""
    adapters: Annotated[int, Range(2)] = 400
    slots: Annotated[int, Range(1)] = 64
    rate: Annotated[float, Range(above=0.0, unit="req/s")] = 0.0135
    seeds: Annotated[int, Range(1)] = 20
    scan: bool = False
    calibration: str = "llama-3.1-8b-h100-64gb"


def column_of(options: Options, calibration: Calibration, factor: float = 1.0) -> Column:
    """So many equal adapters on so many slots, all rates times a factor."""
    adapters = discrete_rates(options.adapters, [options.rate * factor], [RANK]).adapters
    return Column(adapters, EngineSetting(calibration.stamp.gpu_type, options.slots, RANK))


def pushed(column: Column, calibration: Calibration, seed: int) -> Requests:
    """The requests of an hour, with `PUSH` times the traffic for a minute: copies, at other moments of that minute."""
    drawn = draw_requests(
        column.adapters, horizon_s=HOUR_S, seed=seed, max_model_len=max_model_len(column.setting, calibration)
    )
    within = np.flatnonzero((drawn.arrival_s >= PUSH_S) & (drawn.arrival_s < PUSH_S + PUSH_FOR_S))
    extra = np.tile(within, PUSH - 1)
    rng = np.random.default_rng([seed, 11])
    index = np.concatenate([np.arange(len(drawn)), extra])
    arrival_s = np.concatenate([drawn.arrival_s, PUSH_S + PUSH_FOR_S * rng.random(len(extra))])
    # Copies belong to other adapters, as traffic that grows would.
    adapter = np.concatenate([drawn.adapter, rng.permutation(drawn.adapter)[: len(extra)]])
    order = np.argsort(arrival_s, kind="stable")
    index = index[order]
    return Requests(arrival_s[order], adapter[order], drawn.prompt[index], drawn.cached[index], drawn.output[index])


def hour(column: Column, calibration: Calibration, seed: int, *, push: bool = False) -> Hour:
    """One simulated hour, minute by minute."""
    result = simulate(
        column, calibration, seed=seed, requests=pushed(column, calibration, seed) if push else None,
        trace_steps=steps_to_trace(HOUR_S, calibration.step.base),
    )  # fmt: skip
    blocks = limits_of(column.setting, calibration, adapters=len(column.adapters), horizon_s=HOUR_S).total_blocks
    series = time_series(result.trace, horizon_s=HOUR_S, total_blocks=blocks, busy_s=result.busy_s)
    return Hour(
        seed=seed,
        loads_per_s=series.loads_per_s,
        requests=series.running + series.waiting,
        step_ms=1000.0 * series.busy_share / np.maximum(series.steps_per_s, 1e-9),
        healthy=bool(stable([result]).healthy),
    )


def swept(options: Options, calibration: Calibration, hours: int) -> list[Load]:
    """Twin and steady state over a range of rates."""
    residual, found = read_residual(), []
    for factor in FACTORS:
        column = column_of(options, calibration, factor)
        state = steady_state([column], calibration)
        physics = float(state.requests_in_system[0])
        learned = float(corrected(state, residual).state.requests_in_system[0])
        limit = SLOW * float(state.loads_per_s[0])
        simulated = [hour(column, calibration, seed) for seed in range(hours)]
        after_push = [hour(column, calibration, seed, push=True) for seed in range(hours)]
        found.append(
            Load(
                req_per_s=column.rate_req_per_s, physics=physics, learned=learned,
                physics_loads_per_s=float(state.loads_per_s[0]), second_pace_ms=1000.0 * float(state.second_pace_s[0]),
                limit=limit, hours=tuple(simulated), pushed=tuple(after_push),
            )
        )  # fmt: skip
    return found


def largest_rates(options: Options, calibration: Calibration, hours: int) -> dict[str, float]:
    """Largest healthy requests per second of the column: by the physics, with its residual, and in the twin."""
    column = column_of(options, calibration)
    found = corrected_largest_load(column, calibration, read_residual())

    def healthy(factor: float) -> bool:
        scaled = column_of(options, calibration, factor)
        return stable([simulate(scaled, calibration, seed=seed) for seed in range(hours)]).healthy

    low, high = FROM, TO
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if healthy(middle) else (low, middle)
    rate = column.rate_req_per_s
    return {
        "physics": rate * float(found.physics[0]), "with_residual": rate * float(found.theta[0]), "twin": rate * low,
    }  # fmt: skip


def tell(loads: Sequence[Load]) -> None:
    """Prints a row a load."""
    state = f"{'loads/s':>13s} {'N':>6s} {'step ms':>7s}"
    print(f"{'':24s} | {'fast minutes':>28s} | {'slow minutes':>28s} | steady state")
    print(f" req/s |  fell slow min pushed | {state} | {state} | {'loads/s':>16s} {'N':>6s} with residual")
    for load in loads:
        fast, slow = load.state(slow=False), load.state(slow=True)
        shown = " | ".join(
            f"{s[0]:13.1f} {s[1]:6.0f} {s[2]:7.1f}" if s[0] == s[0] else f"{'-':>13s} {'-':>6s} {'-':>7s}"
            for s in (fast, slow)
        )
        print(
            f"{load.req_per_s:6.2f} | {load.fell:5.0%} {load.slow_share:8.0%} {load.slow_after_push:6.1f} | {shown} | "
            f"{load.physics_loads_per_s:16.1f} {load.physics:6.1f} {load.learned:10.1f}"
        )
    print("fell: hours with a slow minute; pushed: slow minutes of an hour with a push; N: requests")


def scan(calibration: Calibration) -> int:
    """Counts columns in which the physics knows a second state."""
    columns = [
        Column(discrete_rates(n, [rate / n], [RANK]).adapters, EngineSetting(calibration.stamp.gpu_type, slots, RANK))
        for n in SCAN_ADAPTERS
        for slots in SCAN_SLOTS
        if slots < n
        for rate in SCAN_RATES
    ]
    second = sum(float(steady_state([column], calibration).second_pace_s[0]) > 0 for column in columns)
    print(json.dumps({"columns": len(columns), "with_a_second_state": second}))
    return 0


def run(options: Options) -> int:
    calibration = load_calibration(options.calibration)
    if options.scan:
        return scan(calibration)
    column = column_of(options, calibration)
    limit = SLOW * float(steady_state([column], calibration).loads_per_s[0])
    hours = [hour(column, calibration, seed) for seed in range(options.seeds)]
    for one in hours:
        minute = one.first_slow_minute(limit)
        print(
            f"seed {one.seed:2d}: {'fast all hour' if minute is None else f'falls in minute {minute}':20s} "
            f"{int((one.loads_per_s > limit).sum()):2d} slow minutes, most {one.loads_per_s.max():5.1f} loads/s, "
            f"at most {one.requests.max():4.0f} requests"
        )
    loads = swept(options, calibration, min(SWEEP_HOURS, options.seeds))
    tell(loads)
    largest = largest_rates(options, calibration, LARGEST_HOURS)
    print("largest healthy req/s: " + ", ".join(f"{name} {value:.2f}" for name, value in largest.items()))
    if options.out:
        stays = [h for h in hours if h.first_slow_minute(limit) is None]
        falls = [h for h in hours if h.first_slow_minute(limit) is not None]
        shown = {"stays fast": stays[:1], "falls": falls[:1]}
        if stays:
            shown["stays fast, pushed"] = [hour(column, calibration, stays[0].seed, push=True)]
        lines = {name: found[0] for name, found in shown.items() if found}
        write_bytes(Path(options.out), cascade_png(lines, loads, largest, column.rate_req_per_s))
    print(
        json.dumps(
            {
                "hours": len(hours),
                "hours_that_fell": sum(h.first_slow_minute(limit) is not None for h in hours),
                "largest_req_per_s": {name: round(value, 3) for name, value in largest.items()},
                "second_state_known_to_physics": any(load.second_pace_ms > 0 for load in loads),
            }
        )
    )
    return 0


APP = command("benchmarks.cascade", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
