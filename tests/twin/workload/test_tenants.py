"""Tenants of one adapter: the strictest promise holds, also against the constraint's default."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from twin.errors import InputError
from twin.sources.adapter_file import read_adapters
from twin.workload.adapter import PROMISES, Adapter, Lengths, Slo
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


def promised(**limits: float) -> Adapter:
    return replace(tenant(None), slo=Slo(**({"ttft_p99_s": None} | limits)) if limits else None)  # type: ignore[arg-type]


def test_each_promise_is_merged_on_its_own() -> None:
    """One tenant promised tokens, the other a start, and both an end: only of the last no default holds."""
    (merged,) = merge_tenants([promised(itl_mean_ms=80, e2e_mean_s=20), promised(ttft_p99_s=30, e2e_mean_s=30)])
    assert merged.slo == Slo(30, ("ttft_p99_s", "itl_mean_ms"), itl_mean_ms=80, e2e_mean_s=20)
    default = Slo(5, itl_mean_ms=40, tpot_mean_ms=50, e2e_mean_s=10)
    found = {name: merged.promised(name, getattr(default, name)) for name in PROMISES}
    assert found == {"ttft_p99_s": 5, "itl_mean_ms": 40, "tpot_mean_ms": 50, "e2e_mean_s": 20}
    assert [merged.promised(name, None) for name in PROMISES] == [30, 80, math.inf, 20]


@pytest.mark.parametrize("promise", PROMISES)
def test_the_strictest_holds_for_every_promise(promise: str) -> None:
    for limits in permutations((None, 3.0, 7.0)):
        (merged,) = merge_tenants([promised() if x is None else promised(**{promise: x}) for x in limits])
        assert [merged.promised(promise, default) for default in (None, 1.0, 5.0)] == [3.0, 1.0, 3.0]
        (once,) = merge_tenants([merged, promised(**{promise: 2.0})])
        assert once.promised(promise, 1.0) == 1.0, "the first tenants' default still binds"


def test_an_adapter_without_a_promise_of_its_own_has_the_default_s() -> None:
    only_tokens = promised(itl_mean_ms=40)
    assert only_tokens.ttft_slo_s(2.0) == 2.0 and only_tokens.ttft_slo_s(None) == math.inf
    assert tenant(3.0).promised("itl_mean_ms", 25.0) == 25.0


def test_the_default_binds_where_something_is_given() -> None:
    assert Slo(2.0, True) == Slo(2.0, ("ttft_p99_s",)) == Slo(2.0, ("ttft_p99_s", "itl_mean_ms"))
    with pytest.raises(InputError, match="'speed' is not a promise"):
        Slo(2.0, ("speed",))


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_a_positive_number(promise: str) -> None:
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match=f"SLO on {PROMISES[promise]} = .* is out of range"):
            Slo(**{promise: wrong})  # type: ignore[arg-type]
