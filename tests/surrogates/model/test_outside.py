"""A workload that no training mix resembles is refused by the quantity that is outside, not extrapolated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from surrogates.model.neural_planning import NeuralPlanningModel, load_planning_model
from surrogates.model.trained_range import QUANTITIES
from surrogates.training.assemble import RATIOS
from twin.errors import InputError
from twin.server.calibration import load_calibration
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths

USUAL = Adapter("usual", 8, 1.0, Lengths(223, 1.1), Lengths(197, 1.06))


@pytest.fixture(scope="module", params=["stable", "published"])
def model(request: pytest.FixtureRequest) -> NeuralPlanningModel:
    return load_planning_model(load_calibration("llama-3.1-8b-h100-64gb"), constraint=request.param)


def test_every_trained_ratio_has_words() -> None:
    assert set(QUANTITIES) == {numerator for numerator, _, _ in RATIOS}


def test_a_usual_workload_is_inside(model: NeuralPlanningModel) -> None:
    assert model.outside([USUAL]) == []
    assert model.outside([USUAL, replace(USUAL, adapter_id="calm", arrival_cv=4.9)]) == []


@pytest.mark.parametrize(
    ("change", "problems", "changes", "mended"),
    [
        (
            {"prompt_tokens": Lengths(90_000, 1.1)},
            ["the mean prompt, in tokens, is", "the mean prompt per output token"],
            ["prompt_tokens of 1 adapter to at most 2100", "at most 2030"],
            {"prompt_tokens": Lengths(2030, 1.1)},
        ),
        (
            {"output_tokens": Lengths(12_000, 1.06)},
            ["the mean output, in tokens, is", "the mean output that a token belongs to"],
            ["output_tokens of 1 adapter to at most 2500", "output_tokens x (1 + output_cv^2) of 1 adapter"],
            {"output_tokens": Lengths(1940, 1.06)},
        ),
        (
            {"output_tokens": Lengths(300, 8.0)},
            ["the mean output that a token belongs to"],
            ["output_tokens x (1 + output_cv^2) of 1 adapter to at most 4130"],
            {"output_tokens": Lengths(300, 3.5)},
        ),
        (
            {"length_correlation": 1.0, "prompt_tokens": Lengths(2000, 2.0)},
            ["the mean prompt per output token"],
            ["prompt_tokens x (1 + length_correlation x prompt_cv x output_cv) of 1 adapter to at most 2030"],
            {"length_correlation": 0.0, "prompt_tokens": Lengths(2000, 2.0)},
        ),
        ({"arrival_cv": 12.0}, ["arrival_cv"], ["arrival_cv of 1 adapter to at most 4.97"], {"arrival_cv": 4.97}),
        ({"prompt_tokens": Lengths(2, 0.5)}, ["the mean prompt, in tokens, is 2 over"], [""], {}),
        ({"output_tokens": Lengths(1, 0)}, ["the mean output, in tokens, is 1 over"], [""], {}),
    ],
    ids=["prompt", "output", "output spread", "correlation", "bursts", "short prompt", "short output"],
)
def test_what_is_outside_is_named_and_its_change_brings_it_inside(
    model: NeuralPlanningModel, change: dict[str, Any], problems: list[str], changes: list[str], mended: dict[str, Any]
) -> None:
    odd = replace(USUAL, adapter_id="odd", **change)
    found = model.outside([odd])
    assert len(found) == len(problems) and len(found) == len(changes)
    for outside, problem, mend in zip(found, problems, changes, strict=True):
        assert problem in outside.problem and "'odd'" in outside.problem
        assert mend in outside.change if mend else not outside.change
    assert model.outside([replace(odd, **mended) if mended else USUAL]) == []


def test_the_adapter_that_takes_a_mix_outside_is_named(model: NeuralPlanningModel) -> None:
    bursty = replace(USUAL, adapter_id="bursty", arrival_cv=14.0)
    (found,) = model.outside([USUAL, bursty, replace(USUAL, adapter_id="other")])
    assert "adapter 'bursty' has 14" in found.problem
    assert "of 1 adapter" in found.change
    assert model.outside([replace(USUAL, rate_req_per_s=20.0), bursty]) == [], "few bursts among many calm requests"


def test_a_setting_outside_is_named_by_its_flag(model: NeuralPlanningModel) -> None:
    with pytest.raises(InputError, match=r"max_lora_rank 128 is outside 8\.\.64") as error:
        model.option(EngineSetting("h100-64gb", 8, 128))
    assert error.value.where == "engine.max_lora_rank"
    assert "surrogate=analytic" in error.value.remedy
