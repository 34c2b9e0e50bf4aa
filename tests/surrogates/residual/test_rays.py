"""Rays: boundaries are found from any start, shards resume to the same bytes, other options are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surrogates.residual.mixes import FEW_SLOTS, HARD, draw
from surrogates.residual.rays import make_rays, usable_settings
from surrogates.residual.search import FARTHEST, WIDTH, boundary
from surrogates.residual.shards import Ray, read_rays
from tests.surrogates.residual.conftest import GRID, SPEC, fake_simulate, shipped
from twin.errors import InputError
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.memory import memory_error
from twin.workload.adapter import Adapter, Lengths


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def window(healthy: bool) -> Any:
    """A window with or without a growing queue."""
    row = {"queue": 0.0 if healthy else 1.0}
    adapters = (Adapter("a", 8, 1.0, Lengths(100, 1.0), Lengths(100, 1.0)),)
    fields = {"row": row, "counts": np.array([100]), "late_counts": np.array([0]), "adapters": adapters}
    return type("Window", (), fields | {"adapter_sums": np.zeros((3, 6, 1))})()


@pytest.mark.parametrize("start", [0.05, 0.97, 1.0, 1.3, 40.0])
def test_the_boundary_is_found_from_any_start(start: float) -> None:
    asked: list[float] = []

    def simulate(factor: float) -> list[Any]:
        asked.append(factor)
        return [window(factor < 1.234)]

    assert boundary(start, simulate) == pytest.approx(1.234, rel=WIDTH)
    assert len(asked) < 18


def test_a_ray_that_is_always_or_never_healthy_has_no_boundary() -> None:
    for healthy in (True, False):
        factors: list[float] = []

        def simulate(factor: float, healthy: bool = healthy, factors: list[float] = factors) -> list[Any]:
            factors.append(factor)
            return [window(healthy)]

        # Of many starts some differ from their farthest factor by less than that, after rounding.
        assert all(math.isnan(boundary(start, simulate)) for start in np.linspace(0.9, 1.1, 20).tolist())
        assert max(abs(math.log(f)) for f in factors) <= FARTHEST + 0.11


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupted_rays_resume_to_the_same_bytes(tmp_path: Path, threads: int) -> None:
    make_rays(tmp_path / "whole", SPEC, shipped(), fake_simulate, threads=2)
    for limit in (3, 75):
        calls = 0

        def killed(column: Column, calibration: Calibration, seed: int, slo_s: float, limit: int = limit) -> Any:
            nonlocal calls
            calls += 1
            if calls > limit:
                raise KeyboardInterrupt
            return fake_simulate(column, calibration, seed, slo_s)

        with pytest.raises(KeyboardInterrupt):
            make_rays(tmp_path / "cut", SPEC, shipped(), killed, threads=threads)
    kept = len(list((tmp_path / "cut").glob("*.parquet")))
    assert 0 < kept < 5
    assert make_rays(tmp_path / "cut", SPEC, shipped(), fake_simulate, threads=threads) == 5 - kept
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_more_rays_may_be_asked_for_but_no_others(tmp_path: Path) -> None:
    make_rays(tmp_path, SPEC, shipped(), fake_simulate)
    before = contents(tmp_path)
    assert make_rays(tmp_path, replace(SPEC, rays=8), shipped(), fake_simulate) == 1
    assert {k: v for k, v in contents(tmp_path).items() if k in before and k.endswith("parquet")} == {
        k: v for k, v in before.items() if k.endswith("parquet")
    }
    with pytest.raises(InputError, match="another seed"):
        make_rays(tmp_path, replace(SPEC, seed=1), shipped(), fake_simulate)
    other = [replace(c, step=replace(c.step, base=99.0)) for c in shipped()]
    with pytest.raises(InputError, match=r"another llama-3\.1-8b"):
        make_rays(tmp_path, SPEC, other, fake_simulate)


def test_rays_hold_what_was_simulated(rays: tuple[list[Ray], dict[str, Calibration], dict[str, Any]]) -> None:
    every, calibrations, spec = rays
    assert len(every) == 60
    assert spec["rays"] == 30
    for ray in every[::7]:
        column = Column(ray.draw.mix.adapters(float(ray.loads[-1])), ray.draw.setting)
        calibration = calibrations[ray.calibration]
        again = fake_simulate(column, calibration, ray.draw.simulation_seed, ray.draw.slo_s)
        assert ray.metrics["running"][-1] == again.row["running"]
        assert (ray.loads[-3:-1] < ray.theta).all()
        assert ray.loads[-1] > ray.theta
        assert not ray.healthy[-1]


def test_draws_depend_on_their_generator_alone_and_fit_their_setting() -> None:
    settings = usable_settings(GRID, load_calibration(SPEC.calibrations[0]))
    for seed in range(40):
        one, two = (draw(np.random.default_rng(seed), settings) for _ in range(2))
        assert one.setting == two.setting
        assert one.mix.adapters() == two.mix.adapters()
        assert one.mix.rank.max() <= one.setting.max_lora_rank
        assert one.mix.arrival_cv.max() <= 10.0


def test_hard_draws_are_where_the_physics_is_weakest() -> None:
    settings = usable_settings(
        {"max_loras": [8, 64, 128, 256], "max_lora_rank": [8]}, load_calibration(SPEC.calibrations[0])
    )
    usual, hard = ([draw(np.random.default_rng(seed), settings, *how) for seed in range(200)] for how in ((), (HARD,)))
    for share, rays in ((0.25, usual), (0.59, hard)):
        assert np.mean([d.setting.max_loras <= FEW_SLOTS for d in rays]) == pytest.approx(share, abs=0.1)
    assert all(1.0 <= d.slo_s <= 20.0 for d in usual)
    assert min(d.slo_s for d in hard) < 0.5
    assert max(d.slo_s for d in hard) > 50.0
    bursty = [np.mean([d.mix.arrival_cv.max() > 2.5 for d in rays]) for rays in (usual, hard)]
    assert bursty[1] > 1.5 * bursty[0]


def test_a_share_of_the_rays_is_hard(tmp_path: Path) -> None:
    make_rays(tmp_path, replace(SPEC, hard=1.0), shipped(), fake_simulate)
    promises = [ray.draw.slo_s for ray in read_rays(tmp_path)[0]]
    assert np.mean([slo_s != 5.0 for slo_s in promises]) > 0.3


def test_only_settings_that_start_are_used() -> None:
    calibration = load_calibration(SPEC.calibrations[0])
    grid = {"max_loras": [8, 384], "max_lora_rank": [8, 64]}
    usable = usable_settings(grid, calibration)
    assert 0 < len(usable) < 4
    assert all(memory_error(s, calibration) is None for s in usable)
    with pytest.raises(InputError, match="under no setting"):
        usable_settings({"max_loras": [384], "max_lora_rank": [64]}, calibration)


def test_missing_rays_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="python -m surrogates rays"):
        read_rays(tmp_path)
