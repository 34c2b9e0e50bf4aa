"""How well the surrogates know the twin, and how fast they are.

    python -m benchmarks.surrogates [calibration=llama-3.1-8b-h100-64gb] [data=<data set folder>] [ceiling_rays=0]

Scores come from held-out rays, as written to the artifact by the training. With `data` a naive baseline is scored on
the same rays: the mean boundary in tokens per second of all training rays under that number of slots. With
`ceiling_rays` that many boundaries are searched again in the twin with other seeds: no model can be more accurate
than two such searches agree. Not measured: settings outside the grid, columns chosen by a solver.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from surrogates.model.features import INDEX, AdapterArrays, adapter_features
from surrogates.model.prediction import NeuralSurrogate, load_surrogate
from surrogates.training.boundary import trace_ray
from surrogates.training.records import Records, read_records
from surrogates.training.sampling import sample
from surrogates.training.scores import accuracy_within, boundary_scores
from surrogates.training.training_data import split_rays
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.figures.health import RULES
from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.memory import memory_error
from twin.server.settings import EngineSetting, setting_grid
from twin.simulation import simulate

BATCH = 20_000
#: Seeds of the repeated searches start here, away from those of the data sets.
OTHER_SEEDS = 1000


def baseline_scores(records: Records, held_out_share: float, seed: int) -> dict[str, dict[str, float]]:
    """A constant token rate per number of slots as the boundary, by rule."""
    held_out = split_rays(len(records.mixes), held_out_share, seed)
    crowded = records.counts > records.max_loras
    scores: dict[str, dict[str, float]] = {}
    for rule in RULES:
        theta = records.theta[rule]
        known = np.isfinite(theta)
        tokens = [INDEX["computed_prompt_rate"], INDEX["output_rate"]]
        log_tokens = np.full(len(theta), np.nan)
        for ray in np.flatnonzero(known).tolist():
            log_tokens[ray] = np.log(records.features(ray, float(theta[ray]))[tokens].sum())
        train, held = known & ~held_out, known & held_out
        level = {m: log_tokens[train & (records.max_loras == m)].mean() for m in np.unique(records.max_loras)}
        errors = np.array([level[m] for m in records.max_loras[held]]) - log_tokens[held]
        scores[rule] = boundary_scores(errors, crowded[held])
    return scores


def accuracy_ceiling(calibration: Calibration, settings: list[EngineSetting], rays: int) -> dict[str, float]:
    """Agreement of two searches of the same boundary with different seeds, percent within 5 %, by rule."""
    gaps: dict[str, list[float]] = {rule: [] for rule in RULES}
    for index in range(rays):
        drawn = sample(OTHER_SEEDS, index, settings)
        setting = settings[drawn.setting_index]
        pooled = 3 if (drawn.adapters.rank > 0).sum() > setting.max_loras else 1

        def search(offset: int, mix: AdapterArrays, setting: EngineSetting, pooled: int) -> dict[str, float]:
            def run(adapters: AdapterArrays, seed: int) -> SimulationResult:
                return simulate(Column(adapters.to_adapters(), setting), calibration, seed=seed + offset)

            return {str(rule): theta for rule, theta in trace_ray(mix, run, pooled_seeds=pooled).theta.items()}

        one, two = (search(offset, drawn.adapters, setting, pooled) for offset in (0, OTHER_SEEDS))
        for rule in RULES:
            if np.isfinite(one[rule]) and np.isfinite(two[rule]):
                # Both searches are noisy; against a perfect model only one would be.
                gaps[rule].append(float(np.log(one[rule] / two[rule]) / np.sqrt(2)))
    return {rule: accuracy_within(np.array(gaps[rule]), 0.05) for rule in RULES}


def microseconds_per_column(surrogate: NeuralSurrogate, settings: list[EngineSetting]) -> tuple[float, float]:
    """Median over repeats: one column at a time from its adapters, and batches of features as solvers price them."""
    drawn = [sample(1, k, settings) for k in range(40)]
    columns = [Column(d.adapters.to_adapters(), settings[d.setting_index]) for d in drawn]
    surrogate.predict(columns)
    single = []
    for column in columns:
        start = time.perf_counter()
        surrogate.predict([column])
        single.append(time.perf_counter() - start)
    phi = np.repeat(_features(columns), BATCH // len(columns), axis=0)
    of_each = [c.setting for c in columns for _ in range(BATCH // len(columns))]
    batched = []
    for _ in range(5):
        start = time.perf_counter()
        surrogate.predict_features(phi, of_each)
        batched.append((time.perf_counter() - start) / len(phi))
    return 1e6 * float(np.median(single)), 1e6 * float(np.median(batched))


def _features(columns: list[Column]) -> NDArray[np.float64]:
    return np.stack([adapter_features(c.adapters).sum(axis=0) for c in columns])


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    calibration: str = "llama-3.1-8b-h100-64gb"
    data: str = ""
    ceiling_rays: Annotated[int, Range(0)] = 0


def run(options: Options) -> int:
    calibration = load_calibration(options.calibration)
    surrogate = load_surrogate(calibration)
    meta = surrogate.artifact.meta
    grid = setting_grid([calibration.stamp.gpu_type], max_model_len=16384)
    settings = [s for s in grid if memory_error(s, calibration) is None]
    scores = meta["scores"]
    metrics = scores["metrics"]
    result: dict[str, Any] = {
        # The default constraint's scores at the top; those of the other rule below its name.
        "convex": {**scores["stable"]["convex"], "published": scores["published"]["convex"]},
        "mlp": {**scores["stable"]["mlp"], **metrics, "published": scores["published"]["mlp"]},
        "baselines": {},
        "margins": meta["margins"],
        "rays": meta["rays"],
    }
    if options.data:
        training = meta["training"]
        records = read_records(Path(options.data))
        result["baselines"] = {
            f"constant_tokens_{rule}": s
            for rule, s in baseline_scores(records, training["held_out_share"], training["seed"]).items()
        }
    result["us_per_column_single"], result["us_per_column_batched"] = microseconds_per_column(surrogate, settings)
    result["accuracy_ceiling"] = (
        accuracy_ceiling(calibration, settings, options.ceiling_rays) if options.ceiling_rays else None
    )
    table = Table(title=f"Boundary on held-out rays, {calibration.name}")
    for heading in ("model", "rule", "theta error, median %", "p90 %", "right within 5 %, %"):
        table.add_column(heading, justify="left" if heading in ("model", "rule") else "right")
    keys = ("theta_error_median_pct", "theta_error_p90_pct", "accuracy_boundary")
    rows = [(model, rule, scores[rule][model]) for rule in RULES for model in ("convex", "mlp")]
    rows += [("constant tokens", name.rpartition("_")[2], s) for name, s in result["baselines"].items()]
    for model, rule, values in rows:
        table.add_row(model, rule, *(f"{values[k]:.1f}" for k in keys))
    Console().print(table)
    print(json.dumps(result))
    return 0


APP = command("benchmarks.surrogates", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
