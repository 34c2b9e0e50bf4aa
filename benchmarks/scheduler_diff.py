"""The twin against vLLM's own scheduler, step by step, on random workloads under stress.

    python -m benchmarks.scheduler_diff [workloads=10000] [seed=0] [shown=3] [left_out=0]

Runs in the environment of `scripts/install-vllm-cpu` (vLLM 0.32.0). Workload i is `draw_scenario(seed + i)`; compared
are, in every step: the requests scheduled with their tokens and order, skipped, preempted and finished; adapter loads
and evictions of both caches in order; free KV blocks, running requests, start and duration; and every first-token and
finish time. `left_out=N` also measures, on N serving workloads, what rules of vLLM that the twin lacks would change.
Not compared: step times of real hardware, prefix hits, rules that docs/scheduler.md lists as left out.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from profiling.vllm.log import Difference, ScheduleLog, first_difference, twin_log
from profiling.vllm.scenario import Scenario, draw_scenario
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.engine.state import EVICTED, FINISHED, HOST, LOADED, PREEMPTED, SKIPPED, SLOT
from twin.errors import InputError

Engine = Callable[[Scenario], ScheduleLog]


def vllm_engine() -> Engine:
    """vLLM's scheduler; odd seeds tell it that model runner 2 executes the batches, which must change nothing.

    Raises:
        InputError: vLLM 0.32 is not installed.
    """
    try:
        from profiling.vllm.config import VllmOptions
        from profiling.vllm.scheduler import vllm_log
    except ImportError as error:
        raise InputError(
            f"vLLM 0.32.0 is not installed in {sys.prefix} ({error})",
            remedy="make its environment with scripts/install-vllm-cpu FOLDER and run "
            "FOLDER/bin/python -m benchmarks.scheduler_diff (docs/scheduler.md)",
        ) from error
    return lambda scenario: vllm_log(scenario, VllmOptions(runner_v2=bool(scenario.seed % 2)))


def rare_events(log: ScheduleLog) -> dict[str, int]:
    """Counts of what a comparison should have met: without them it would prove little."""
    rows = log.events
    finished = rows[rows[:, 1] == FINISHED]
    preempted = rows[rows[:, 1] == PREEMPTED]
    end = np.zeros(len(log.finish_s), np.int64)
    end[finished[:, 2]] = finished[:, 0]
    loaded = rows[(rows[:, 1] == LOADED) & (rows[:, 3] == SLOT)][:, [0, 2]]
    evicted = rows[(rows[:, 1] == EVICTED) & (rows[:, 3] == SLOT)][:, [0, 2]]
    both = {tuple(pair) for pair in loaded.tolist()} & {tuple(pair) for pair in evicted.tolist()}
    return {
        "steps": len(log.state),
        "preemptions": len(preempted),
        "finished_while_preempted": int((preempted[:, 0] > end[preempted[:, 2]]).sum()),
        "skips": log.count(SKIPPED),
        "loads": log.count(LOADED, SLOT),
        "disk_loads": log.count(LOADED, HOST),
        "evictions": log.count(EVICTED),
        "host_evictions": log.count(EVICTED, HOST),
        "reloads_in_one_step": len(both),
    }


def compare(
    seeds: Sequence[int], expected: Engine, found: Engine, report: Callable[[Scenario, Difference], None]
) -> dict[str, Any]:
    """Runs every seed in both engines; `report` is told the first difference of each workload that has one."""
    counts: Counter[str] = Counter()
    expected_s = found_s = 0.0
    differences = asynchronous = 0
    for seed in seeds:
        scenario = draw_scenario(seed)
        asynchronous += scenario.async_scheduling
        started = time.perf_counter()
        one = expected(scenario)
        between = time.perf_counter()
        other = found(scenario)
        expected_s, found_s = expected_s + between - started, found_s + time.perf_counter() - between
        counts.update(rare_events(one))
        difference = first_difference(one, other)
        if difference is not None:
            differences += 1
            report(scenario, difference)
    return {
        "workloads": len(seeds),
        "async_workloads": asynchronous,
        "differences": differences,
        **counts,
        "vllm_s": round(expected_s, 2),
        "twin_s": round(found_s, 2),
        "steps_per_s": round(counts["steps"] / (expected_s + found_s)),
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"\n{'':28}{'total':>12}{'per workload':>14}")
    for name, value in result.items():
        if name not in ("workloads", "vllm_s", "twin_s", "steps_per_s", "left_out"):
            print(f"{name:28}{value:12d}{value / result['workloads']:14.2f}")


def print_left_out(rules: dict[str, dict[str, dict[str, float]]]) -> None:
    """Mean without the rule, then the mean change by it and its standard error."""
    print("\nrules of vLLM that the twin leaves out: value without, change with the rule (standard error)")
    for rule, rows in rules.items():
        print(f"\n{rule}")
        for name, row in rows.items():
            print(f"  {name:20}{row['without']:12.3f}{row['change']:+12.3f} ({row['standard_error']:.3f})")


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    workloads: Annotated[int, Range(1)] = 10_000
    seed: Annotated[int, Range(0)] = 0
    shown: Annotated[int, Range(0)] = 3
    left_out: Annotated[int, Range(0)] = 0


def run(options: Options) -> int:
    vllm = vllm_engine()
    shown = 0

    def report(scenario: Scenario, difference: Difference) -> None:
        nonlocal shown
        shown += 1
        if shown > options.shown:
            return
        print(f"\nseed {scenario.seed}: {scenario.describe()}")
        print(str(difference).replace("expected:", "vLLM:").replace("found:   ", "twin:"))
        print(f"alone: python -m benchmarks.scheduler_diff seed={scenario.seed} workloads=1")

    twin_log(draw_scenario(0))  # compiled before the clock runs
    result = compare(range(options.seed, options.seed + options.workloads), vllm, twin_log, report)
    print_table(result)
    if options.left_out:
        from profiling.vllm.left_out import RULES, measure

        result["left_out"] = {rule: measure(rule, options.left_out, options.seed) for rule in RULES}
        print_left_out(result["left_out"])
    print(json.dumps(result))
    return 1 if result["differences"] else 0


APP = command("benchmarks.scheduler_diff", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
