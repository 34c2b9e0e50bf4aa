"""Which GPUs share simulated hours."""

from __future__ import annotations

from dataclasses import replace

from placement.verify.alike import groups_alike
from tests.placement.synthetic import adapter
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Slo

SMALL, LARGE = EngineSetting("gpu", 8, 16), EngineSetting("gpu", 64, 16)


def column(setting: EngineSetting, **kinds: tuple[int, float]) -> Column:
    """Adapters by kind: number and rate."""
    adapters: list[Adapter] = []
    for name, (count, rate) in kinds.items():
        adapters += [adapter(f"{name}{id(setting)}-{len(adapters) + i}", rate) for i in range(count)]
    return Column(tuple(adapters), setting)


def test_names_do_not_matter_and_settings_do() -> None:
    a, b = column(SMALL, hot=(3, 1.0)), column(SMALL, warm=(3, 1.0))
    assert groups_alike([a, column(LARGE, hot=(3, 1.0)), b], Slo()) == [[0, 2], [1]]


def test_one_adapter_more_of_a_hundred_is_alike_and_leads() -> None:
    a, b = column(SMALL, cold=(100, 0.1)), column(SMALL, cold=(101, 0.1))
    assert groups_alike([a, b], Slo()) == [[1, 0]]


def test_equal_sums_of_different_adapters_are_not_alike() -> None:
    a, b = column(SMALL, hot=(1, 10.0)), column(SMALL, cold=(100, 0.1))
    assert groups_alike([a, b], Slo()) == [[0], [1]]


def test_a_hot_adapter_more_is_not_alike_however_few_adapters_differ() -> None:
    a = column(SMALL, cold=(100, 0.1))
    b = column(SMALL, cold=(100, 0.1), hot=(1, 1.0))
    assert sorted(groups_alike([a, b], Slo())) == [[0], [1]]


def test_another_promise_or_rank_is_another_adapter() -> None:
    a = column(SMALL, cold=(4, 0.1))
    b = replace(a, adapters=tuple(replace(x, rank=64) for x in a.adapters))
    assert len(groups_alike([a, b], Slo())) == 2


def test_every_gpu_is_in_one_group() -> None:
    columns = [column(SMALL, cold=(n, 0.1)) for n in range(20, 120)]
    groups = groups_alike(columns, Slo())
    assert sorted(i for g in groups for i in g) == list(range(100))
    assert 1 < len(groups) < 100


def test_no_columns_are_no_groups() -> None:
    assert groups_alike([], Slo()) == []


def test_promises_on_means_are_judged_gpu_by_gpu() -> None:
    a, b = column(SMALL, hot=(3, 1.0)), column(SMALL, warm=(3, 1.0))
    assert groups_alike([a, b], Slo(itl_mean_ms=30.0)) == [[0], [1]]
    promised = replace(a, adapters=tuple(replace(x, slo=Slo(e2e_mean_s=9.0)) for x in a.adapters))
    assert len(groups_alike([promised, promised, b, b], Slo())) == 3
