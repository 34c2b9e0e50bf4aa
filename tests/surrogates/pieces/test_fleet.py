"""The planning model of several types of GPU says of every column what that of its type says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surrogates.pieces.exact import Level
from surrogates.pieces.fleet import FleetColumns, FleetModel, levels_of, with_levels
from surrogates.pieces.model import PiecesModel, physics_planning
from twin.errors import InputError
from twin.figures.health import Stable
from twin.server.calibration import Calibration, load_calibration
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths
from twin.workload.workload import Workload

FAST = load_calibration("llama-3.1-8b-h100-64gb")
ADAPTERS = tuple(Adapter(f"a{i}", 8, 0.1 + 0.02 * i, Lengths(200, 1.0), Lengths(150, 1.0)) for i in range(30))
SETTINGS = (EngineSetting("h100-64gb", 16, 8), EngineSetting("half", 16, 8), EngineSetting("half", 32, 8))


def half() -> Calibration:
    """A GPU whose steps take twice as long."""
    step = replace(FAST.step, base=2 * FAST.step.base, seq=2 * FAST.step.seq, prompt=2 * FAST.step.prompt)
    stamp = replace(FAST.stamp, gpu_type="half")
    return replace(FAST, name="half", stamp=stamp, gpu=replace(FAST.gpu, name="half"), step=step)


@pytest.fixture(scope="module")
def models() -> dict[str, PiecesModel]:
    workload = Workload(ADAPTERS, name="w")
    return {c.gpu.name: physics_planning(c, workload, Stable(), rays=12) for c in (FAST, half())}


def test_pieces_read_the_features_of_their_own_type(models: dict[str, PiecesModel]) -> None:
    fleet = FleetModel(models)
    wide = fleet.features(ADAPTERS[:10]).sum(axis=0)[None]
    for setting in SETTINGS:
        own = models[setting.gpu_type]
        phi = own.features(ADAPTERS[:10]).sum(axis=0)[None]
        for of_all, of_one in (
            (fleet.option(setting), own.option(setting)),
            (fleet.below(setting), own.below(setting)),
        ):
            assert of_all.violation(wide) == pytest.approx(of_one.violation(phi))
            assert of_all.requests_in_system(wide) == pytest.approx(of_one.requests_in_system(phi))
            assert of_all.requests_decoding(wide) == pytest.approx(of_one.requests_decoding(phi))
    assert fleet.bound_level == models["half"].bound_level
    with pytest.raises(InputError, match="no calibration for GPU type"):
        fleet.option(EngineSetting("other", 16, 8))


def test_columns_of_types_in_any_order_are_those_of_each(models: dict[str, PiecesModel]) -> None:
    fleet = FleetModel(models).columns(ADAPTERS, SETTINGS)
    assert isinstance(fleet, FleetColumns)
    groups, options = [[0, 1, 2], [3, 4], [5, 6, 7, 8], [9]], [1, 0, 2, 0]
    found = fleet.of(groups, options)
    assert found.setting == tuple(SETTINGS[o] for o in options)
    for k, (group, o) in enumerate(zip(groups, options, strict=True)):
        judge = models[SETTINGS[o].gpu_type].columns(ADAPTERS, SETTINGS)
        assert judge is not None
        assert found.requests_in_system[k] == pytest.approx(judge.of([group], [o]).requests_in_system[0])
        leave, enter = np.array([group[0]]), np.array([20])
        changed = fleet.exchanged(group, o, leave, enter)
        assert changed.pace_s == pytest.approx(judge.of([[*group[1:], 20]], [o]).pace_s, rel=1e-3)
    assert found.pace_s[0] > fleet.of([groups[0]], [0]).pace_s[0]


def test_a_level_belongs_to_its_type(models: dict[str, PiecesModel]) -> None:
    fleet = FleetModel(models).columns(ADAPTERS, SETTINGS)
    assert fleet is not None and set(levels_of(fleet)) == {"h100-64gb", "half"}
    other = with_levels(fleet, {**levels_of(fleet), "half": Level(1.1, 1.0)})
    groups, options = [[0, 1], [0, 1]], [0, 1]
    before, after = (judge.of(groups, options).requests_in_system for judge in (fleet, other))
    assert after / before == pytest.approx([1.0, 1.1])
    assert levels_of(other)["half"] == Level(1.1, 1.0)
