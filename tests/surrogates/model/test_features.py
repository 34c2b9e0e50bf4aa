"""Features add over adapters, do not depend on their order, and treat the base model as load without a slot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from surrogates.model.features import (
    FEATURE_NAMES,
    INDEX,
    SLOT_FEATURES,
    AdapterArrays,
    adapter_features,
    features_of_arrays,
)
from twin.workload.adapter import Adapter, Lengths

lengths = st.builds(Lengths, st.floats(1, 3000), st.floats(0, 2))
adapters = st.builds(
    Adapter,
    st.just("a"),
    st.sampled_from([0, 8, 16, 64]),
    st.floats(0.002, 6),
    lengths,
    lengths,
    arrival_cv=st.floats(0.5, 5),
    cached_prompt_fraction=st.floats(0, 0.9),
    length_correlation=st.floats(-0.2, 0.5),
)


@settings(max_examples=25)
@given(st.lists(adapters, min_size=1, max_size=8), st.lists(adapters, min_size=1, max_size=8))
def test_features_of_a_union_are_the_sum_of_features(first: list[Adapter], second: list[Adapter]) -> None:
    total = adapter_features(first).sum(axis=0) + adapter_features(second).sum(axis=0)
    np.testing.assert_allclose(adapter_features(first + second).sum(axis=0), total, rtol=1e-12)


@settings(max_examples=25)
@given(st.lists(adapters, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_each_adapter_has_its_own_features_in_any_order(mix: list[Adapter], random: object) -> None:
    order = list(range(len(mix)))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(adapter_features([mix[k] for k in order]), adapter_features(mix)[order])


@settings(max_examples=25)
@given(st.lists(adapters, min_size=1, max_size=5))
def test_arrays_are_what_adapters_say(mix: list[Adapter]) -> None:
    arrays = AdapterArrays.from_adapters(mix)
    assert len(arrays) == len(mix)
    np.testing.assert_array_equal(features_of_arrays(arrays), adapter_features(mix))


def test_values_of_one_adapter() -> None:
    adapter = Adapter("a", 16, 0.5, Lengths(100, 1.0), Lengths(200, 0.5), arrival_cv=2.0, cached_prompt_fraction=0.25)
    value = dict(zip(FEATURE_NAMES, adapter_features([adapter])[0], strict=True))
    assert value["computed_prompt_rate"] == pytest.approx(37.5)
    assert value["cached_prompt_rate"] == pytest.approx(12.5)
    assert value["output_rate"] == pytest.approx(100.0)
    assert value["kv_rate"] == pytest.approx(0.5 * adapter.in_out_moment)
    assert value["output_square_rate"] == pytest.approx(0.5 * adapter.output_tokens.second_moment)
    assert value["burst_rate"] == pytest.approx(2.0)
    assert value["busy_4s"] == pytest.approx(1 - np.exp(-2.0))
    assert value["residence_30ms"] == pytest.approx(1 - np.exp(-3.0))
    assert value["count"] == value["rank_count"] == 1.0


def test_base_model_requests_load_the_gpu_but_need_no_slot() -> None:
    values = adapter_features([Adapter("base", 0, 2.0, Lengths(100, 1), Lengths(100, 1))])[0]
    assert not values[SLOT_FEATURES].any()
    assert values[INDEX["rank_rate"]] == 0
    assert values[INDEX["output_rate"]] == pytest.approx(200.0)


def test_no_adapters_have_no_features() -> None:
    assert adapter_features([]).shape == (0, len(FEATURE_NAMES))
