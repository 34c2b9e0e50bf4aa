"""An infeasible problem is explained by the constraint and the smallest change that helps."""

from __future__ import annotations

from dataclasses import replace

from placement.solvers.explain import infeasible_error, miscount
from placement.solvers.milp import MilpSolver
from tests.placement.known import tiny, too_hot
from tests.placement.synthetic import adapter, option, problem


def test_too_few_gpus_name_the_certified_minimum() -> None:
    error = infeasible_error(too_hot())
    assert error.exit_code == 3
    assert "at least 4 GPUs" in error.problem  # 60 / 18.4 = 3.26
    assert "max_gpus allows 2" in error.problem
    assert "61.4 % of the traffic" in error.problem
    assert "raise max_gpus to 4" in error.remedy
    assert MilpSolver().solve(replace(too_hot(), max_gpus=4), time_limit_s=20.0).status == "feasible"


def test_more_replicas_than_gpus() -> None:
    error = infeasible_error(replace(tiny("replicas", "gpu_count"), max_gpus=2))
    assert "'hot' at 24 req/s needs 3 replicas" in error.problem
    assert "raise max_gpus to at least 3" in error.remedy


def test_pins() -> None:
    pinned = tiny("pins", "gpu_count")
    assert "pinned to 2 different GPUs" in infeasible_error(replace(pinned, max_gpus=1)).problem
    counted = miscount(replace(pinned, max_gpus=1))
    assert counted is not None and counted.remedy.startswith("raise max_gpus to 2")
    crowd = [replace(adapter(f"a{i}", 5.0 + i), pinned_gpu="left") for i in range(5)]
    error = infeasible_error(problem(crowd, options=[option(32, 8)]))
    assert "the 5 adapters pinned to 'left' do not fit" in error.problem
    assert "'a4'" in error.remedy


def test_stock_of_a_type_is_named() -> None:
    options = (option(32, 8, "fast"), option(32, 8, "slow", speed=0.3))
    p = problem([adapter(f"a{i}", 1.0) for i in range(30)], options=options, stock={"fast": 1, "slow": 1})
    assert "1 x fast, 1 x slow" in infeasible_error(p).problem
