"""Fits a calibration from published measurements.

Order: memory and load laws from their tables; a first step-time law from micro-benchmarks alone; then rounds of
teacher forcing on the real runs (`profiling.fit.forcing`) and regression on both (`profiling.fit.regression`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiling.fit.capacity import CapacityFit, fit_capacity, fit_loads
from profiling.fit.forcing import ForcedRun, force_all
from profiling.fit.micro import GRAPH_TOKENS, TERMS, Row, read_micro
from profiling.fit.regression import Recipe, regress, relative_errors, summary
from profiling.published.models import MeasuredModel
from profiling.published.replay import Rig
from profiling.published.runs import MeasuredRun, thin
from twin.server.calibration import Calibration, Stamp
from twin.server.laws import StepTimeLaw
from twin.server.rules import EngineRules

RECIPE = Recipe()
#: The first round only has to move a law of micro-benchmarks to where the runs are: every 6th run will do.
FIRST_ROUND_EVERY = 6
SOURCE = "published micro-benchmarks and one-hour runs (arXiv 2508.08343)"


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibration and how well it describes the rows it was fitted to.

    Args:
        forced: the runs at their measured step time, as in the last round.
        micro: the micro-benchmark rows.
    """

    calibration: Calibration
    capacity: CapacityFit
    forced: tuple[ForcedRun, ...]
    micro: tuple[Row, ...]


def law_of(coefficients: NDArray[np.float64]) -> StepTimeLaw:
    """A step-time law from coefficients (21,) in the order of `TERMS`."""
    values = {name: round(float(c), 6) for name, c in zip(TERMS, coefficients, strict=True)}
    return StepTimeLaw(**values, graph_tokens=GRAPH_TOKENS)


def law_from(forced: Sequence[ForcedRun], micro: Sequence[Row], recipe: Recipe = RECIPE) -> StepTimeLaw:
    """The law that fits these runs and micro-benchmarks."""
    return law_of(regress([*(f.row() for f in forced), *micro], recipe))


def held_out_error(runs: Sequence[Row], micro: Sequence[Row], recipe: Recipe = RECIPE) -> float:
    """Mean absolute step-time error of runs of workloads that the fit has not seen, percent."""
    errors = []
    for group in sorted({r.group for r in runs}):
        seen = [r for r in runs if r.group != group]
        left_out = [r for r in runs if r.group == group]
        errors.append(np.abs(relative_errors(left_out, regress([*seen, *micro], recipe))))
    return 100 * float(np.concatenate(errors).mean())


def micro_calibration(
    folder: Path, model: MeasuredModel, runs: Sequence[MeasuredRun], *, date: str
) -> tuple[Calibration, CapacityFit]:
    """What micro-benchmarks alone tell; `runs` give the valid ranges only."""
    capacity = fit_capacity(folder, model)
    calibration = Calibration(
        name=model.calibration,
        stamp=Stamp(model.gpu.name, model.spec.name, model.engine, model.engine_version, date, SOURCE, {}, {}),
        gpu=model.gpu,
        model=model.spec,
        step=law_from([], read_micro(folder, model.spec.name)),
        load=fit_loads(folder, model),
        kv=capacity.law,
        valid=valid_ranges(runs),
    )
    return calibration, capacity


def fit_calibration(
    folder: Path,
    model: MeasuredModel,
    runs: Sequence[MeasuredRun],
    *,
    date: str,
    threads: int = 2,
    rules: EngineRules | None = None,
    recipe: Recipe = RECIPE,
    rig: Rig | None = None,
    say: Callable[[str], None] = print,
) -> Fit:
    """Fits everything for one model from a data folder and its usable real runs.

    Args:
        rules: the engine's rules; None = those of the measured version.
        recipe, rig: how rows are weighed, and what is known of the measuring rig.
    """
    mine = [r for r in runs if r.usable and r.model == model.spec.name]
    calibration, capacity = micro_calibration(folder, model, mine, date=date)
    micro = read_micro(folder, model.spec.name)
    say(
        f"{model.calibration}: KV capacity within {capacity.worst_pct:.2f} %, {len(micro)} micro rows, {len(mine)} runs"
    )
    rig = rig or Rig()
    forced: list[ForcedRun] = []
    for some in (thin(mine, FIRST_ROUND_EVERY), mine):
        forced = force_all(some, calibration, rig, threads=threads, rules=rules)
        calibration = replace(calibration, step=law_from(forced, micro, recipe))
        worst = max(abs(f.residual) for f in forced)
        say(f"  {len(some)} runs: {errors_of(calibration.step, forced, micro)}, forcing within {100 * worst:.1f} %")
    return fit_of(calibration, capacity, forced, micro)


def fit_of(calibration: Calibration, capacity: CapacityFit, forced: Sequence[ForcedRun], micro: Sequence[Row]) -> Fit:
    """Stamps a calibration with its points and residuals."""
    residuals = {
        **errors_of(calibration.step, forced, micro),
        "run_held_out_workload_mape_pct": round(held_out_error([f.row() for f in forced], micro), 3),
        "kv_capacity_worst_pct": round(capacity.worst_pct, 3),
        "memory_errors_right_pct": round(100 * capacity.memory_errors_right, 2),
    }
    points = {"runs": len(forced), "micro_rows": len(micro), "kv_rows": capacity.rows}
    stamp = replace(calibration.stamp, points=points, residuals=residuals)
    return Fit(replace(calibration, stamp=stamp), capacity, tuple(forced), tuple(micro))


def errors_of(law: StepTimeLaw, forced: Sequence[ForcedRun], micro: Sequence[Row]) -> dict[str, float]:
    """Mean absolute step-time errors by kind of row, percent."""
    return dict(summary([*(f.row() for f in forced), *micro], law.as_array()[: len(TERMS)]))


def valid_ranges(runs: Sequence[MeasuredRun]) -> dict[str, tuple[float, float]]:
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
