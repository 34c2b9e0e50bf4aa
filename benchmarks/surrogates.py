"""How well the physics, alone and with its learned residual, knows the twin, and how fast both are.

    python -m benchmarks.surrogates [seed=1] [rays=100] [data=<folder of rays>] [weights=<folder>] [threads=2]

Draws fresh rays at call time: `rays` for each shipped calibration, and as many again over five calibrations drawn at
random around them, under settings whose KV cache can hold the longest request. Each gets its boundary theta* and six
columns from the twin, three seeds pooled. Every fourth boundary is searched a second time with other seeds: no model
can be more accurate than two such searches agree (noise floor). With `data` the residual is also trained without Qwen,
and without the calibrations drawn around it, and scored on Qwen. Not measured: columns chosen by a solver.
"""

from __future__ import annotations

import json
import subprocess
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

from benchmarks.surrogate_labels import GRID, Label, label_rays
from surrogates.residual.around import base_name, random_calibration
from surrogates.residual.mixes import draw
from surrogates.residual.model import CorrectedModel, corrected
from surrogates.residual.rays import usable_settings
from surrogates.residual.samples import ray_model, states_at
from surrogates.residual.scores import error_percent, regimes
from surrogates.residual.shards import read_rays
from surrogates.residual.weights import Residual, read_residual, weights_folder
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.figures.health import MAX_ADAPTER_LATE_SHARE, MAX_LATE_SHARE
from twin.server.calibration import load_calibration

Floats = NDArray[np.float64]

SHIPPED = ("llama-3.1-8b-h100-64gb", "qwen2.5-7b-h100-64gb")
UNSEEN = "qwen2.5-7b-h100-64gb"
#: Calibrations drawn at random for the benchmark, and their first number: those of the training start at 0.
AROUND, FIRST_AROUND = 5, 1000
#: Rays of which every so manieth is labelled twice.
REPEAT_EVERY = 4
#: Columns of the timings.
SINGLE, BATCH = 200, 4000
#: What is predicted of columns: name in the result, field of `SteadyState`, figure of the twin and its unit.
FIGURES = (
    ("requests_in_system", "requests_in_system", "requests_in_system", 1.0),
    ("running", "running", "running", 1.0),
    ("itl", "itl_mean_s", "itl_mean_ms", 1e-3),
    ("ttft_mean", "ttft_mean_s", "ttft_mean_s", 1.0),
    ("ttft_p99", "ttft_p99_s", "ttft_p99_s", 1.0),
)
#: A 90 % interval, as quantiles.
INTERVAL = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class Errors:
    """Of R rays and their columns: logarithms of ratios of the twin to what was predicted, by model.

    Args:
        theta: (R,). figures: of healthy columns, by name, with the ray of each.
        labels: right or wrong about late shares; `verdicts`, about health, of columns, with the ray of each.
        inside: whether the twin's value of an hour lies in the 90 % interval, by name; theta* of all seeds pooled.
    """

    theta: Floats
    figures: dict[str, Floats]
    figure_ray: NDArray[np.int64]
    labels: NDArray[np.bool_]
    verdicts: NDArray[np.bool_]
    label_ray: NDArray[np.int64]
    inside: dict[str, list[bool]]


def errors_of(labels: Sequence[Label], residual: Residual | None) -> Errors:
    """Compares labels with the physics alone (no residual) or corrected."""
    theta, figure_ray, label_ray, right, verdicts = [], [], [], [], []
    figures: dict[str, list[float]] = {name: [] for name, *_ in FIGURES}
    inside: dict[str, list[bool]] = {name: [] for name in ("theta", *figures)}
    for r, label in enumerate(labels):
        model, pivot = ray_model(label.draw, label.calibration)
        everybody = [np.arange(len(label.draw.mix))]
        physics = states_at(model, label.draw, label.loads / pivot)
        state, found = physics, None
        if residual is None:
            largest = pivot * float(model.largest_loads(everybody, [label.draw.setting])[0])
        else:
            loads = CorrectedModel(model, residual).largest_loads(everybody, [label.draw.setting])
            largest = pivot * float(loads.theta[0])
            low, high = (pivot * float(loads.quantile(q)[0]) for q in INTERVAL)
            inside["theta"].append(low <= label.theta <= high)
            found = corrected(physics, residual)
            state = found.state
        theta.append(np.log(label.theta / largest))
        healthy = np.flatnonzero(label.healthy & np.isfinite(physics.pace_s))
        for name, attribute, metric, unit in FIGURES:
            hours = unit * label.metrics[metric]
            truth = hours.mean(axis=1)
            with np.errstate(divide="ignore"):
                # Nothing arrived in an hour: left out as infinite.
                figures[name] += np.log(truth / getattr(state, attribute))[healthy].tolist()
            if found is not None:
                # An interval is of one hour, not of the mean of several.
                low_, high_ = (found.quantile(attribute, q)[:, None] for q in INTERVAL)
                inside[name] += ((hours >= low_) & (hours <= high_))[healthy].ravel().tolist()
        figure_ray += [r] * len(healthy)
        in_time = (state.late_share <= MAX_LATE_SHARE) & (state.adapter_late_share <= MAX_ADAPTER_LATE_SHARE)
        right += (in_time & np.isfinite(physics.pace_s) == label.in_time).tolist()
        verdicts += ((state.healthy > 0) == label.healthy).tolist()
        label_ray += [r] * len(label.loads)
    return Errors(
        np.array(theta), {k: np.array(v) for k, v in figures.items()}, np.array(figure_ray, np.int64),
        np.array(right, np.bool_), np.array(verdicts, np.bool_), np.array(label_ray, np.int64), inside,
    )  # fmt: skip


