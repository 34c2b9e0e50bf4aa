"""A sample depends on seed and index alone, fits its setting, and all promised regions occur."""

from __future__ import annotations

import numpy as np

from surrogates.training.sampling import KINDS, MAX_ADAPTERS, Sample, sample
from twin.server.settings import EngineSetting, setting_grid

SETTINGS: tuple[EngineSetting, ...] = setting_grid(["gpu"])


def draw(count: int) -> list[Sample]:
    return [sample(0, k, SETTINGS) for k in range(count)]


def test_a_sample_depends_on_seed_and_index_alone() -> None:
    backwards = [sample(0, k, SETTINGS) for k in reversed(range(20))][::-1]
    for one, two in zip(draw(20), backwards, strict=True):
        assert (one.setting_index, one.kind) == (two.setting_index, two.kind)
        np.testing.assert_array_equal(one.adapters.matrix(), two.adapters.matrix())
    assert not np.array_equal(sample(1, 0, SETTINGS).adapters.matrix(), sample(0, 0, SETTINGS).adapters.matrix())


def test_samples_are_valid_columns_of_their_setting() -> None:
    for drawn in draw(150):
        adapters = drawn.adapters.to_adapters()  # validates every field
        assert 1 <= sum(a.rank > 0 for a in adapters) <= MAX_ADAPTERS
        assert max(a.rank for a in adapters) <= SETTINGS[drawn.setting_index].max_lora_rank


def test_both_sides_of_the_slots_and_all_kinds_are_covered() -> None:
    drawn = draw(400)
    crowded = np.mean([(d.adapters.rank > 0).sum() > SETTINGS[d.setting_index].max_loras for d in drawn])
    assert 0.3 < crowded < 0.6
    assert {d.kind for d in drawn} == set(KINDS)
    mixes = [d.adapters for d in drawn]
    assert 0.05 < np.mean([(m.rank == 0).any() for m in mixes]) < 0.3
    assert 0.1 < np.mean([(m.arrival_cv > 1).any() for m in mixes]) < 0.5
    assert 0.1 < np.mean([(m.cached_prompt_fraction > 0).any() for m in mixes]) < 0.4
    assert np.mean([len(set(m.rank[m.rank > 0])) > 1 for m in mixes]) > 0.2
