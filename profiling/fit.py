"""Fits a calibration from published measurements.

Order: memory and load laws from their tables; a first step-time law from micro-benchmarks alone; then rounds of
teacher forcing on the real runs (`profiling.forcing`) and regression on both (`profiling.regression`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiling.capacity import CapacityFit, fit_capacity, fit_loads
from profiling.forcing import ForcedRun, force_all
from profiling.micro import GRAPH_TOKENS, TERMS, Row, read_micro
from profiling.models import MeasuredModel
from profiling.regression import Recipe, regress, relative_errors, summary
from profiling.replay import read_rig
from profiling.runs import MeasuredRun
from twin.calibration import Calibration, Stamp, StepTimeLaw

RECIPE = Recipe()
ROUNDS = 2
#: Runs per model in the learning curve.
CURVE = (5, 10, 20, 40)


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibration and how well it describes the rows it was fitted to, and rows it was not."""

    calibration: Calibration
    capacity: CapacityFit
    rows: tuple[Row, ...]
    residuals: dict[str, float]
    curve: dict[int, float]


def law_of(coefficients: NDArray[np.float64]) -> StepTimeLaw:
    """A step-time law from coefficients (17,) in the order of `TERMS`."""
    values = {name: round(float(c), 6) for name, c in zip(TERMS, coefficients, strict=True)}
    return StepTimeLaw(**values, graph_tokens=GRAPH_TOKENS)


def held_out_error(runs: Sequence[Row], micro: Sequence[Row], recipe: Recipe = RECIPE) -> float:
    """Mean absolute step-time error of runs of workloads that the fit has not seen, percent."""
    errors = []
    for group in sorted({r.group for r in runs}):
        seen = [r for r in runs if r.group != group]
        left_out = [r for r in runs if r.group == group]
        errors.append(np.abs(relative_errors(left_out, regress([*seen, *micro], recipe))))
    return 100 * float(np.concatenate(errors).mean())


def learning_curve(runs: Sequence[Row], micro: Sequence[Row], draws: int = 6) -> dict[int, float]:
    """Error on the runs left over, by the number of real runs used, percent; 0 = micro-benchmarks alone."""
    rng = np.random.default_rng(0)
    curve = {0: 100 * float(np.abs(relative_errors(runs, regress(micro, RECIPE))).mean())}
    for size in (n for n in CURVE if n < len(runs)):
        errors = []
        for _ in range(draws):
            order = rng.permutation(len(runs))
            used, rest = [runs[i] for i in order[:size]], [runs[i] for i in order[size:]]
            errors.append(float(np.abs(relative_errors(rest, regress([*used, *micro], RECIPE))).mean()))
        curve[size] = 100 * float(np.mean(errors))
    return curve


def fit_calibration(
    folder: Path,
    model: MeasuredModel,
    runs: Sequence[MeasuredRun],
    *,
    date: str,
    source: str,
    threads: int = 2,
    say: Callable[[str], None] = print,
) -> Fit:
    """Fits everything for one model from a data folder and its usable real runs."""
    rig = read_rig(folder)
    capacity = fit_capacity(folder, model)
    micro = read_micro(folder, model.spec.name)
    mine = [r for r in runs if r.usable and r.model == model.spec.name]
    calibration = Calibration(
        name=model.calibration,
        stamp=Stamp(model.gpu.name, model.spec.name, model.engine, model.engine_version, date, source, {}, {}),
        gpu=model.gpu,
        model=model.spec,
        step=law_of(regress(micro, RECIPE)),
        load=fit_loads(folder, model),
        kv=capacity.law,
        valid=_valid(mine),
    )
    say(
        f"{model.calibration}: KV capacity within {capacity.worst_pct:.2f} %, {len(micro)} micro rows, {len(mine)} runs"
    )
    forced: list[ForcedRun] = []
    rows: list[Row] = []
    for number in range(ROUNDS):
        coefficients = calibration.step.as_array()[: len(TERMS)]
        starts = [float(f.step_ms / (f.features @ coefficients)) for f in forced] or None
        forced = force_all(mine, calibration, rig, starts=starts, threads=threads)
        rows = [f.row() for f in forced]
        coefficients = regress([*rows, *micro], RECIPE)
        calibration = replace(calibration, step=law_of(coefficients))
        worst = max(abs(f.residual) for f in forced)
        say(f"  round {number + 1}: {dict(summary([*rows, *micro], coefficients))}, forcing within {100 * worst:.1f} %")
    residuals = {
        **summary([*rows, *micro], calibration.step.as_array()[: len(TERMS)]),
        "run_held_out_workload_mape_pct": round(held_out_error(rows, micro), 3),
        "kv_capacity_worst_pct": round(capacity.worst_pct, 3),
        "memory_errors_right_pct": round(100 * capacity.memory_errors_right, 2),
    }
    points = {"runs": len(mine), "micro_rows": len(micro), "kv_rows": capacity.rows}
    stamp = replace(calibration.stamp, points=points, residuals=residuals)
    return Fit(replace(calibration, stamp=stamp), capacity, (*rows, *micro), residuals, learning_curve(rows, micro))


def _valid(runs: Sequence[MeasuredRun]) -> dict[str, tuple[float, float]]:
    """Ranges that the runs cover; engine flags that never varied have one value."""
    return {
        "max_loras": (min(r.max_loras for r in runs), max(r.max_loras for r in runs)),
        "max_lora_rank": (8, max(r.max_lora_rank for r in runs)),
        "num_adapters": (min(r.num_adapters for r in runs), max(r.num_adapters for r in runs)),
        "max_num_seqs": (1, 2048),
        "max_num_batched_tokens": (2048, 2048),
        "block_size": (16, 16),
        "gpu_memory_utilization": (0.9, 0.9),
    }
