"""What no GPU could serve is refused by its own cause, with a change that helps."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from placement.problem.admission import admit
from surrogates.model.analytic import AnalyticSurrogate
from surrogates.model.planning import PlanningModel
from surrogates.pieces.model import load_planning_model
from twin.errors import InputError
from twin.figures.health import Stable
from twin.server.calibration import load_calibration
from twin.server.settings import EngineSetting, setting_grid
from twin.workload.adapter import Adapter, Lengths
from twin.workload.workload import Workload

LLAMA = load_calibration("llama-3.1-8b-h100-64gb")
GPU = LLAMA.stamp.gpu_type
TYPES = {GPU: LLAMA}
ANALYTIC = AnalyticSurrogate({GPU: LLAMA})
GRID = setting_grid([GPU], (8, 16), (8, 64))


def one(rank: int = 8, prompt: float = 200, output: float = 150) -> Workload:
    return Workload((Adapter("usual", 8, 0.5, Lengths(200, 1.1), Lengths(150, 1.06)),
                     Adapter("odd", rank, 0.5, Lengths(prompt, 1.1), Lengths(output, 1.06))))  # fmt: skip


def refused(
    workload: Workload, settings: Sequence[EngineSetting] = GRID, planning: PlanningModel = ANALYTIC
) -> InputError:
    with pytest.raises(InputError) as error:
        admit(workload, settings, planning, TYPES)
    return error.value


def neural(workload: Workload) -> PlanningModel:
    return load_planning_model(LLAMA, workload, Stable())


def test_what_fits_is_admitted_without_notes() -> None:
    for planning in (ANALYTIC, neural(one(rank=64))):
        assert admit(one(rank=64), GRID, planning, TYPES) == (GRID, [])


@pytest.mark.parametrize(("side", "lengths"), [("prompt", (1e6, 150)), ("output", (200, 1e6))])
def test_a_request_longer_than_the_model_is_named_whatever_the_surrogate(
    side: str, lengths: tuple[float, float]
) -> None:
    workload = one(prompt=lengths[0], output=lengths[1])
    for planning in (ANALYTIC, neural(workload)):
        error = refused(workload, GRID, planning)
        assert f"'odd': mean {side} length 1000000 is not below max_model_len 131072" in error.problem
        assert error.where == f"{side}_tokens" and error.exit_code == 2
        assert "cut the requests" in error.remedy and "raise" not in error.remedy, "the model's own limit"


def test_a_request_longer_than_the_option_only_needs_the_option() -> None:
    short = setting_grid([GPU], (8,), (8,), max_model_len=1000)
    error = refused(one(prompt=2000), short)
    assert "raise engine.max_model_len (the model takes up to 131072)" in error.remedy
    assert admit(one(prompt=2000), GRID, ANALYTIC, TYPES)[0] == GRID


def test_a_rank_above_the_settings_names_an_option_that_serves_it() -> None:
    error = refused(one(rank=200))
    assert error.problem == "adapter 'odd' has rank 200, and engine.max_lora_rank goes up to 64"
    assert "engine.max_lora_rank=[8,64,256]; or" in error.remedy, "vLLM's next rank"
    known, _ = admit(one(rank=200), setting_grid([GPU], (8, 16), (8, 64, 256)), ANALYTIC, TYPES)
    assert max(s.max_lora_rank for s in known) == 256
    assert "engine.max_lora_rank=[8,64,256]" in refused(one(rank=200), GRID, neural(one(rank=200))).remedy
    assert error.exit_code == 3


def test_slots_that_do_not_fit_are_not_what_is_advised() -> None:
    error = refused(one(rank=512), setting_grid([GPU], (96, 256), (8, 64)))
    match = re.search(r"engine\.max_lora_rank=\[8,64,512\] and engine\.max_loras=\[(\d+),96,256\]", error.remedy)
    assert match, error.remedy
    wider = setting_grid([GPU], (int(match[1]), 96, 256), (8, 64, 512))
    assert max(s.max_lora_rank for s in admit(one(rank=512), wider, ANALYTIC, TYPES)[0]) == 512
    offered = refused(one(rank=512), setting_grid([GPU], (96, 256), (8, 512)))
    assert "no setting with max_lora_rank 512 can be used" in offered.problem
    assert f"use engine.max_loras=[{match[1]},96,256]; or" in offered.remedy


def test_a_rank_that_vllm_does_not_have_is_left_out() -> None:
    assert "vLLM serves ranks up to 512" in refused(one(rank=600)).remedy


@pytest.mark.parametrize("odd", [{"prompt": 90_000}, {"output": 20_000}])
def test_no_traffic_is_unknown(odd: dict[str, float]) -> None:
    """Any length that the model takes, any burstiness: there is no trained range."""
    workload = one(**odd)  # type: ignore[arg-type]
    assert admit(workload, GRID, neural(workload), TYPES)[0] == GRID
    bursts = Workload((Adapter("a", 8, 0.5, Lengths(200, 1.1), Lengths(150, 1.06), arrival_cv=9),))
    assert admit(bursts, GRID, neural(bursts), TYPES)[0] == GRID
