"""What the empty start costs, and what common random numbers save: the tables of docs/metrics.md.

    python -m benchmarks.twin_confidence [calibration=llama-3.1-8b-h100-64gb] [seeds=4] [pairs=12]

Warm-up: figures of whole windows, without the first 600 s, and by MSER-5, means of `seeds` seeds. Comparison: paired
differences over `pairs` seeds and the variance that independent seeds would have (`apart`: measured with other seeds
for b). Not measured: the error probabilities, which tests/twin/confidence/test_confidence.py simulates.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np

from twin.confidence.comparison import compare
from twin.confidence.seeds import Run, runner
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.engine.play import HOUR_S, play
from twin.figures.metrics import WindowMetrics, measure
from twin.figures.warmup import steps_to_trace
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.rules import VLLM_0_8
from twin.server.settings import EngineSetting
from twin.workload.adapter import DEFAULT_TTFT_P99_S, Adapter, Lengths

SHAPES = {
    "light: 32 adapters, 1 req/s, 32 slots": (32, (0.05, 0.0125), 32),
    "busy: 96 adapters, 18 req/s, 96 slots": (96, (0.19,), 96),
    "near saturation: 96 adapters, 20 req/s, 96 slots": (96, (0.21,), 96),
    "slots short: 96 adapters, 19 req/s, 32 slots": (96, (0.2,), 32),
    "overloaded: 64 adapters, 64 req/s, 16 slots": (64, (1.6, 0.4), 16),
}
FIGURES = ("throughput_tps", "served_fraction", "ttft_mean_s", "ttft_p99_s", "itl_mean_ms", "running", "waiting")
COMPARED = ("throughput_tps", "itl_mean_ms", "ttft_mean_s")
WARMUPS: tuple[float | Literal["auto"], ...] = (0.0, 600.0, "auto")
OTHER_SEEDS = 900_000


def build(adapters: int, rates: tuple[float, ...], max_loras: int, gpu_type: str) -> Column:
    """ShareGPT-like adapters whose rates go round `rates`, rank 16."""
    return Column(
        tuple(
            Adapter(f"a{i}", 16, rates[i % len(rates)], Lengths(223, 1.1), Lengths(197, 1.06)) for i in range(adapters)
        ),
        EngineSetting(gpu_type, max_loras, 16),
    )


def windows(column: Column, calibration: Calibration, seed: int) -> list[WindowMetrics]:
    """One simulated hour, measured with every warm-up."""
    played = play(column, calibration, seed=seed, trace_steps=steps_to_trace(HOUR_S, calibration.step.base))
    slo_s = np.full(len(column.adapters), DEFAULT_TTFT_P99_S)
    return [
        measure(
            played.requests, played.out, horizon_s=HOUR_S, slo_s=slo_s, total_blocks=played.total_blocks, warmup_s=w
        )
        for w in WARMUPS
    ]


def warmup_table(calibration: Calibration, seeds: int) -> float:
    """Prints the table; returns the largest relative change of a mean throughput by 600 s of warm-up."""
    largest = 0.0
    print(f"{'column':50s} {'warm-up':>16s} " + " ".join(f"{name:>15s}" for name in FIGURES))
    for name, shape in SHAPES.items():
        column = build(*shape, calibration.stamp.gpu_type)
        runs = [windows(column, calibration, seed) for seed in range(seeds)]
        means = []
        for w in range(len(WARMUPS)):
            kept = [run[w] for run in runs]
            removed = sorted(m.warmup.seconds for m in kept)
            rules = {m.warmup.rule for m in kept}
            text = (
                "none"
                if w == 0
                else f"{removed[0]:g}-{removed[-1]:g} s"
                if rules != {"no steady state"}
                else "unsettled"
            )
            means.append([float(np.mean([m.row[figure] for m in kept])) for figure in FIGURES])
            print(f"{name:50s} {text:>16s} " + " ".join(f"{value:15.5g}" for value in means[-1]))
        largest = max(largest, abs(means[1][0] / means[0][0] - 1))
    return largest


def comparisons(calibration: Calibration) -> Mapping[str, tuple[Run, Run]]:
    """Pairs (a, b) of what is compared."""
    gpu = calibration.stamp.gpu_type

    def hour(rates: tuple[float, ...], adapters: int, max_loras: int, **options: Any) -> Run:
        return runner(build(adapters, rates, max_loras, gpu), calibration, **options)

    common = hour((0.2, 0.1), 64, 64, rules=VLLM_0_8)
    return {
        "48 instead of 32 slots; 96 adapters, 19 req/s": (hour((0.2,), 96, 32), hour((0.2,), 96, 48)),
        "96 instead of 64 slots; 64 adapters, 10 req/s": (common, hour((0.2, 0.1), 64, 96, rules=VLLM_0_8)),
        "asynchronous scheduling; the same column": (
            common, hour((0.2, 0.1), 64, 64, rules=replace(VLLM_0_8, async_scheduling=True)),
        ),
        "11 instead of 10 req/s; the same column": (common, hour((0.22, 0.11), 64, 64, rules=VLLM_0_8)),
    }  # fmt: skip


def comparison_table(calibration: Calibration, pairs: int) -> float:
    """Prints the table; returns the median variance reduction."""
    reductions = []
    for name, (a, b) in comparisons(calibration).items():
        others = [b(OTHER_SEEDS + k).row for k in range(pairs)]
        for figure in COMPARED:
            found = compare(a, b, figure, min_seeds=pairs, max_seeds=pairs)
            apart = np.var([other[figure] for other in others] - found.a, ddof=1)
            together = np.var(found.b - found.a, ddof=1)
            ratio = apart / together if together else np.inf
            reductions.append(found.variance_reduction)
            print(
                f"{name:48s} {figure:15s} {found.mean:11.5g} [{found.low:11.5g}, {found.high:11.5g}]  "
                f"variance reduction {found.variance_reduction:9.4g}, "
                f"apart {ratio:9.4g}"
            )
    return float(np.median(reductions))


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    calibration: str = "llama-3.1-8b-h100-64gb"
    seeds: Annotated[int, Range(1)] = 4
    pairs: Annotated[int, Range(1)] = 12


def run(options: Options) -> int:
    calibration = load_calibration(options.calibration)
    largest = warmup_table(calibration, options.seeds)
    median = comparison_table(calibration, options.pairs)
    print(
        json.dumps(
            {
                "calibration": calibration.name,
                "largest_throughput_change_by_warmup": round(largest, 4),
                "median_variance_reduction": round(median, 1),
            }
        )
    )
    return 0


APP = command("benchmarks.twin_confidence", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
