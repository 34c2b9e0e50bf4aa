"""Hot adapters become the fewest replicas, base-model traffic small shares, and the impossible is explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from placement.problem.replicas import Alone, Items, split_hot
from surrogates.model.planning import OptionModel
from tests.placement import synthetic
from tests.placement.synthetic import adapter, option
from twin.errors import InfeasibleError
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter

#: 20 / (1 + 32 * 8 / 4000) = 18.8 req/s, of which 98 % are allowed.
OPTIONS = (option(32, 8), option(32, 32))
ROOM = 0.98 * 20 / (1 + 32 * 8 / 4000)


class Model:
    """The synthetic planning model as a `PlanningModel`."""

    def features(self, adapters: Sequence[Adapter]) -> np.ndarray:
        return synthetic.features(adapters)

    def option(self, setting: EngineSetting) -> OptionModel:
        raise NotImplementedError


def split(*adapters: Adapter, most: int = 64) -> Items:
    allowed = np.array([[a.rank <= o.setting.max_lora_rank for o in OPTIONS] for a in adapters])
    return split_hot(adapters, Alone(Model(), OPTIONS), allowed, most_replicas=most)


@pytest.mark.parametrize(("rate", "replicas"), [(5.0, 1), (ROOM * 0.999, 1), (ROOM * 1.001, 2), (3 * ROOM - 0.01, 3)])
def test_fewest_replicas(rate: float, replicas: int) -> None:
    items = split(adapter("hot", rate), adapter("cold", 0.1))
    assert len(items.adapters) == replicas + 1
    assert items.item_adapter.tolist() == [0] * replicas + [1]
    assert sum(a.rate_req_per_s for a in items.adapters[:replicas]) == pytest.approx(rate)
    np.testing.assert_allclose(np.bincount(items.item_adapter, items.item_share), 1.0)
    np.testing.assert_allclose(items.phi, synthetic.features(items.adapters))


def test_base_model_traffic_fills_at_most_a_quarter_of_a_gpu() -> None:
    crowd = [adapter(f"a{i}", 2.0) for i in range(100)]
    items = split(adapter("base", 30.0, 0), *crowd)
    shares = [a for a in items.adapters if a.rank == 0]
    assert len(shares) == int(np.ceil(30.0 / (ROOM / 4)))


def test_base_model_traffic_does_not_force_gpus_that_nobody_needs() -> None:
    items = split(adapter("base", 10.0, 0), adapter("a", 1.0))
    assert len(items.adapters) == 2


def test_the_split_limit_is_named_with_the_rate_that_would_do() -> None:
    with pytest.raises(InfeasibleError, match="'hot' at 100 req/s is too much for 4 GPUs") as error:
        split(adapter("hot", 100.0), most=4)
    match = re.search(r"lower its rate to (\d+\.?\d*) req/s", error.value.remedy)
    assert match, error.value.remedy
    assert 0.97 * 4 * ROOM < float(match[1]) < 4 * ROOM
    assert len(split(adapter("hot", float(match[1])), most=4).adapters) == 4


def test_what_no_rate_can_mend_is_not_called_a_rate() -> None:
    closed = replace(OPTIONS[0], feasible=OPTIONS[0].feasible.shifted(2.0))
    with pytest.raises(InfeasibleError, match="'hot' of rank 8 cannot be served at any rate") as error:
        split_hot((adapter("hot", 5.0),), Alone(Model(), (closed,)), np.array([[True]]))
    assert "engine.max_loras" in error.value.remedy


def test_a_rank_without_a_setting_is_named() -> None:
    with pytest.raises(InfeasibleError, match=r"'wide' of rank 64 .* largest max_lora_rank is 32") as error:
        split(adapter("wide", 1.0, 64))
    assert "max_lora_rank >= 64" in error.value.remedy


def test_an_adapter_pinned_to_one_gpu_is_not_split() -> None:
    with pytest.raises(InfeasibleError, match="pinned to 'gpu-7'") as error:
        split(replace(adapter("hot", 30.0), pinned_gpu="gpu-7"))
    assert "2 replicas" in error.value.remedy and "at 15 req/s at most" in error.value.remedy


@pytest.mark.parametrize("rank", [0, 8])
def test_an_adapter_pinned_to_a_gpu_type_is_split_as_without_the_pin(rank: int) -> None:
    hot = adapter("hot", 50.0, rank)
    pinned = replace(hot, pinned_gpu="gpu")
    free, tied = (
        split_hot((a,), Alone(Model(), OPTIONS), np.array([[True, True]]), gpu_types=("gpu",)) for a in (hot, pinned)
    )
    assert len(tied.adapters) == len(free.adapters) > 1
    assert {a.pinned_gpu for a in tied.adapters} == {"gpu"}
