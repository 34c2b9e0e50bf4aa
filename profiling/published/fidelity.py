"""How far replays are from the real runs: SMAPE, starvation labels, memory errors.

SMAPE = 100 * mean(|a - b| / (|a| + |b|)), range 0-100, no factor 2, as in the publications.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from profiling.published.replay import Rig, replay, script_of, setting_of
from profiling.published.runs import MeasuredRun
from twin.engine.play import HOUR_S
from twin.server.calibration import Calibration
from twin.server.memory import memory_error
from twin.server.rules import EngineRules

#: Figures that are compared: JSON key -> column of the data.
COMPARED = {
    "throughput": "total_throughput_tps",
    "tpot": "tpot_mean_ms",
    "itl": "itl_mean_ms",
    "ttft": "ttft_mean_completed_ms",
    "ttft_p50": "ttft_p50_completed_ms",
    "ttft_p99": "ttft_p99_completed_ms",
    "running": "running_mean",
    "kv_usage": "kv_usage_mean",
    "ttft_published": "ttft_authors_ms",
}
#: Distance to the starvation threshold, in throughput / ideal, within which a run counts as near it.
NEAR_THRESHOLD = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run under one seed.

    Args:
        predicted, measured: by key of `COMPARED`.
        starved, starved_measured: labels of the published rule.
        served: predicted throughput / ideal, which gives the label.
    """

    run: MeasuredRun
    seed: int
    predicted: Mapping[str, float]
    measured: Mapping[str, float]
    starved: bool
    starved_measured: bool
    served: float = float("nan")


def smape(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Percent over the pairs where both are finite and not both zero; NaN without any."""
    a, b = np.asarray(predicted, float), np.asarray(measured, float)
    size = np.abs(a) + np.abs(b)
    keep = np.isfinite(size) & (size > 0)
    return float(100 * (np.abs(a - b)[keep] / size[keep]).mean()) if keep.any() else float("nan")


def compare(
    run: MeasuredRun, calibration: Calibration, rig: Rig, seed: int, rules: EngineRules | None = None
) -> Comparison:
    """Replays one hour of a run without knowing anything that only the run could tell."""
    script = script_of(run, calibration, rig, seed=seed)
    twin = replay(script, calibration, rig, rules=rules)
    sent, completed = len(script.requests), twin.completed
    predicted = {
        "throughput": twin.throughput_tps,
        "tpot": twin.tpot_ms,
        "itl": twin.itl_ms,
        "ttft": twin.ttft_ms,
        "ttft_p50": twin.ttft_p50_ms,
        "ttft_p99": twin.ttft_p99_ms,
        "running": twin.running,
        "kv_usage": twin.kv_usage,
        # Their definition: a request that did not finish counts as the whole window.
        "ttft_published": (twin.ttft_ms * completed + (sent - completed) * 1000 * HOUR_S) / sent,
    }
    measured = {key: run.metrics[column] for key, column in COMPARED.items()}
    return Comparison(run, seed, predicted, measured, twin.starved, bool(run.starved), twin.served_fraction)


def compare_all(
    runs: Sequence[MeasuredRun],
    calibrations: Mapping[str, Calibration],
    rig: Rig,
    seeds: int,
    threads: int = 2,
    rules: EngineRules | None = None,
) -> list[Comparison]:
    """All usable runs under seeds 0, 1, ...; in parallel threads, in order."""
    tasks = [(r, s) for r in runs if r.usable and r.starved is not None for s in range(seeds)]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(lambda t: compare(t[0], calibrations[t[0].model], rig, t[1], rules), tasks))


def f1(predicted: Sequence[bool], measured: Sequence[bool]) -> float:
    """F1 of the label `starved`; 1 where there is nothing to find and nothing was claimed."""
    hits = sum(p and m for p, m in zip(predicted, measured, strict=True))
    claims, facts = sum(predicted), sum(measured)
    return 2 * hits / (claims + facts) if claims + facts else 1.0


def scores(rows: Sequence[Comparison]) -> dict[str, float]:
    """Mean over seeds of what a single simulation scores."""
    result: dict[str, float] = {"runs": len({r.run.run_id for r in rows})}
    for key in COMPARED:
        result[f"{key}_smape"] = round(smape([r.predicted[key] for r in rows], [r.measured[key] for r in rows]), 3)
    right = [r.starved == r.starved_measured for r in rows]
    result["starved_accuracy"] = round(float(np.mean(right)), 4)
    facts = [r.starved_measured for r in rows]
    if any(facts):
        # Among runs that are all healthy F1 is 0 or 1 whatever the twin says.
        result["starved_f1"] = round(f1([r.starved for r in rows], facts), 4)
    return result


def memory_scores(runs: Sequence[MeasuredRun], calibrations: Mapping[str, Calibration]) -> dict[str, float]:
    """Whether the capacity law says which servers start."""
    known = [r for r in runs if r.started is not None]
    said = [memory_error(setting_of(r, calibrations[r.model].stamp.gpu_type), calibrations[r.model]) for r in known]
    right = [(message is None) == run.started for message, run in zip(said, known, strict=True)]
    return {
        "memory_error_accuracy": round(float(np.mean(right)), 4),
        "memory_errors": sum(r.started is False for r in known),
        "memory_error_runs": len(known),
    }


def regimes() -> dict[str, Callable[[MeasuredRun], bool]]:
    """Groups that the report breaks down by; a run may be in several."""
    return {
        "llama-3.1-8b": lambda r: r.model.startswith("llama"),
        "qwen2.5-7b": lambda r: r.model.startswith("qwen"),
        "not_starved": lambda r: not r.starved,
        "starved": lambda r: bool(r.starved),
        "light": lambda r: r.metrics["waiting_mean"] < 1,
        "queueing": lambda r: r.metrics["waiting_mean"] >= 1 and not r.starved,
        "near_threshold": lambda r: abs(r.metrics["throughput_over_ideal"] - 0.9) < NEAR_THRESHOLD,
        "more_adapters_than_slots": lambda r: r.num_adapters > r.max_loras,
        "rank_32": lambda r: r.max_lora_rank == 32,
    }


def report(rows: Sequence[Comparison]) -> dict[str, dict[str, float]]:
    """Scores by regime; regimes without runs are left out."""
    groups = {name: [r for r in rows if test(r.run)] for name, test in regimes().items()}
    return {name: scores(members) for name, members in groups.items() if members}
