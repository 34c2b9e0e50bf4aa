"""The twin near the starvation threshold: signed errors by slots and by margin, and what a perfect twin would score.

    python -m benchmarks.near_threshold data=<folder> [seeds=6] [folds=5] [forced=<folder>] [threads=2]

Runs whose throughput / ideal is within 5 points of the threshold are replayed under several seeds, with a law fitted
on *other workloads* where `forced=` names the teacher-forced runs that `python -m profiling fit forced=` keeps, and
with the shipped calibrations otherwise. Tables: errors by slots; then, by measured distance to the threshold, the noise
of one hour and the labels that are right. A measured run is one sample, so a twin without any error would not repeat
its label either: with s the spread of throughput / ideal between seeds and x the measured value, its label is the
measured one with probability Phi(|x - threshold| / (sqrt(2) s)). Then steps without adapters, from micro-benchmarks,
and what the terms are worth that were found here (`forced=` only): step-time error of runs of workloads left out,
fitted again without them, with a bootstrap over workloads.
Not measured: errors of the measured value itself (where the arrivals are estimated, some 0.4 points).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from profiling.fit.calibration import RECIPE
from profiling.fit.crossval import Evidence
from profiling.fit.evidence import fit_model
from profiling.fit.micro import TERMS, read_micro
from profiling.fit.regression import Recipe, regress, relative_errors
from profiling.published.fidelity import NEAR_THRESHOLD, Comparison, compare_all, smape
from profiling.published.models import MEASURED_MODELS
from profiling.published.replay import Rig
from profiling.published.runs import TABLES, MeasuredRun, fold_of, read_all_runs
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.figures.health import STARVATION_THRESHOLD
from twin.server.calibration import Calibration, load_calibration

Array = NDArray[np.float64]
#: Slots of a group, lowest and highest.
SLOT_GROUPS = ((1, 8), (9, 16), (17, 32), (33, 64), (65, 10_000))
#: Distance to the threshold, in throughput / ideal, of a group.
MARGINS = ((0.0, 0.01), (0.01, 0.02), (0.02, 0.03), (0.03, NEAR_THRESHOLD))
#: Terms of the law that were found on these runs.
FOUND: dict[str, tuple[str, ...]] = {
    "skipped_seq": ("skipped_seq",),
    "slot_square": ("slot_square",),
    "lora_rank": ("lora_rank",),
    "all three": ("skipped_seq", "slot_square", "lora_rank"),
}
#: Batched tokens of a group of steps without adapters.
STEPS = ((0, 128), (128, 256), (256, 512), (512, 4096))


def replays(
    near: Sequence[MeasuredRun], laws: Sequence[tuple[set[str], Mapping[str, Calibration]]], seeds: int, threads: int
) -> list[list[Comparison]]:
    """Each run under every seed, with the calibrations of its fold (workloads, calibrations)."""
    rows: dict[tuple[str, str], list[Comparison]] = {}
    for groups, calibrations in laws:
        mine = [r for r in near if not groups or r.group in groups]
        for row in compare_all(mine, calibrations, Rig(), seeds, threads):
            rows.setdefault((row.run.table, row.run.run_id), []).append(row)
    return list(rows.values())


def signed(runs: Sequence[Sequence[Comparison]]) -> dict[str, float]:
    """Errors of a group of runs: signed means in percent (TTFT: of the logarithm), SMAPE, and labels that are right."""
    rows = [r for run in runs for r in run]

    def error(key: str) -> float:
        return 100 * float(np.mean([r.predicted[key] / r.measured[key] - 1 for r in rows]))

    ttft = float(np.mean([np.log(r.predicted["ttft"] / r.measured["ttft"]) for r in rows]))
    return {
        "runs": len(runs),
        "throughput": error("throughput"),
        "tpot": error("tpot"),
        "itl": error("itl"),
        "running": error("running"),
        "ttft": 100 * float(np.expm1(ttft)),
        "throughput_smape": smape([r.predicted["throughput"] for r in rows], [r.measured["throughput"] for r in rows]),
        "ttft_smape": smape([r.predicted["ttft"] for r in rows], [r.measured["ttft"] for r in rows]),
        "label_right": 100 * float(np.mean([r.starved == r.starved_measured for r in rows])),
    }


def noise(runs: Sequence[Sequence[Comparison]]) -> dict[str, float]:
    """How far seeds are from each other, and the labels that a perfect twin would get right."""
    served = np.array([[r.served for r in run] for run in runs])
    ttft = np.array([[r.predicted["ttft"] for r in run] for run in runs])
    pairs = list(combinations(range(served.shape[1]), 2))
    spread = np.maximum(served.std(axis=1, ddof=1), 1e-9) if len(pairs) else np.full(len(served), np.nan)
    away = np.array([abs(run[0].run.metrics["throughput_over_ideal"] - STARVATION_THRESHOLD) for run in runs])
    labels = served < STARVATION_THRESHOLD
    return {
        "runs": len(runs),
        "spread_points": 100 * float(spread.mean()),
        "labels_alike": 100 * float(np.mean([labels[:, i] == labels[:, j] for i, j in pairs])) if pairs else np.nan,
        "ttft_smape": float(np.mean([smape(ttft[:, i].tolist(), ttft[:, j].tolist()) for i, j in pairs]))
        if pairs
        else np.nan,
        "perfect_twin": 100 * float(ndtr(away / (np.sqrt(2) * spread)).mean()),
    }


def by_slots(runs: Sequence[Sequence[Comparison]]) -> dict[str, dict[str, float]]:
    """`signed` of each slot group and of all."""
    groups = {
        f"{low}..{high} slots" if high < 10_000 else f"{low}+ slots": [
            r for r in runs if low <= r[0].run.max_loras <= high
        ]
        for low, high in SLOT_GROUPS
    }
    groups |= {m.spec.name: [r for r in runs if r[0].run.model == m.spec.name] for m in MEASURED_MODELS}
    groups |= {name: [r for r in runs if r[0].run.table == name] for name in TABLES} | {"all": list(runs)}
    return {name: signed(members) for name, members in groups.items() if members}


def by_margin(runs: Sequence[Sequence[Comparison]]) -> dict[str, dict[str, float]]:
    """`noise`, and the labels that are right, by measured distance to the threshold."""
    result = {}
    for low, high in (*MARGINS, (0.0, NEAR_THRESHOLD)):
        mine = [r for r in runs if low <= abs(_margin(r[0].run)) < high]
        if mine:
            result[f"{100 * low:g}..{100 * high:g} points"] = noise(mine) | {"label_right": signed(mine)["label_right"]}
    return result


def _margin(run: MeasuredRun) -> float:
    return run.metrics["throughput_over_ideal"] - STARVATION_THRESHOLD


def without_adapters(folder: Path, calibrations: Mapping[str, Calibration]) -> dict[str, dict[str, float]]:
    """Signed step-time error of micro-benchmark steps without adapters, percent, by batched tokens."""
    result: dict[str, dict[str, float]] = {}
    for model in MEASURED_MODELS:
        rows = [r for r in read_micro(folder, model.spec.name) if r.kind == "base"]
        error = 100 * relative_errors(rows, calibrations[model.spec.name].step.as_array()[: len(TERMS)])
        tokens = np.array([r.features[TERMS.index("seq")] + r.features[TERMS.index("prompt")] for r in rows])
        result[model.spec.name] = {
            f"{low + 1}..{high}": float(error[(tokens > low) & (tokens <= high)].mean()) for low, high in STEPS
        }
    return result


def show(title: str, table: Mapping[str, Mapping[str, float]]) -> None:
    """One line a group."""
    keys = list(next(iter(table.values())))
    print(f"\n{title}\n{'':24}" + "".join(f"{key:>17}" for key in keys))
    for name, row in table.items():
        print(f"{name:24}" + "".join(f"{row[key]:17.0f}" if key == "runs" else f"{row[key]:17.2f}" for key in keys))


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    data: str
    seeds: Annotated[int, Range(2)] = 6
    folds: Annotated[int, Range(2)] = 5
    forced: str = ""
    threads: Annotated[int, Range(1)] = 2


def run(options: Options) -> int:
    folder = Path(options.data)
    if not any((folder / f"{name}.csv").is_file() for name in TABLES):
        return skipped(f"no table of one-hour runs ({', '.join(TABLES)}) in {folder}")
    runs = [r for r in read_all_runs(folder) if r.usable and r.starved is not None]
    near = [r for r in runs if abs(_margin(r)) < NEAR_THRESHOLD]
    if not near:
        return skipped(f"none of the {len(runs)} runs is within {100 * NEAR_THRESHOLD:g} points of the threshold")
    shipped = {m.spec.name: load_calibration(m.calibration) for m in MEASURED_MODELS}
    evidence = evidence_of(folder, runs, options) if options.forced else {}
    laws = folds_of(evidence, runs, options.folds) if evidence else [(set[str](), shipped)]
    rows = replays(near, laws, options.seeds, options.threads)
    source = f"laws of other workloads, {options.folds} folds" if options.forced else "shipped laws"
    result: dict[str, Any] = {"by_slots": by_slots(rows), "by_margin": by_margin(rows)}
    show(f"near the threshold, {source}, {options.seeds} seeds: errors in %, SMAPE, labels right", result["by_slots"])
    show("seeds against each other, and the labels a perfect twin gets right, %", result["by_margin"])
    result["without_adapters"] = without_adapters(folder, shipped)
    show("step time without adapters, shipped laws, error in % by batched tokens", result["without_adapters"])
    if evidence:
        result["terms"] = worth_of_terms(evidence)
        show("step-time error of workloads left out, points more without these terms", result["terms"])
    print(json.dumps(result, allow_nan=False))
    return 0


def skipped(reason: str) -> int:
    """Says why there is nothing to measure."""
    print(f"skipped: {reason}\n{json.dumps({'skipped': reason})}")
    return 0


def evidence_of(folder: Path, runs: Sequence[MeasuredRun], options: Options) -> dict[str, Evidence]:
    """By model; forced runs are read, or made and kept."""
    result: dict[str, Evidence] = {}
    for model in MEASURED_MODELS:
        made = fit_model(folder, model, runs, date="", threads=options.threads, cache=options.forced)
        result[model.spec.name] = Evidence(made.calibration, made.forced, made.micro)
    return result


def folds_of(
    evidence: Mapping[str, Evidence], runs: Sequence[MeasuredRun], folds: int
) -> list[tuple[set[str], Mapping[str, Calibration]]]:
    """Of each fold: the workloads left out, and the calibrations fitted on the others."""
    result: list[tuple[set[str], Mapping[str, Calibration]]] = []
    for i in range(folds):
        inside, _ = fold_of(runs, f"{i}/{folds}")
        groups = {r.group for r in inside}
        fitted = {name: e.fitted([f for f in e.forced if f.run.group not in groups]) for name, e in evidence.items()}
        result.append((groups, fitted))
    return result


def worth_of_terms(evidence: Mapping[str, Evidence]) -> dict[str, dict[str, float]]:
    """By how much the step-time error grows without some terms: percentage points, with 95 % limits."""
    full = _left_out_errors(evidence, RECIPE)
    result = {}
    for name, terms in FOUND.items():
        without = _left_out_errors(evidence, replace(RECIPE, zero=(*RECIPE.zero, *terms)))
        sums = np.array([(without[g] - full[g]).sum() for g in full])
        sizes = np.array([len(full[g]) for g in full])
        pick = np.random.default_rng(0).integers(0, len(sums), (2000, len(sums)))
        low, high = np.quantile(sums[pick].sum(1) / sizes[pick].sum(1), [0.025, 0.975])
        result[name] = {
            "runs": float(sizes.sum()),
            "full": float(sum(e.sum() for e in full.values()) / sizes.sum()),
            "more": float(sums.sum() / sizes.sum()),
            "low": float(low),
            "high": float(high),
        }
    return result


def _left_out_errors(evidence: Mapping[str, Evidence], recipe: Recipe) -> dict[str, Array]:
    """Absolute step-time errors of each workload's runs, percent, with a law of the others."""
    errors: dict[str, Array] = {}
    for e in evidence.values():
        rows = [f.row() for f in e.forced]
        for group in sorted({r.group for r in rows}):
            law = regress([*(r for r in rows if r.group != group), *e.micro], recipe)
            errors[group] = 100 * np.abs(relative_errors([r for r in rows if r.group == group], law))
    return errors


APP = command("benchmarks.near_threshold", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
