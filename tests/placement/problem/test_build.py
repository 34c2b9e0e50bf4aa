"""From a workload to a problem: masks, stock, prices, totals; and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.problem.build import UNLIMITED, build_problem
from placement.problem.objectives import GpuCount
from placement.problem.problem import violations
from placement.solvers.milp import MilpSolver
from surrogates.model.analytic import AnalyticSurrogate
from twin.errors import InputError
from twin.server.calibration import Calibration, load_calibration
from twin.server.hardware import GpuType
from twin.server.settings import EngineSetting, setting_grid
from twin.workload.adapter import Adapter, Lengths
from twin.workload.workload import Workload

TERMS = (GpuCount(),)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return load_calibration("llama-3.1-8b-h100-64gb")


@pytest.fixture(scope="module")
def model(calibration: Calibration) -> AnalyticSurrogate:
    return AnalyticSurrogate({"big": calibration, "small": calibration})


def workload(n: int = 12, rank: int = 8, rate: float = 0.2, **extra: object) -> Workload:
    lengths = Lengths(200, 1.1), Lengths(150, 1.06)
    return Workload(tuple(Adapter(f"a{i}", rank, rate, *lengths, **extra) for i in range(n)))  # type: ignore[arg-type]


BIG, SMALL = GpuType("big", 64 << 30), GpuType("small", 64 << 30, price_per_hour=0.5, count=3)
SETTINGS = setting_grid(["big", "small"], (8, 32), (8, 16))


def test_masks_stock_prices_and_totals(model: AnalyticSurrogate) -> None:
    mixed = Workload(
        (*workload(6).adapters, *(replace(a, adapter_id=f"b{a.adapter_id}", rank=16) for a in workload(6).adapters))
    )
    p = build_problem(mixed, model, SETTINGS, (BIG, SMALL), TERMS, max_gpus=4)
    assert p.gpu_types == ("big", "small")
    assert p.stock.tolist() == [UNLIMITED, 3]
    assert p.context.price == {"big": 1.0, "small": 0.5}
    assert p.context.total_rate_req_per_s == pytest.approx(12 * 0.2)
    assert p.context.total_output_tokens_per_s == pytest.approx(12 * 0.2 * 150)
    fits = np.array([s.max_lora_rank >= 16 for s in SETTINGS])
    assert p.allowed[:6].all()
    assert (p.allowed[6:] == fits).all()
    assert p.option_type.tolist() == [0] * 4 + [1] * 4


def test_a_promise_that_a_setting_cannot_keep_is_a_mask_of_every_replica(model: AnalyticSurrogate) -> None:
    hot = workload(2, rate=60.0)
    keeps = np.ones((2, len(SETTINGS)), bool)
    keeps[0, ::2] = False
    p = build_problem(hot, model, SETTINGS, (BIG, SMALL), TERMS, keepable=keeps)
    assert len(p.items) > 2
    assert (p.allowed == keeps[p.item_adapter]).all()


def test_a_pin_to_a_gpu_type_is_a_mask(model: AnalyticSurrogate) -> None:
    p = build_problem(workload(3, pinned_gpu="small"), model, SETTINGS, (BIG, SMALL), TERMS)
    assert (p.allowed == (p.option_type == 1)).all()
    assert (p.pin_of == -1).all()


def test_built_problems_are_solved_within_the_rules(model: AnalyticSurrogate) -> None:
    p = build_problem(workload(60, rate=0.4), model, SETTINGS, (BIG, SMALL), TERMS)
    report = MilpSolver().solve(p, time_limit_s=20.0)
    assert report.placement is not None
    assert violations(p, report.placement) == []
    assert report.bound is not None and 0 < report.bound <= report.objective


def test_unusable_input_is_refused(model: AnalyticSurrogate) -> None:
    with pytest.raises(InputError, match="no engine setting"):
        build_problem(workload(), model, (), (BIG,), TERMS)
    with pytest.raises(InputError, match="GPU type 'small'"):
        build_problem(workload(), model, SETTINGS, (BIG,), TERMS)
    with pytest.raises(InputError, match="max_gpus 0"):
        build_problem(workload(), model, SETTINGS, (BIG, SMALL), TERMS, max_gpus=0)
    with pytest.raises(InputError, match="no calibration for GPU type 'other'"):
        build_problem(workload(), model, (EngineSetting("other", 8, 8),), (GpuType("other", 1 << 30),), TERMS)