def scores_of(labels: Sequence[Label], errors: Errors) -> dict[str, dict[str, float]]:
    """Scores by regime."""
    result = {}
    for regime, rays in regimes_of(labels).items():
        if not rays.any():
            continue
        scores: dict[str, float] = {"rays": int(rays.sum())}
        values = {"theta": errors.theta[rays]}
        values |= {name: e[rays[errors.figure_ray]] for name, e in errors.figures.items()}
        for name, e in values.items():
            scores[f"{name}_error_median_pct"], scores[f"{name}_error_p90_pct"] = error_percent(e)
        which = rays[errors.label_ray]
        scores["late_label_accuracy"] = 100.0 * float(errors.labels[which].mean())
        scores["healthy_label_accuracy"] = 100.0 * float(errors.verdicts[which].mean())
        result[regime] = {k: round(v, 3) for k, v in scores.items()}
    return result


def regimes_of(labels: Sequence[Label]) -> dict[str, NDArray[np.bool_]]:
    """Which rays belong to which regime, (R,) each."""
    mixes = [label.draw.mix for label in labels]
    return regimes(
        np.array([float(np.average(m.arrival_cv, weights=m.rate_req_per_s)) for m in mixes]),
        np.array([int((m.rank > 0).sum()) for m in mixes]),
        np.array([label.draw.setting.max_loras for label in labels]),
    )


def noise_floor(labels: Sequence[Label]) -> dict[str, dict[str, float]]:
    """Errors that a perfect model would have against these labels, by regime.

    Two labels are both noisy, a perfect model is not: half of the variance of their difference is one label's.
    """
    again = np.array([np.log(label.theta / label.theta_again) / np.sqrt(2.0) for label in labels])
    result = {}
    for regime, rays in regimes_of(labels).items():
        scores: dict[str, float] = {}
        scores["theta_error_median_pct"], scores["theta_error_p90_pct"] = error_percent(again[rays])
        for name, _, metric, _ in FIGURES:
            pairs = [label.metrics[metric][label.healthy] for label, r in zip(labels, rays, strict=True) if r]
            of_seeds = np.concatenate([p for p in pairs if len(p)] or [np.ones((0, 2))])
            if of_seeds.shape[1] < 2:
                continue
            # Of the mean over S seeds: the difference of two seeds, over sqrt(2 S).
            noise = np.log(of_seeds[:, 0] / of_seeds[:, 1]) / np.sqrt(2.0 * of_seeds.shape[1])
            scores[f"{name}_error_median_pct"], scores[f"{name}_error_p90_pct"] = error_percent(noise)
        result[regime] = {k: round(v, 3) for k, v in scores.items()}
    return result


def timings(residual: Residual) -> dict[str, float]:
    """Median time of a column, alone and in a batch, of the physics and of the correction, microseconds."""
    calibration = load_calibration(SHIPPED[0])
    drawn = draw(np.random.default_rng(5), usable_settings(GRID, calibration))
    model, _ = ray_model(drawn, calibration)
    everybody = np.arange(len(drawn.mix))
    largest = float(model.largest_loads([everybody], [drawn.setting])[0])
    laws = model.laws([drawn.setting])
    loads = largest * np.linspace(0.3, 0.95, BATCH)
    one = model.states([everybody], laws, 0.7 * largest)
    many = model.states([everybody] * BATCH, np.repeat(laws, BATCH), loads)

    def microseconds(call: Any, columns: int, repeats: int) -> float:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) / columns)
        return round(1e6 * float(np.median(times)), 2)

    return {
        "us_per_column_single": microseconds(lambda: corrected(one, residual), 1, SINGLE),
        "us_per_column_batched": microseconds(lambda: corrected(many, residual), BATCH, 7),
        "us_physics_single": microseconds(lambda: model.states([everybody], laws, 0.7 * largest), 1, SINGLE),
        "us_physics_batched": microseconds(
            lambda: model.states([everybody] * BATCH, np.repeat(laws, BATCH), loads), BATCH, 3
        ),
    }


