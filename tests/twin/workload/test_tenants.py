"""Tenants of one adapter: the strictest promise holds, also against the constraint's default."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import pytest

from twin.sources.adapter_file import read_adapters
from twin.workload.adapter import Adapter, Lengths, Slo
from twin.workload.workload import merge_tenants


def tenant(slo_s: float | None) -> Adapter:
    return Adapter("shared", 8, 0.5, Lengths(200, 1), Lengths(100, 1), slo=None if slo_s is None else Slo(slo_s))


@pytest.mark.parametrize("slos", [(None,), (None, None), (30.0,), (30.0, 2.0), (None, 30.0), (None, 30.0, 2.0)])
@pytest.mark.parametrize("default_s", [1.0, 5.0, 60.0])
def test_the_strictest_promise_holds_whatever_the_default(slos: tuple[float | None, ...], default_s: float) -> None:
    expected = min(default_s if s is None else s for s in slos)
    for order in permutations(slos):
        (merged,) = merge_tenants([tenant(s) for s in order])
        assert merged.ttft_slo_s(default_s) == expected
        assert merged.scaled(0.5).ttft_slo_s(default_s) == expected, "a share of it is promised the same"


def test_merging_in_two_steps_is_merging_at_once() -> None:
    (once,) = merge_tenants([tenant(None), tenant(30.0), tenant(2.0)])
    first = merge_tenants([tenant(None), tenant(30.0)])
    (twice,) = merge_tenants([*first, tenant(2.0)])
    assert once.slo == twice.slo == Slo(2.0, default_binds=True)


def test_tenants_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    head = "adapter_id,tenant,rank,rate_req_per_s,prompt_tokens,output_tokens,slo_ttft_p99_s"
    path.write_text(f"{head}\na,x,8,1,200,100,\na,y,8,1,200,100,30\nb,x,8,1,200,100,30\nb,y,8,1,200,100,40\n")
    workload = read_adapters(path)
    assert [a.ttft_slo_s(5.0) for a in workload.adapters] == [5.0, 30.0]
    assert math.isclose(workload.adapters[0].ttft_slo_s(60.0), 30.0)
