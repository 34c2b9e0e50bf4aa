"""The model's level follows the hours simulated of the workload at hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement.pipeline.level import at_levels, bound_at_level, levels_told
from placement.problem.objectives import GpuCount, MeanE2E, MeanItl
from placement.problem.problem import GpuAssignment, Placement, evaluate
from placement.verify.verdict import ColumnVerdict, Verification
from surrogates.pieces.exact import Level
from tests.placement.synthetic import option, problem as synthetic
from tests.surrogates.pieces.test_exact import ADAPTERS, model

TERMS = (MeanE2E(),)
GPU = model().settings[0].gpu_type


def posed():  # type: ignore[no-untyped-def]
    judge = replace(model(), items=ADAPTERS[:40])
    options = [option(a, 32, GPU) for a in (8, 32, 96, 128)]
    plain = synthetic(ADAPTERS[:40], terms=TERMS, options=options)
    return replace(plain, model=judge, below=plain.options[:4])


def simulated(factor: float, itl: float) -> tuple[Placement, Verification]:
    placement = Placement((GpuAssignment(1, tuple(range(20))), GpuAssignment(1, tuple(range(20, 40)))))
    columns = posed().columns_of([g.items for g in placement.gpus], [1, 1])
    told = [
        {
            "e2e_mean_s": factor * columns.requests_in_system[k] / columns.rate_req_per_s[k],
            "itl_mean_ms": 1000 * itl * columns.decoding[k] / columns.output_tokens_per_s[k],
        }
        for k in range(2)
    ]
    return placement, Verification(tuple(ColumnVerdict("accepted", "", (), t) for t in told))


def test_planned_becomes_what_was_simulated() -> None:
    placement, checked = simulated(1.04, 0.98)
    levels = levels_told(posed(), placement, checked)
    assert levels is not None and list(levels) == [GPU]
    level = levels[GPU]
    assert (level.in_system, level.decoding) == pytest.approx((1.04, 0.98))
    before, after = evaluate(posed(), placement)[0], evaluate(at_levels(posed(), levels), placement)[0]
    assert after == pytest.approx(1.04 * before)


def test_what_agrees_stays() -> None:
    assert levels_told(posed(), *simulated(1.003, 0.998)) is None


def test_a_bound_never_rises_above_what_its_costs_allow() -> None:
    change = Level(1.05, 0.97)
    latency, mixed = posed(), replace(posed(), terms=(GpuCount(), MeanE2E()))
    assert bound_at_level(latency, 2.0, change) == pytest.approx(2.1)
    assert bound_at_level(replace(latency, terms=(MeanItl(),)), 2.0, change) == pytest.approx(1.94)
    assert bound_at_level(mixed, 2.0, change) == pytest.approx(1.94)
    assert bound_at_level(mixed, 2.0, Level(1.05, 1.02)) == 2.0
    assert bound_at_level(mixed, None, change) is None
    assert bound_at_level(replace(latency, terms=(GpuCount(),)), 6.0, change) == 6.0