FIRST_PREDICTION = """
import sys
import time
start = time.perf_counter()
from surrogates.residual.model import corrected_model
from pathlib import Path
from surrogates.residual.weights import read_residual
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths
adapters = tuple(Adapter(f"a-{k}", 16, 0.1, Lengths(223, 1.1), Lengths(197, 1.06)) for k in range(20))
column = Column(adapters, EngineSetting("h100-64gb", 32, 16))
model, groups = corrected_model([column], load_calibration("llama-3.1-8b-h100-64gb"), read_residual(Path(sys.argv[1])))
model.states(groups, [column.setting])
print(time.perf_counter() - start)
"""


def first_prediction_s(weights: Path) -> float:
    """Seconds from the first import to the first prediction in a fresh interpreter, best of three."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", FIRST_PREDICTION, str(weights)], capture_output=True, text=True, check=True
        )
        for _ in range(3)
    ]
    return round(min(float(run.stdout) for run in runs), 3)


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    seed: Annotated[int, Range(0)] = 1
    rays: Annotated[int, Range(1, 5000)] = 100
    seeds: Annotated[int, Range(1, 20)] = 3
    data: str = ""
    weights: str = ""
    threads: Annotated[int, Range(1, 256)] = 2


def without_unseen(data: str) -> Residual:
    """The residual trained on the same rays without `UNSEEN`, and without calibrations drawn around it."""
    from surrogates.residual.training import ResidualOptions, train_residual

    rays, calibrations, spec = read_rays(Path(data))
    return train_residual(rays, calibrations, spec, ResidualOptions(logger="none"), without=[UNSEEN])


def run(options: Options) -> int:
    weights = Path(options.weights) if options.weights else weights_folder()
    residual = read_residual(weights)
    shipped = [load_calibration(name) for name in SHIPPED]
    around = [random_calibration(shipped[k % 2], options.seed, FIRST_AROUND + k) for k in range(AROUND)]
    each = -(-options.rays // AROUND)
    tasks = [(c, k) for c in shipped for k in range(options.rays)] + [(c, k) for c in around for k in range(each)]
    labels = label_rays(
        tasks, seed=options.seed, seeds=options.seeds, threads=options.threads, repeat_every=REPEAT_EVERY
    )
    labels = [label for label in labels if np.isfinite(label.theta)]
    own = [label for label in labels if label.calibration.name in SHIPPED]
    unseen = [label for label in own if base_name(label.calibration.name) == UNSEEN]
    drawn = [label for label in labels if label.calibration.name not in SHIPPED]
    physics, hybrid = errors_of(own, None), errors_of(own, residual)
    result: dict[str, Any] = {
        "physics": scores_of(own, physics),
        "hybrid": scores_of(own, hybrid),
        "noise_floor": noise_floor(own),
        "transfer": {"random_calibrations": scores_of(drawn, errors_of(drawn, residual))},
        "transfer_physics": {
            "random_calibrations": scores_of(drawn, errors_of(drawn, None)),
            UNSEEN: scores_of(unseen, errors_of(unseen, None)),
        },
        "transfer_seen": {UNSEEN: scores_of(unseen, errors_of(unseen, residual))},
        "interval_90_pct_holds_pct": {k: round(100 * float(np.mean(v)), 1) for k, v in hybrid.inside.items()},
        "no_boundary_in_physics": int(np.isnan(physics.theta).sum()),
        "first_prediction_s": first_prediction_s(weights),
        **timings(residual),
    }
    if options.data:
        result["transfer"][UNSEEN] = scores_of(unseen, errors_of(unseen, without_unseen(options.data)))
    show(result)
    print(json.dumps(result))
    return 0


def show(result: dict[str, Any]) -> None:
    """The scores as a table."""
    table = Table(title="Errors against the twin on fresh rays, median / 90th percentile, %")
    for heading in ("rays", "model", "n", "theta*", "N", "ITL (B)", "TTFT p99", "late label", "healthy label"):
        table.add_column(heading, justify="left" if heading in ("rays", "model") else "right")
    groups = [("physics", result["physics"]), ("corrected", result["hybrid"]), ("noise floor", result["noise_floor"])]
    rows = [(regime, model, scores[regime]) for regime in result["physics"] for model, scores in groups]
    for name, scores in result["transfer"].items():
        rows += [(name, "physics", result["transfer_physics"][name]["all"])]
        rows += [(name, "corrected, all seen", result["transfer_seen"][name]["all"])] if name == UNSEEN else []
        rows += [(name, "corrected, not seen", scores["all"])]
    for regime, model, values in rows:
        pairs = [
            "{:.1f} / {:.1f}".format(*(values[f"{name}_error_{q}_pct"] for q in ("median", "p90")))
            for name in ("theta", "requests_in_system", "itl", "ttft_p99")
        ]
        shares = [f"{values[k]:.1f}" if k in values else "" for k in ("late_label_accuracy", "healthy_label_accuracy")]
        table.add_row(regime, model, str(values.get("rays", "")), *pairs, *shares)
    Console(width=150).print(table)


APP = command("benchmarks.surrogates", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
