"""The planning model itself: what it says of columns, and that an exchange is the column that it makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surrogates.model.columns import Columns
from surrogates.pieces.exact import Level, SteadyColumns
from surrogates.residual.weights import read_residual
from twin.figures.health import Constraint, Published, Stable
from twin.server.calibration import load_calibration
from twin.server.settings import EngineSetting
from twin.sources.synthetic import power_law

CALIBRATION = load_calibration("llama-3.1-8b-h100-64gb")
SETTINGS = tuple(
    EngineSetting(gpu_type=CALIBRATION.stamp.gpu_type, max_loras=slots, max_lora_rank=32, **more)
    for slots, more in ((8, {}), (64, {}), (64, {"max_model_len": 4096}), (32, {"max_cpu_loras": 40}))  # type: ignore[arg-type]
)
ADAPTERS = power_law(80, 10.0, exponent=1.1, ranks=[8, 16, 32], seed=5).adapters


def model(constraint: Constraint | None = None, **options: object) -> SteadyColumns:
    options = {"residual": read_residual()} | options
    return SteadyColumns(ADAPTERS, SETTINGS, CALIBRATION, constraint or Stable(), **options)  # type: ignore[arg-type]


def arrays(columns: Columns) -> dict[str, np.ndarray]:
    return {n: getattr(columns, n) for n in Columns.__dataclass_fields__ if n != "setting"}


@pytest.mark.parametrize("constraint", [Stable(), Published()], ids=["stable", "published"])
@pytest.mark.parametrize("residual", [True, False], ids=["neural", "physics"])
@pytest.mark.parametrize("option", range(len(SETTINGS)))
def test_an_exchange_is_the_column_that_it_makes(option: int, residual: bool, constraint: Constraint) -> None:
    judge = model(constraint, residual=read_residual() if residual else None)
    rng = np.random.default_rng(option)
    members, others = np.split(rng.permutation(len(ADAPTERS)), [36])
    leave = np.where(rng.random(30) < 0.7, rng.choice(members, 30), -1)
    enter = np.where(rng.random(30) < 0.7, rng.choice(others, 30), -1)
    groups = [
        np.append(members[members != a], [b] if b >= 0 else []).astype(int).tolist()
        for a, b in zip(leave, enter, strict=True)
    ]
    found = judge.exchanged(members.tolist(), option, leave, enter)
    expected = judge.of(groups, [option] * 30)
    assert found.setting == expected.setting
    for name, values in arrays(expected).items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-6, atol=1e-9, err_msg=name)


def test_columns_of_several_settings_come_back_in_order() -> None:
    judge = model()
    groups = [[k, k + 1, k + 2] for k in range(8)]
    options = [2, 0, 1, 2, 0, 3, 1, 2]
    together = judge.of(groups, options)
    for p, (group, option) in enumerate(zip(groups, options, strict=True)):
        alone = judge.of([group], [option])
        assert together.setting[p] is SETTINGS[option]
        for name, values in arrays(alone).items():
            np.testing.assert_allclose(getattr(together, name)[p], values[0], rtol=1e-9, atol=1e-12, err_msg=name)


def test_rates_and_tokens_are_those_of_the_members() -> None:
    group = list(range(0, 80, 3))
    found = model().of([group], [1])
    assert found.rate_req_per_s[0] == pytest.approx(sum(ADAPTERS[i].rate_req_per_s for i in group))
    tokens = sum(ADAPTERS[i].rate_req_per_s * ADAPTERS[i].output_tokens.mean for i in group)
    assert found.output_tokens_per_s[0] == pytest.approx(tokens)
    assert found.adapters[0] == len(group)
    assert found.requests_in_system[0] > found.decoding[0] > 0


def test_a_margin_is_a_share_of_the_load() -> None:
    """Twice as much margin, that much less that is promised; the model's own asks for something too."""
    group = [list(range(60))]
    none, tenth, own = (model(margin=m).of(group, [1]).violation[0] for m in (0.0, 0.1, None))
    assert tenth - none == pytest.approx(-np.log(0.9))
    assert own > none


def test_too_many_adapters_for_the_host_are_a_violation() -> None:
    """max_cpu_loras=40."""
    found = model().of([list(range(39)), list(range(44))], [3, 3]).violation
    assert found[0] < 1 <= found[1]


def test_a_level_scales_the_loads_and_nothing_else() -> None:
    judge = model()
    level = judge.with_level(Level(1.1, 0.9))
    group = [list(range(30))]
    before, after = judge.of(group, [1]), level.of(group, [1])
    assert after.requests_in_system[0] == pytest.approx(1.1 * before.requests_in_system[0])
    assert after.decoding[0] == pytest.approx(0.9 * before.decoding[0])
    assert after.violation[0] == before.violation[0]
    assert judge.level == Level()


def test_an_adapter_of_the_same_kind_counts_as_one_more() -> None:
    twins = (*ADAPTERS, replace(ADAPTERS[0], adapter_id="again"))
    judge = replace(model(), items=twins)
    found = judge.of([[0, 5, 9], [0, 80, 5, 9]], [1, 1])
    assert found.adapters.tolist() == [3.0, 4.0]
    assert found.rate_req_per_s[1] - found.rate_req_per_s[0] == pytest.approx(ADAPTERS[0].rate_req_per_s)
