"""Boundaries are found to 1.5 %, shards resume to the same bytes, and a folder is not mixed with other options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surrogates.model.features import AdapterArrays
from surrogates.training.boundary import trace_ray
from surrogates.training.dataset import DatasetSpec, make_dataset, shard_path
from surrogates.training.records import Records, join_records, read_records
from surrogates.training.sampling import sample
from tests.surrogates.conftest import fake_simulate, use_of_gpu
from twin.errors import InputError
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting

Settings = tuple[EngineSetting, ...]
SPEC = DatasetSpec(rays=6, columns=4, shard_size=2, pooled_seeds=2, interior=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_boundary_is_found_for_both_rules_from_one_set_of_simulations(settings: Settings) -> None:
    calls = 0
    for index in range(4):
        drawn = sample(3, index, settings)
        setting = settings[drawn.setting_index]

        def simulate(adapters: AdapterArrays, seed: int, setting: EngineSetting = setting) -> Any:
            nonlocal calls
            calls += 1
            return fake_simulate(Column(adapters.to_adapters(), setting), seed)

        trace = trace_ray(drawn.adapters, simulate)
        for rule, limit in (("stable", 0.9), ("published", 1.0)):
            adapters = drawn.adapters.scaled(trace.theta[rule]).to_adapters()  # type: ignore[index]
            use = use_of_gpu(Column(adapters, setting))
            assert limit * 0.985 < use < limit * 1.015
        assert len(trace.columns) == len({(theta, seed) for theta, seed, _ in trace.columns})
    assert calls < 4 * 30


def test_noise_near_the_boundary_is_pooled_over_seeds(settings: Settings) -> None:
    drawn = sample(3, 0, settings)
    setting = settings[drawn.setting_index]

    def noisy(adapters: AdapterArrays, seed: int) -> Any:
        # Seed 0 sees a GPU 8 % larger than the other seeds do.
        factor = 1.0 if seed else 1 / 1.08
        return fake_simulate(Column(adapters.scaled(factor).to_adapters(), setting), seed)

    lone, pooled = (trace_ray(drawn.adapters, noisy, pooled_seeds=n).theta["stable"] for n in (1, 3))
    assert lone / pooled == pytest.approx(1.08, rel=0.02)


def test_a_mix_that_never_starves_has_no_boundary(settings: Settings) -> None:
    idle = fake_simulate(Column(sample(0, 0, settings).adapters.scaled(1e-9).to_adapters(), settings[0]), 0)
    trace = trace_ray(sample(0, 0, settings).adapters, lambda adapters, seed: idle)
    assert np.isnan(list(trace.theta.values())).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupted_data_set_resumes_to_the_same_bytes(
    tmp_path: Path, calibration: Calibration, settings: Settings, threads: int
) -> None:
    make_dataset(tmp_path / "whole", SPEC, settings, calibration, fake_simulate, threads=2)

    def interrupted_after(limit: int) -> Callable[[Column, int], Any]:
        calls = 0

        def simulate(column: Column, seed: int) -> Any:
            nonlocal calls
            calls += 1
            if calls > limit:
                raise KeyboardInterrupt
            return fake_simulate(column, seed)

        return simulate

    for limit in (5, 90):
        with pytest.raises(KeyboardInterrupt):
            make_dataset(tmp_path / "cut", SPEC, settings, calibration, interrupted_after(limit), threads=threads)
    kept = sum(shard_path(tmp_path / "cut", k).is_file() for k in range(SPEC.shards))
    assert 0 < kept < SPEC.shards
    with pytest.raises(InputError, match="of 5 shards are finished"):
        read_records(tmp_path / "cut")
    made = make_dataset(tmp_path / "cut", SPEC, settings, calibration, fake_simulate, threads=threads)
    assert made == SPEC.shards - kept
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_folder_is_not_continued_with_other_options(
    tmp_path: Path, calibration: Calibration, settings: Settings
) -> None:
    make_dataset(tmp_path, SPEC, settings, calibration, fake_simulate)
    with pytest.raises(InputError, match="another spec"):
        make_dataset(tmp_path, replace(SPEC, seed=1), settings, calibration, fake_simulate)
    other = replace(calibration, step=replace(calibration.step, base=99.0))
    with pytest.raises(InputError, match="another calibration_sha256"):
        make_dataset(tmp_path, SPEC, settings, other, fake_simulate)


def test_records_hold_what_was_simulated(records: Records) -> None:
    assert len(records.mixes) == 70
    assert np.isfinite(records.theta["stable"][:60]).all()
    assert np.isnan(records.theta["stable"][60:]).all()
    column = int(np.flatnonzero(records.ray == 5)[0])
    adapters = records.mixes[5].scaled(float(records.factor[column])).to_adapters()
    again = fake_simulate(Column(adapters, records.settings[records.setting[5]]), 0)
    assert records.metrics["itl_mean_ms"][column] == pytest.approx(again.row["itl_mean_ms"])


def test_data_sets_of_several_seeds_join(tmp_path: Path, calibration: Calibration, settings: Settings) -> None:
    for seed in (0, 1):
        make_dataset(tmp_path / str(seed), replace(SPEC, seed=seed), settings, calibration, fake_simulate)
    parts = [read_records(tmp_path / str(seed)) for seed in (0, 1)]
    joined = join_records(parts)
    assert len(joined.mixes) == 20
    assert joined.spec["rays"] == 12
    column = len(parts[0].ray) + 3
    ray, factor = int(joined.ray[column]), float(joined.factor[column])
    np.testing.assert_array_equal(joined.features(ray, factor), parts[1].features(int(parts[1].ray[3]), factor))
    with pytest.raises(InputError, match="same seed"):
        join_records([parts[0], parts[0]])


def test_missing_data_set_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="python -m surrogates dataset"):
        read_records(tmp_path)
