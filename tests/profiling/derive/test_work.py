"""Kernel times: never below the roofline, and those of the data sheet near the measured ones."""

from __future__ import annotations

import numpy as np
import pytest

from profiling.derive.device import Device
from profiling.derive.kernels import GRID, fit_terms, grid_ms
from profiling.derive.operators import SheetKernels, installed, measured_kernels, measured_systems, systems
from profiling.derive.work import Step, step_ms
from tests.profiling.derive.test_architecture import sizes_of
from twin.config.folder import conf_dir
from twin.errors import InputError

H100 = Device("h100-sxm", 79.1, 3350, 989, 64, 450, "h100_sxm")
needs_package = pytest.mark.skipif(not installed(), reason="the extra 'hardware' is not installed")


@pytest.mark.parametrize("name", ["qwen3-0.6b", "llama-3.1-8b", "opt-1.3b"])
def test_no_step_beats_the_peaks(name: str) -> None:
    model = sizes_of(name)
    weights = model.dtype_bytes * (model.layers * model.layer_weights + model.vocab * model.hidden)
    for step in GRID:
        moved = weights + step.decodes * step.context * model.kv_bytes_per_token
        flops = 2.0 * step.tokens * model.layers * model.layer_weights
        least = 1000 * max(moved / H100.bytes_per_s, flops / H100.flops_per_s)
        assert step_ms(model, step, H100) >= least


def test_more_work_takes_longer_and_more_gpus_share_it() -> None:
    model = sizes_of("llama-3.1-70b")
    small, large = Step(32, 0, 500), Step(64, 512, 500)
    assert step_ms(model, small, H100) < step_ms(model, large, H100)
    one, four = (step_ms(model, large, H100, t) for t in (1, 4))
    assert one / 4 < four < one / 2


def test_the_law_describes_the_kernels_of_its_grid() -> None:
    terms, error = fit_terms(grid_ms(SheetKernels(sizes_of("llama-3.1-8b"), H100)))
    assert error < 4
    assert min(terms.values()) >= 0 and terms["base"] > 0 and terms["kv"] > 0


@needs_package
@pytest.mark.parametrize("system", ["h100_sxm", "h200_sxm", "a100_sxm", "l40s"])
def test_the_data_sheet_is_near_the_measured_operator_times(system: str) -> None:
    model, device = sizes_of("llama-3.1-8b"), systems()[system]
    measured = grid_ms(measured_kernels(model, device))
    sheet = grid_ms(SheetKernels(model, device))
    assert np.abs(sheet / measured - 1).mean() < 0.2


@needs_package
def test_a_gpu_with_less_bandwidth_is_slower_by_what_it_moves() -> None:
    model = sizes_of("llama-3.1-8b")
    fast = measured_kernels(model, H100)
    slow = measured_kernels(model, Device("h100-64gb", 63.43, 1631, 989, 64, 450, "h100_sxm"))
    assert fast.same_memory and not slow.same_memory
    step = Step(16, 0, 500)
    # 15 GB of weights: 4.5 ms at 3.35 TB/s, 9.2 ms at 1.63 TB/s.
    assert 4 < slow.step_ms(step) - fast.step_ms(step) < 8


@needs_package
def test_unknown_systems_name_their_neighbours() -> None:
    with pytest.raises(InputError, match="did you mean 'h100_sxm'"):
        measured_kernels(sizes_of("llama-3.1-8b"), Device("x", 80, 3350, 989, 64, 450, "h100_smx"))
    with pytest.raises(InputError, match="data sheet but no operator times"):
        measured_kernels(sizes_of("llama-3.1-8b"), Device("x", 22, 300, 121, 32, 32, "l4"))


@needs_package
def test_every_system_of_the_package_is_an_option() -> None:
    options = {p.stem.replace("-", "_") for p in (conf_dir() / "hardware").glob("*.yaml")}
    for system in systems():
        assert system.removesuffix("_server") in options, system
    assert set(measured_systems()) <= set(systems())
