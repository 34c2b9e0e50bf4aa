"""Promises on mean ITL, TPOT and E2E: figures by hand, and who is condemned by whom."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.twin.columns import LLAMA, column
from tests.twin.figures.test_metrics import MIXED, window
from twin.figures import promises
from twin.figures.adapter_sums import MEANS, AdapterSums, adapter_sums, pooled
from twin.figures.health import Published, Stable, judge
from twin.server.column import Column
from twin.simulation import simulate, simulate_many
from twin.workload.adapter import Adapter, Lengths, Slo

LENGTHS = Lengths(100, 1)


def adapters(*slos: Slo | None) -> tuple[Adapter, ...]:
    return tuple(Adapter(f"a{i}", 8, 1.0, LENGTHS, LENGTHS, slo=slo) for i, slo in enumerate(slos))


def hour(who: tuple[Adapter, ...], e2e_s: list[list[float]], ms: float = 30.0) -> Any:
    """A window in which every adapter has requests of these E2E, each of 10 tokens after the first, `ms` apart."""
    index = np.repeat(np.arange(len(who)), [len(v) for v in e2e_s]).astype(np.int32)
    n = len(index)
    sums = adapter_sums(
        index, np.array([x for v in e2e_s for x in v]), np.full(n, 10 * ms / 1000), np.full(n, 10, np.int32),
        np.ones(n, np.bool_), len(who),
    )  # fmt: skip
    counts = np.array([len(v) for v in e2e_s])
    return SimpleNamespace(adapters=who, adapter_sums=sums, counts=counts, late_counts=np.zeros_like(counts))


def test_means_of_adapters_by_hand() -> None:
    sums = AdapterSums(window(MIXED, horizon_s=100.0, slo_s=[5.0, 5.0, 5.0]).adapter_sums)
    means = dict(zip(MEANS, sums.means, strict=True))
    # Adapter 0: four gaps in 2 s and a request of one token; 1: two gaps in 2 s, one not done; 2: nothing done.
    assert means["itl_mean_ms"] == pytest.approx([500.0, 1000.0, np.nan], nan_ok=True)
    assert means["tpot_mean_ms"] == pytest.approx([500.0, 1000.0, np.nan], nan_ok=True)
    # The time so far of those that are not done: 10, then 30, 2 and 1 s.
    assert means["e2e_mean_s"] == pytest.approx([2.5, 10.0, 11.0])
    assert sums.requests.tolist() == [[1, 1, 0], [1, 1, 0], [2, 2, 3]]


def test_the_itl_weighs_tokens_and_the_tpot_requests() -> None:
    done = np.ones(2, np.bool_)
    gaps = np.array([1, 99], np.int32)
    sums = AdapterSums(adapter_sums(np.zeros(2, np.int32), np.ones(2), np.array([0.1, 0.99]), gaps, done, 1))
    assert sums.means[0, 0] == pytest.approx(1090 / 100) and sums.means[1, 0] == pytest.approx((100 + 10) / 2)
    errors = sums.errors[:, 0]
    # Of the ratio: residuals 100 - 10.9 and 990 - 99 x 10.9, over 100 tokens; of plain means: their standard errors.
    assert errors[0] == pytest.approx(np.sqrt(2 * (89.1**2 + 89.1**2)) / 100)
    assert errors[1] == pytest.approx(np.std([100, 10], ddof=1) / np.sqrt(2)) and errors[2] == 0


def test_windows_pool() -> None:
    who = adapters(None)
    parts = [hour(who, [[1.0, 3.0]]), hour(who, [[5.0]])]
    assert pooled(p.adapter_sums for p in parts).means[2, 0] == 3.0


def test_figures_of_a_simulation_are_those_of_the_whole() -> None:
    result = simulate(column(6, (0.1, 0.4), 4), LLAMA, horizon_s=600.0)
    sums = result.adapter_sums.sum(axis=2)
    for figure, name in enumerate(MEANS):
        assert sums[figure, 2] / sums[figure, 1] == pytest.approx(result.row[name], rel=1e-12)
        assert getattr(result, f"adapter_{name}").shape == (6,)


# --- whose promise ------------------------------------------------------------------------------------------------


def test_no_promise_no_requirement() -> None:
    results = [hour(adapters(None, Slo(2.0)), [[1e6], [1e6]])]
    assert promises.uses(results, Slo()) == [] and promises.broken(results, Slo()) == ""


def test_own_promises_take_the_place_of_the_default() -> None:
    who = adapters(None, Slo(None, itl_mean_ms=80.0), Slo(None, itl_mean_ms=80.0, default_binds=True))
    assert promises.limits(who, Slo(itl_mean_ms=40.0))[0].tolist() == [40.0, 80.0, 40.0]
    assert promises.limits(who, Slo())[0].tolist() == [np.inf, 80.0, 80.0]


def test_a_server_too_slow_for_everybody_breaks_the_average_and_the_worst() -> None:
    who = adapters(*[Slo(None, itl_mean_ms=25.0)] * 3)
    results = [hour(who, [[1.0] * 50] * 3, ms=30.0) for _ in range(3)]
    found = promises.uses(results, Slo())
    assert [text.split(" / ")[0] for text, _ in found] == ["mean ITL", "mean ITL of adapter 'a0'"]
    assert all(values == pytest.approx([1.2] * 3) for _, values in found)
    assert promises.broken(results, Slo()).startswith(
        "3 adapters break promises, the worst 'a0' with a mean ITL of 30 ms"
    )


def test_many_who_are_well_hide_nobody() -> None:
    who = adapters(*[Slo(None, e2e_mean_s=10.0)] * 40)
    slow = [[1.0] * 30] * 39 + [[11.0] * 15 + [12.0] * 15]
    results = [hour(who, slow) for _ in range(3)]
    (average, mean), (text, worst) = promises.uses(results, Slo())
    assert "on average over 40 adapters" in average and mean == pytest.approx([(39 * 0.1 + 1.15) / 40] * 3)
    assert "'a39'" in text and worst == pytest.approx([1.15] * 3)
    assert promises.broken(results, Slo()).startswith("adapter 'a39' with a mean E2E of 11.5 s over 90 requests")


def test_one_long_answer_condemns_nobody_with_few_requests() -> None:
    who = adapters(Slo(None, e2e_mean_s=5.0), Slo(None, e2e_mean_s=5.0))
    results = [hour(who, [[1.0] * 30, [1.0, 12.0]])]
    assert promises.broken(results, Slo()) == ""
    assert [text for text, _ in promises.uses(results, Slo()) if "'a1'" in text] == []
    assert not any("average" in text for text, _ in promises.uses(results, Slo())), "nor is their average known"
    # Again and again it does.
    assert "'a1'" in promises.broken([hour(who, [[1.0] * 30, [10.0, 12.0]]) for _ in range(8)], Slo())


def test_an_adapter_that_starves_does_not_look_good() -> None:
    """Few slots, many adapters: requests wait for an hour and never finish."""
    busy = column(24, (2.0,), 4)
    promised = Column(tuple(replace(a, slo=Slo(None, e2e_mean_s=30.0)) for a in busy.adapters), busy.setting)
    result = simulate(promised, LLAMA, default_ttft_slo_s=None)
    assert result.late_counts.sum() == 0, "nothing is promised on the TTFT"
    assert promises.broken([result], Slo()) != ""


def test_windows_without_requests_say_nothing() -> None:
    who = adapters(Slo(None, e2e_mean_s=2.0), None)
    results = [hour(who, [[], [1.0]]), hour(who, [[1.0, 1.0, 1.0], [1.0]])]
    ((text, values),) = promises.uses(results, Slo())
    assert "on average" in text and values.tolist() == [0.5, 0.5]
    assert promises.uses([hour(who, [[], [1.0]])], Slo()) == []
    (kept,) = promises.kept([hour(who, [[], [1.0]])], Slo(None), late_share=0.05)
    assert kept.requests == 0 and np.isnan(kept.use)
    assert promises.summary([kept])["e2e_mean_s"]["worst"] is None


def test_rules_ask_for_promises() -> None:
    busy = column(8, (0.5,), 8)
    results = simulate_many([busy], LLAMA, seeds=(0, 1, 2), horizon_s=600.0)[0]
    itl = max(float(r.adapter_itl_mean_ms.max()) for r in results)
    assert judge(results, "stable", Slo(itl_mean_ms=1.2 * itl)).healthy
    verdict = judge(results, "stable", Slo(itl_mean_ms=0.8 * itl))
    assert not verdict.healthy and "mean ITL" in verdict.reason
    assert judge(results, "published", Slo(itl_mean_ms=0.8 * itl)).healthy, "it judges no promise"
    strict, loose = Stable(Slo(itl_mean_ms=0.8 * itl)), Stable(Slo(itl_mean_ms=1.2 * itl))
    assert "break promises" in strict.broken(results) and loose.broken(results) == ""
    texts = [r.text for r in loose.requirements(results)]
    assert sum("mean ITL" in text for text in texts) == 2 and len(texts) == len(Stable().requirements(results)) + 2
    assert [r.text for r in Published(Slo(itl_mean_ms=1.0)).requirements(results)] == ["throughput / ideal"]


def test_use_of_every_promise() -> None:
    who = adapters(Slo(2.0, tpot_mean_ms=60.0), None)
    one = hour(who, [[1.0] * 40, [1.0] * 10])
    one.late_counts = np.array([1, 1])
    found = promises.kept([one, one], Slo(), late_share=0.05)
    assert [(k.adapter_id, k.promise, k.promised, k.requests) for k in found] == [
        ("a0", "ttft_p99_s", 2.0, 80), ("a0", "tpot_mean_ms", 60.0, 80), ("a1", "ttft_p99_s", 5.0, 20),
    ]  # fmt: skip
    assert [k.use for k in found] == pytest.approx([0.5, 0.5, 2.0])
    summary = promises.summary(found)
    assert summary["ttft_p99_s"]["worst"]["adapter_id"] == "a1" and summary["ttft_p99_s"]["beyond"] == 1
    assert (summary["ttft_p99_s"]["strictest"], summary["ttft_p99_s"]["loosest"]) == (2.0, 5.0)
    assert summary["tpot_mean_ms"] | {"worst": None} == {
        "adapters": 1, "strictest": 60.0, "loosest": 60.0, "beyond": 0, "worst": None,
    }  # fmt: skip
