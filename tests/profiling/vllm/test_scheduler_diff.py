"""The comparison with vLLM's own scheduler: it sees planted differences, and with vLLM installed it finds none.

The second half runs in the environment that `scripts/install-vllm-cpu` makes and is skipped elsewhere.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from benchmarks.scheduler_diff import compare, rare_events
from profiling.vllm.log import Difference, ScheduleLog, first_difference, twin_log
from profiling.vllm.scenario import Scenario, draw_scenario, serving_scenario
from twin.engine.state import EVICTED, FINISHED, LOADED, PREEMPTED, SCHEDULED, SKIPPED

ROOT = Path(__file__).resolve().parents[3]
HAS_VLLM = importlib.util.find_spec("vllm") is not None
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_every_drawn_workload_can_be_served(seed: int) -> None:
    """vLLM would hang on a request that never fits, and refuses budgets and caches that are too small."""
    s = draw_scenario(seed)
    assert (s.requests.prompt + s.requests.output).max() <= s.blocks * s.block
    assert s.token_budget >= s.max_num_seqs
    assert s.max_cpu_loras >= s.max_loras
    assert sorted(s.walk) == list(range(len(s.slotless)))
    assert not s.requests.cached.any()


def stressed() -> tuple[Scenario, ScheduleLog]:
    """A workload whose log has every kind of event."""
    for seed in range(200):
        scenario = draw_scenario(seed)
        log = twin_log(scenario)
        if all(log.count(kind) for kind in (SCHEDULED, SKIPPED, PREEMPTED, FINISHED, LOADED, EVICTED)):
            return scenario, log
    raise AssertionError("no workload has every kind of event")


@pytest.mark.parametrize("kind", [SCHEDULED, SKIPPED, PREEMPTED, FINISHED, LOADED, EVICTED])
@pytest.mark.parametrize("column", [0, 2, 3])
def test_a_changed_event_is_found_in_its_step(kind: int, column: int) -> None:
    _, log = stressed()
    row = int(np.flatnonzero(log.events[:, 1] == kind)[-1])
    events = log.events.copy()
    events[row, column] += 1
    difference = first_difference(log, replace(log, events=events))
    assert difference is not None
    assert difference.step == log.events[row, 0]


@pytest.mark.parametrize("kind", [SCHEDULED, SKIPPED, LOADED])
def test_a_changed_order_within_a_step_is_found(kind: int) -> None:
    _, log = stressed()
    rows = log.events[log.events[:, 1] == kind]
    steps, counts = np.unique(rows[:, 0], return_counts=True)
    if counts.max() < 2:
        pytest.skip("no step of this workload has two of the kind")
    step = steps[np.argmax(counts)]
    here = np.flatnonzero((log.events[:, 1] == kind) & (log.events[:, 0] == step))[:2]
    events = log.events.copy()
    events[here] = events[here[::-1]]
    difference = first_difference(log, replace(log, events=events))
    assert difference is not None
    assert difference.step == step


def test_the_order_in_which_requests_finish_within_a_step_does_not_matter() -> None:
    _, log = stressed()
    finished = np.flatnonzero(log.events[:, 1] == FINISHED)
    events = log.events.copy()
    events[finished] = events[finished][np.lexsort((-events[finished, 2], events[finished, 0]))]
    assert first_difference(log, replace(log, events=events)) is None


def test_a_missing_last_event_block_count_or_time_is_found() -> None:
    _, log = stressed()
    found = first_difference(log, replace(log, events=log.events[:-1]))
    assert found is not None and found.step == log.events[-1, 0]
    state = log.state.copy()
    state[7, 5] += 1
    found = first_difference(log, replace(log, state=state))
    assert found is not None and (found.step, found.what) == (8, "free_blocks")
    finish = log.finish_s.copy()
    finish[3] += 1e-9
    found = first_difference(log, replace(log, finish_s=finish))
    assert found is not None and found.what == "finish time of request 3"
    found = first_difference(log, replace(log, state=log.state[:-1]))
    assert found is not None and found.what == "steps"


def test_a_difference_reads_as_a_schedule() -> None:
    _, log = stressed()
    events = log.events.copy()
    events[np.flatnonzero(events[:, 1] == SCHEDULED)[0], 3] += 1
    text = str(first_difference(log, replace(log, events=events)))
    assert text.startswith("step 1, events\n  expected: scheduled r0:")
    assert "host->slot a" in text


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, async_scheduling=not s.async_scheduling),
        lambda s: replace(s, reserve_full_sequence=not s.reserve_full_sequence),
        lambda s: replace(s, max_num_seqs=s.max_num_seqs + 1),
        lambda s: replace(s, token_budget=s.token_budget + 1),
        lambda s: replace(s, blocks=s.blocks + 1),
        lambda s: replace(s, max_loras=s.max_loras + 1, max_cpu_loras=max(s.max_cpu_loras, s.max_loras + 1)),
        lambda s: replace(s, max_cpu_loras=s.max_cpu_loras + 1),
        lambda s: replace(s, walk=s.walk[::-1]),
        lambda s: replace(s, preloaded=not s.preloaded),
    ],
    ids=["async", "reserve", "max_num_seqs", "budget", "blocks", "max_loras", "max_cpu_loras", "walk", "preloaded"],
)
def test_workloads_feel_each_rule_and_limit(change: Callable[[Scenario], Scenario]) -> None:
    """Were a rule or a limit off by one in either engine, the drawn workloads would show it."""
    seeds = range(60)
    differing: list[int] = []

    def note(scenario: Scenario, difference: Difference) -> None:
        differing.append(scenario.seed)

    result = compare(seeds, twin_log, lambda scenario: twin_log(change(scenario)), note)
    assert result["differences"] == len(differing) >= 3
    assert compare(seeds, twin_log, twin_log, note)["differences"] == 0


def test_drawn_workloads_reach_the_rare_rules() -> None:
    totals: dict[str, int] = {}
    for seed in range(120):
        for name, count in rare_events(twin_log(draw_scenario(seed))).items():
            totals[name] = totals.get(name, 0) + count
    assert min(totals.values()) >= 3, totals
    assert totals["preemptions"] > 100 and totals["skips"] > 1000 and totals["evictions"] > 500


@pytest.mark.skipif(HAS_VLLM, reason="vLLM is installed here")
def test_without_vllm_the_benchmark_says_how_to_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scheduler_diff", "workloads=1"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "scripts/install-vllm-cpu" in done.stderr
    assert "Traceback" not in done.stderr


# With vLLM.


@pytest.fixture(scope="module")
def vllm() -> ModuleType:
    if not HAS_VLLM:
        pytest.skip("vLLM is not installed: scripts/install-vllm-cpu makes an environment with it")
    with warnings.catch_warnings():  # its imports warn, and warnings are errors here
        warnings.simplefilter("ignore")
        import profiling.vllm.scheduler as module
    return module


@pytest.mark.filterwarnings("default")
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=SEEDS)
def test_twin_schedules_as_vllm_does(vllm: ModuleType, seed: int) -> None:
    scenario = draw_scenario(seed)
    options = vllm.VllmOptions(runner_v2=bool(seed % 2))
    difference = first_difference(vllm.vllm_log(scenario, options), twin_log(scenario))
    assert difference is None, f"{scenario.describe()}\n{difference}"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_twin_serves_as_vllm_does_at_the_size_of_a_server(vllm: ModuleType, asynchronous: bool) -> None:
    scenario = replace(serving_scenario(3), async_scheduling=asynchronous, max_loras=6, max_cpu_loras=20)
    log = vllm.vllm_log(scenario)
    difference = first_difference(log, twin_log(scenario))
    assert difference is None, f"{scenario.describe()}\n{difference}"
    assert log.count(SKIPPED) and log.count(EVICTED)


@pytest.mark.filterwarnings("default")
def test_options_that_the_twin_leaves_out_change_vllms_schedule(vllm: ModuleType) -> None:
    """The switches of the driver reach vLLM: each changes something, but for EOS in a sync engine, which cannot."""
    scenarios = [draw_scenario(seed) for seed in range(40)]
    logs = {s.seed: vllm.vllm_log(s) for s in scenarios}
    for options in (
        {"prefix_caching": True}, {"stop_by_eos": True}, {"set_order": True}, {"watermark": 0.1},
        {"long_prefill_token_threshold": 3},
    ):  # fmt: skip
        changed = [
            s for s in scenarios if first_difference(logs[s.seed], vllm.vllm_log(s, vllm.VllmOptions(**options)))
        ]
        assert changed, options
        if "stop_by_eos" in options:
            assert all(s.async_scheduling for s in changed)
