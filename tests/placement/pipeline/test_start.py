"""Today's placement as a start of the search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.workloads import composed
from placement.config import Run, load_run
from placement.pipeline.clock import Clock
from placement.pipeline.job import posed
from placement.pipeline.start import better_start
from placement.problem.problem import Placement, PlacementProblem, evaluate
from placement.solvers.greedy import Greedy

SMALL = ("workload=power_law", "workload.n_adapters=40", "workload.total_rate_req_per_s=20", "surrogate=physics",
         "hardware.count=3")  # fmt: skip


def run_with(today: str, *more: str) -> tuple[Run, PlacementProblem]:
    run = load_run({**composed("default", "", [*SMALL, *more], objective="latency"), "today": today})
    return run, posed(run, Clock(60.0))[0]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Placement]:
    """A searched placement, also as a file of what runs today."""
    run = load_run(composed("default", "", SMALL, objective="latency"))
    problem = posed(run, Clock(60.0))[0]
    found = Greedy(effort=2.0).solve(problem, time_limit_s=60.0).placement
    assert found is not None
    path = tmp_path_factory.mktemp("today") / "current.csv"
    rows = [f"{problem.items[i].adapter_id},gpu{k}" for k, g in enumerate(found.gpus) for i in g.items]
    path.write_text("adapter_id,gpu_id\n" + "\n".join(rows) + "\n")
    return path, found


def test_what_runs_is_not_beaten_by_less(searched: tuple[Path, Placement]) -> None:
    path, found = searched
    run, problem = run_with(str(path))
    worse = Greedy(local_search=False, quick=True).solve(problem, time_limit_s=60.0).placement
    start = better_start(run, problem, worse)
    assert start is not None and worse is not None
    assert evaluate(problem, start)[0] <= evaluate(problem, found)[0] * (1 + 1e-9) < evaluate(problem, worse)[0]
    assert better_start(run, problem, None) == start
    assert better_start(run, problem, found) in (found, start)


def test_what_runs_against_the_rules_is_no_start(searched: tuple[Path, Placement]) -> None:
    run, problem = run_with(str(searched[0]))
    fewer = replace(problem, max_gpus=len(searched[1].gpus) - 1)
    assert better_start(run, fewer, None) is None
    assert better_start(replace(run, today=None), problem, None) is None
