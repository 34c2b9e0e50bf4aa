"""How well the queueing physics knows the twin, on rays drawn and labelled now; nothing is trained.

    python -m benchmarks.steady_state [calibration=llama-3.1-8b-h100-64gb] [rays=200] [seed=1] [rule=stable] [seeds=1]

A ray is a random mix of adapters (`surrogates.training.sampling`; every fourth with arrivals of CV 1 to 10) under a
random setting whose KV cache can hold the longest request. theta* is the factor on all its rates at which the twin
stops to call it healthy, bisected to 1.5 % from the physics' guess. The states are compared at 0.2, 0.5, 0.8 and 0.95
of the twin's theta*, where the twin finds them healthy, with other seeds. Errors are |log(physics / twin)|, median and
90th percentile. With `noise` rays, theta* of that many is searched again with other seeds: no model can be better.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from surrogates.model.features import AdapterArrays
from surrogates.steady_state import SteadyState, largest_load, steady_state, steady_state_model
from surrogates.training.boundary import LATTICE_STEP
from surrogates.training.sampling import sample
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.figures.health import Rule, check_rule, judge
from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.memory import memory_error
from twin.server.settings import EngineSetting, setting_grid
from twin.simulation import simulate

#: Parts of theta* at which states are compared, and the first seed of these simulations.
PARTS, OTHER_SEEDS = (0.2, 0.5, 0.8, 0.95), 1000
#: First steps of a search, lattice points, and the farthest that is looked at.
FIRST_STEP, FARTHEST = 4, 400
#: What is compared: name, field of the physics, field of the twin, factor on the latter.
COMPARED = (
    ("requests_in_system", "requests_in_system", "requests_in_system", 1.0),
    ("running", "running", "running", 1.0),
    ("itl", "itl_mean_s", "itl_mean_ms", 1e-3),
    ("itl_p99", "itl_p99_s", "itl_p99_ms", 1e-3),
    ("ttft", "ttft_mean_s", "ttft_mean_s", 1.0),
    ("ttft_p99", "ttft_p99_s", "ttft_p99_s", 1.0),
    ("kv", "kv_share", "kv_usage", 1.0),
)


@dataclass(frozen=True, slots=True)
class Ray:
    """A mix under a setting. cv: mean arrival CV over requests. slotted: adapters that need a slot."""

    adapters: AdapterArrays
    setting: EngineSetting
    cv: float
    slotted: int


#: Kinds of rays that are scored on their own.
REGIMES: dict[str, Callable[[Ray], bool]] = {
    "all": lambda ray: True,
    "within_slots": lambda ray: ray.slotted <= ray.setting.max_loras,
    "crowded_many_slots": lambda ray: ray.slotted > ray.setting.max_loras >= 64,
    "crowded_few_slots": lambda ray: ray.slotted > ray.setting.max_loras <= 32,
    "cv_le_3": lambda ray: ray.cv <= 3,
    "cv_gt_3": lambda ray: ray.cv > 3,
}


def draw(seed: int, index: int, settings: Sequence[EngineSetting]) -> Ray:
    """The `index`-th ray of a seed."""
    drawn = sample(seed, index, settings)
    adapters = drawn.adapters
    if index % 4 == 3:
        rng = np.random.default_rng([seed, index, 1])
        spread = np.clip(np.exp(rng.normal(np.log(3.0), 0.6, len(adapters))), 1.0, 10.0)
        alike = np.full(len(adapters), rng.uniform(2.0, 10.0))
        adapters = replace(adapters, arrival_cv=spread if rng.random() < 0.5 else alike)
    rate = adapters.rate_req_per_s
    cv = float((rate * adapters.arrival_cv).sum() / rate.sum())
    return Ray(adapters, settings[drawn.setting_index], cv, int((adapters.rank > 0).sum()))


def find_boundary(ray: Ray, calibration: Calibration, guess: float, rule: Rule, seeds: Sequence[int]) -> float:
    """theta* in the twin; NaN where none is found within a factor of 400 of the guess."""
    known: dict[int, bool] = {}

    def healthy(k: int) -> bool:
        if k not in known:
            column = column_of(ray, guess * math.exp(LATTICE_STEP * k))
            known[k] = judge([simulate(column, calibration, seed=s) for s in seeds], rule).healthy
        return known[k]

    step = FIRST_STEP
    low, high = (0, step) if healthy(0) else (-step, 0)
    while healthy(high):
        low, high, step = high, high + 2 * step, 2 * step
        if high > FARTHEST:
            return math.nan
    while not healthy(low):
        low, high, step = low - 2 * step, low, 2 * step
        if low < -FARTHEST:
            return math.nan
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if healthy(middle) else (low, middle)
    return guess * math.exp(LATTICE_STEP * (low + high) / 2)


def column_of(ray: Ray, factor: float) -> Column:
    return Column(ray.adapters.scaled(factor).to_adapters(), ray.setting)


def errors_of_states(ray: Ray, theta: float, calibration: Calibration, seed: int) -> list[dict[str, float]]:
    """log(physics / twin) of every figure at parts of theta*, where the twin is healthy."""
    found = []
    for k, part in enumerate(PARTS):
        column = column_of(ray, part * theta)
        result: SimulationResult = simulate(column, calibration, seed=OTHER_SEEDS + seed + k)
        if judge([result], "stable").healthy:
            state: SteadyState = steady_state([column], calibration)
            found.append(
                {
                    name: math.log(float(getattr(state, ours)[0]) / (factor * result.row[theirs]))
                    for name, ours, theirs, factor in COMPARED
                    if result.row[theirs] > 0 and np.isfinite(getattr(state, ours)[0])
                }
            )
    return found


def percentiles(errors: Sequence[float], name: str) -> dict[str, float]:
    if not errors:
        return {}
    size = 100 * np.abs(np.array(errors))
    return {f"{name}_error_median_pct": float(np.median(size)), f"{name}_error_p90_pct": float(np.quantile(size, 0.9))}


def microseconds_per_column(calibration: Calibration, settings: Sequence[EngineSetting]) -> dict[str, float]:
    """Medians over mixes with as many adapters as a GPU of a plan has, within slots and with more than slots."""
    times: dict[str, list[float]] = {}
    for index in range(200):
        ray = draw(77, index, settings)
        if not 20 <= ray.slotted <= 120:
            continue
        adapters = ray.adapters.to_adapters()
        theta = largest_load([Column(adapters, ray.setting)], calibration)[0]
        if not np.isfinite(theta):
            continue
        model = steady_state_model(ray.adapters.scaled(0.8 * theta).to_adapters(), calibration, ray.setting)
        groups, law = [np.arange(len(adapters))], model.laws([ray.setting])
        many, laws = groups * 200, np.repeat(law, 200)
        sums = model.sums(groups)[np.zeros(200, np.int64)]
        kind = "crowded" if ray.slotted > ray.setting.max_loras else "within"
        jobs: dict[str, tuple[int, Callable[[], SteadyState]]] = {
            "single": (1, partial(model.states, groups, law)),
            "batched": (200, partial(model.states, many, laws)),
            "sums": (200, partial(model.states_of_sums, sums, laws, *model.promise_limits(groups))),
        }
        for name, (columns, job) in jobs.items():
            job()
            start = time.perf_counter()
            job()
            times.setdefault(f"us_per_column_{name}_{kind}", []).append(1e6 * (time.perf_counter() - start) / columns)
    return {name: float(np.median(values)) for name, values in times.items()}


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    calibration: str = "llama-3.1-8b-h100-64gb"
    rays: Annotated[int, Range(1)] = 200
    seed: Annotated[int, Range(0)] = 1
    seeds: Annotated[int, Range(1)] = 1
    noise: Annotated[int, Range(0)] = 0
    rule: str = "stable"


def run(options: Options) -> int:
    calibration, rule = load_calibration(options.calibration), check_rule(options.rule)
    grid = setting_grid([calibration.stamp.gpu_type])
    settings = [s for s in grid if memory_error(s, calibration) is None]
    rays = [draw(options.seed, index, settings) for index in range(options.rays)]
    thetas: list[float] = []
    theta_errors, state_errors, again = [], [], []
    for index, ray in enumerate(rays):
        guess = float(largest_load([column_of(ray, 1.0)], calibration, rule=rule)[0])
        seeds = range(index, index + options.seeds)
        theta = find_boundary(ray, calibration, guess, rule, seeds)
        thetas.append(theta)
        theta_errors.append(math.log(guess / theta))
        state_errors.append(errors_of_states(ray, theta, calibration, index) if math.isfinite(theta) else [])
        if index < options.noise and math.isfinite(theta):
            other = find_boundary(ray, calibration, guess, rule, [OTHER_SEEDS + s for s in seeds])
            # Both searches are noisy; against a perfect model only one would be.
            again.append(math.log(theta / other) / math.sqrt(2))
    scores: dict[str, Any] = {}
    for regime, belongs in REGIMES.items():
        chosen = [k for k, ray in enumerate(rays) if belongs(ray)]
        states = [errors for k in chosen for errors in state_errors[k]]
        values: dict[str, float] = {"rays": len(chosen), "states": len(states)}
        values |= percentiles([theta_errors[k] for k in chosen if math.isfinite(thetas[k])], "theta")
        for name, *_ in COMPARED:
            values |= percentiles([e[name] for e in states if name in e], name)
        scores[regime] = values
    result = {
        "calibration": calibration.name,
        "rule": rule,
        "physics": scores,
        "noise_floor": percentiles([e for e in again if math.isfinite(e)], "theta"),
        **microseconds_per_column(calibration, settings),
    }
    table = Table(title=f"Physics against the twin, {calibration.name}, rule {rule}: median / 90th percentile, %")
    for heading in ("regime", "rays", "theta*", *(name for name, *_ in COMPARED)):
        table.add_column(heading, justify="left" if heading == "regime" else "right")
    for regime, values in scores.items():
        cells = [
            f"{values[f'{name}_error_median_pct']:.1f} / {values[f'{name}_error_p90_pct']:.1f}"
            if f"{name}_error_median_pct" in values
            else "-"
            for name in ("theta", *(name for name, *_ in COMPARED))
        ]
        table.add_row(regime, str(values["rays"]), *cells)
    Console(width=150).print(table)
    print(json.dumps(result))
    return 0


APP = command("benchmarks.steady_state", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
