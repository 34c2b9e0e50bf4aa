"""Columns: one way of asking is as good as another, states grow with the load, flags do what they do in the twin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from surrogates.steady_state import (
    LIMITS,
    STATE_NUMBERS,
    SteadyState,
    largest_load,
    state_numbers,
    steady_state,
    steady_state_model,
)
from surrogates.steady_state.items import items_of
from surrogates.steady_state.pace import shared_s
from surrogates.steady_state.state import PLACE
from tests.surrogates.steady_state.columns import LLAMA, OPT, SETTING, adapter, mix, scaled, with_flags
from twin.errors import InputError
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.server.sharing import SharingLaw
from twin.workload.adapter import Adapter, Lengths, Slo

FEW_SLOTS = with_flags(max_loras=8)


def alike(one: SteadyState, other: SteadyState, rel: float) -> None:
    for name in PLACE:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rel, atol=1e-12, err_msg=name)


def of(adapters: Any, setting: EngineSetting = SETTING, **options: Any) -> SteadyState:
    return steady_state([Column(tuple(adapters), setting)], LLAMA, **options)


def test_many_columns_at_once_are_the_same_as_one_by_one() -> None:
    columns = [Column(tuple(mix(n, n)), s) for n in (1, 5, 40, 90) for s in (SETTING, FEW_SLOTS)]
    together = steady_state(columns, LLAMA)
    assert np.isfinite(together.pace_s).sum() >= 5
    for p, column in enumerate(columns):
        one = steady_state([column], LLAMA)
        for name in PLACE:
            assert getattr(one, name)[0] == pytest.approx(getattr(together, name)[p], rel=1e-12, nan_ok=True), name


@pytest.mark.parametrize("setting", [SETTING, FEW_SLOTS], ids=["within", "crowded"])
@pytest.mark.parametrize("rule", ["stable", "published"])
def test_a_move_is_a_difference(setting: EngineSetting, rule: Any) -> None:
    adapters = mix(60, 3, rate=0.05)
    model = steady_state_model(adapters, LLAMA, setting, rule=rule)
    left, right = list(range(25)), list(range(25, 60))
    sums = model.sums([left, right])
    moved = sums + model.rows([40, 7]) - model.rows([7, 40])
    groups = [[*left[:7], *left[8:], 40], [7, *right[:15], *right[16:]]]
    differences = model.states_of_sums(moved, [setting] * 2, *model.promise_limits(groups))
    alike(differences, model.states(groups, [setting] * 2), 1e-9)
    # Columns are picked like rows of an array.
    one = model.states_of_sums(sums[np.array([1])], [setting], *model.promise_limits([right]))
    alike(one, model.states([right], [setting]), 1e-9)


def test_a_factor_on_the_load_is_a_factor_on_the_rates() -> None:
    adapters = mix(40, 5, rate=0.05)
    model = steady_state_model(adapters, LLAMA, SETTING)
    for factor in (0.2, 1.7):
        state = of(scaled(adapters, factor))
        loaded = model.states([range(40)], [SETTING], load=factor)
        for name in ("pace_s", "requests_in_system", "kv_share", "ttft_mean_s", "distinct_adapters"):
            assert getattr(loaded, name)[0] == pytest.approx(getattr(state, name)[0], rel=0.01), name


def test_the_same_question_gets_the_same_bytes() -> None:
    columns = [Column(tuple(mix(30, 8)), SETTING), Column(tuple(mix(90, 9)), FEW_SLOTS)]
    one, two = steady_state(columns, LLAMA), steady_state(columns, LLAMA)
    assert one.figures.tobytes() == two.figures.tobytes()


@pytest.mark.parametrize("setting", [SETTING, FEW_SLOTS], ids=["within", "crowded"])
@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_a_heavier_load_is_slower_and_fuller(setting: EngineSetting, cv: float) -> None:
    model = steady_state_model(mix(50, 4, cv=cv), LLAMA, setting)
    loads = np.geomspace(0.05, 8.0, 60)
    state = model.states([range(50)] * len(loads), [setting] * len(loads), load=loads)
    solved = np.isfinite(state.pace_s)
    assert solved[:20].all()
    # Once there is no steady state, there is none at heavier loads.
    assert not solved[np.argmin(solved) :].any() or solved.all()
    for name in ("pace_s", "requests_in_system", "decoding", "kv_share", "distinct_adapters", "itl_p99_s"):
        values = getattr(state, name)[solved]
        values = values[np.isfinite(values)]
        assert (np.diff(values) >= -1e-3 * values[1:]).all(), name
    theta = model.largest_loads([range(50)], [setting])[0]
    # Far beyond, adapters that never leave their slots are never late.
    late = state.late_share[solved & (loads < 3 * theta)]
    assert (np.diff(late) >= -1e-3).all()
    healthy = state.healthy == 1
    assert healthy[loads < 0.99 * theta].all()
    assert not healthy[(loads > 1.01 * theta) & (loads < 1.4 * theta)].any()


def test_flags_do_what_they_do_in_the_twin() -> None:
    adapters = mix(50, 6, rate=0.06)

    def at(**flags: Any) -> SteadyState:
        state = of(adapters, with_flags(**flags))
        assert np.isfinite(state.pace_s[0]), flags
        return state

    base = at()
    assert at(max_lora_rank=64).pace_s > base.pace_s
    assert at(max_lora_rank=64).kv_share > base.kv_share
    assert at(max_loras=128).lora_share > base.lora_share
    few, fewer = at(max_loras=24), at(max_loras=16)
    assert base.loads_per_s == 0 < few.loads_per_s < fewer.loads_per_s
    assert few.cached_for_s > fewer.cached_for_s
    assert at(gpu_memory_utilization=0.8).kv_share > base.kv_share
    assert at(max_num_seqs=32).seqs_use > base.seqs_use
    assert at(max_num_seqs=16).late_share > 0.05
    assert at(max_num_seqs=16).verdict(0) == "max_num_seqs"
    assert at(max_num_seqs=256, max_num_batched_tokens=256).ttft_mean_s > base.ttft_mean_s
    from_disk = at(max_loras=16, max_cpu_loras=20)
    assert fewer.disk_loads_per_s == 0 < from_disk.disk_loads_per_s
    assert from_disk.pace_s > fewer.pace_s
    # Another step is in flight while a request waits.
    assert at(async_scheduling=True).ttft_mean_s[0] == pytest.approx(base.ttft_mean_s[0] + base.pace_s[0], rel=0.01)
    assert at(block_size=128).kv_share > base.kv_share


def test_what_an_adapter_asks_for_counts() -> None:
    adapters = mix(30, 7)
    state = of(adapters)
    hits = of([replace(a, cached_prompt_fraction=0.9) for a in adapters])
    assert hits.prompt_tokens_per_step < state.prompt_tokens_per_step
    assert hits.ttft_mean_s < state.ttft_mean_s
    base_model = of([replace(a, rank=0) for a in adapters])
    assert base_model.adapters == base_model.distinct_adapters == base_model.lora_share == 0
    assert base_model.pace_s < state.pace_s
    bursty, even = (of([replace(a, arrival_cv=cv) for a in adapters]) for cv in (4.0, 0.2))
    assert bursty.kv_share_spread > state.kv_share_spread > even.kv_share_spread
    assert bursty.distinct_adapters < even.distinct_adapters
    assert bursty.ttft_p99_s > even.ttft_p99_s


def test_promises_are_those_of_each_adapter() -> None:
    adapters = mix(100, 2, rate=0.012)
    strict = [replace(a, slo=Slo(0.4)) if k < 50 else a for k, a in enumerate(adapters)]
    late = of(adapters, FEW_SLOTS).late_share
    assert of(strict, FEW_SLOTS).late_share > late
    assert of(adapters, FEW_SLOTS, default_ttft_slo_s=60.0).late_share < late
    theta = [largest_load([Column(tuple(a), FEW_SLOTS)], LLAMA)[0] for a in (adapters, strict)]
    assert theta[1] < 0.98 * theta[0]
    # More distinct promises than levels: in between.
    many = [replace(a, slo=Slo(1.0 + 0.04 * k)) for k, a in enumerate(adapters)]
    strictest = [replace(a, slo=Slo(1.0)) for a in adapters]
    assert late < of(many, FEW_SLOTS).late_share < of(strictest, FEW_SLOTS).late_share


def test_promises_on_the_pace_are_arrays_of_the_items() -> None:
    model = steady_state_model(mix(20, 1), LLAMA, SETTING)
    pace_s = model.states([range(20)], [SETTING]).pace_s[0]
    for factor, healthy in ((1.05, 1.0), (0.95, 0.0)):
        tables = replace(model.tables, pace_limit_s=np.where(np.arange(20) == 3, factor * pace_s, np.inf))
        promised = replace(model, tables=tables)
        state = promised.states([range(20)], [SETTING])
        assert state.healthy[0] == healthy
        assert state.promise_use[0] == pytest.approx(1 / factor)
        other = promised.states([[k for k in range(20) if k != 3]], [SETTING])
        assert other.healthy[0] == 1.0
    assert state.verdict(0) == "promise"


EXTREMES: dict[str, tuple[list[Adapter], EngineSetting]] = {
    "a request a day": ([adapter("a", 1 / 86_400)], SETTING),
    "one token each": ([adapter("a", 5.0, prompt_tokens=Lengths(1, 0), output_tokens=Lengths(1, 0))], SETTING),
    "long prompts": ([adapter("a", 1e-3, prompt_tokens=Lengths(125_000, 0.5))], with_flags(max_model_len=None)),
    "long answers": ([adapter("a", 1e-3, output_tokens=Lengths(100_000, 1.5))], with_flags(max_model_len=None)),
    "rank 512": ([adapter("a", 0.1, rank=512)], with_flags(max_loras=8, max_lora_rank=512)),
    "even arrivals": (mix(40, 1, cv=0.1), FEW_SLOTS),
    "very even arrivals": (mix(40, 1, cv=0.001), FEW_SLOTS),
    "bursts": (mix(40, 1, cv=10.0), FEW_SLOTS),
    "the longest bursts": (mix(40, 1, cv=20.0), SETTING),
    "one slot": (mix(40, 1, rate=0.001), with_flags(max_loras=1)),
    "ten times too much": (mix(40, 1, rate=5.0), SETTING),
    "a million times too much": (mix(40, 1, rate=1e6), FEW_SLOTS),
    "no adapter": ([adapter("base", 2.0, rank=0)], with_flags(max_loras=1)),
    "small rest of the cache": (mix(5, 1), with_flags(max_loras=8, max_model_len=2048, gpu_memory_utilization=0.4)),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_have_finite_answers_or_a_reason(name: str) -> None:
    adapters, setting = EXTREMES[name]
    state = of(adapters, setting)
    answers = [name for name in PLACE if name not in ("cached_for_s", "ttft_slo_s")]
    if state.healthy[0]:
        assert all(np.isfinite(getattr(state, f)[0]) for f in answers)
        assert state.verdict(0) == ""
    else:
        assert state.verdict(0) in LIMITS
    theta = largest_load([Column(tuple(adapters), setting)], LLAMA)[0]
    assert np.isnan(theta) or theta > 0
    numbers = state_numbers(state)
    assert numbers.shape == (1, len(STATE_NUMBERS))
    assert np.isfinite(numbers).all()


def test_reasons_are_named() -> None:
    assert of(mix(5, 1), with_flags(max_lora_rank=8)).verdict(0) == "max_lora_rank"
    assert of(mix(5, 1), with_flags(max_loras=384, max_lora_rank=512)).verdict(0) == "memory"
    assert of(mix(40, 1, rate=5.0)).verdict(0) == "compute"
    # A prompt that takes longer than its promise: no load is light enough.
    slow = [adapter("a", 1e-4, prompt_tokens=Lengths(100_000, 0.1), slo=Slo(0.5))]
    whole = with_flags(max_model_len=None)
    assert of(slow, whole).verdict(0) == "promise"
    assert np.isnan(largest_load([Column(tuple(slow), whole)], LLAMA)[0])
    with pytest.raises(InputError, match="without adapters"):
        steady_state([Column((adapter("a"),), SETTING)], OPT)


def test_ten_thousand_adapters() -> None:
    rng = np.random.default_rng(0)
    adapters = [adapter(f"a{k}", float(r)) for k, r in enumerate(rng.uniform(1e-5, 4e-4, 10_000))]
    state = of(adapters, with_flags(max_loras=128))
    assert state.adapters == 10_000
    assert 0 < state.distinct_adapters < 128
    assert state.loads_per_s > 1


def test_states_without_columns_or_adapters() -> None:
    assert len(steady_state([], LLAMA)) == 0
    model = steady_state_model(mix(3, 1), LLAMA, SETTING)
    empty = model.states([[]], [SETTING])
    assert empty.healthy[0] == 1
    assert empty.rate_req_per_s[0] == 0


@pytest.mark.parametrize("servers", [1, 2, 5])
@pytest.mark.parametrize("busy", [0.0, 0.4, 1.0])
def test_servers_share_a_gpu_by_the_law_of_the_twin(servers: int, busy: float) -> None:
    law = SharingLaw(gap_base_ms=3.0, gap_seq_ms=0.01, mps_share=0.6, time_sharing_stretch=1.1)
    weights = [1.0]
    for _ in range(servers - 1):
        weights = [a * busy + b * (1 - busy) for a, b in zip([0.0, *weights], [*weights, 0.0], strict=True)]
    expected = sum(w * law.step_ms(20.0, 4.0, 1 + j) for j, w in enumerate(weights))
    assert 1000 * shared_s(0.020, 0.004, servers, 0.6, busy) == pytest.approx(expected, rel=1e-6)


def test_two_servers_on_a_gpu() -> None:
    requests = tuple(adapter(f"a{k}", 3.0, rank=0) for k in range(4))
    one = EngineSetting(
        "h100-64gb", max_loras=1, max_lora_rank=8, max_num_seqs=512, max_model_len=2048, gpu_memory_utilization=0.45
    )
    single = steady_state([Column(requests, one)], OPT)
    shared = steady_state([Column(requests, replace(one, servers_per_gpu=2))], OPT)
    halved = steady_state([Column(scaled(requests, 0.5), one)], OPT)
    assert shared.rate_req_per_s == single.rate_req_per_s
    # Each has half of the requests, and the other's kernels beside its own.
    assert halved.pace_s < shared.pace_s
    assert shared.decoding == pytest.approx(2 * halved.decoding * shared.pace_s / halved.pace_s, rel=0.02)


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("mean", [200.0, 3000.0, 9000.0])
def test_moments_of_lengths_that_are_cut(cv: float, mean: float) -> None:
    a = adapter("a", prompt_tokens=Lengths(mean, cv), output_tokens=Lengths(50.0, 0.0))
    items = items_of([a], max_model_len=4096)
    drawn = np.minimum(np.random.default_rng(0).gamma(1 / cv**2, mean * cv**2, 400_000), 4095)
    assert items.prompt[0] == pytest.approx(drawn.mean(), rel=0.01)
    assert items.prompt_2[0] == pytest.approx((drawn**2).mean(), rel=0.02)


@pytest.mark.parametrize("rate", [1e-12, 1e-15, 1e-30, 5e-324])
@pytest.mark.parametrize("slots", [8, 1])
def test_hardly_any_traffic_is_hardly_any_load(rate: float, slots: int) -> None:
    """Squares of such rates are no numbers: the process died of it."""
    column = Column(tuple(adapter(f"a{k}", rate) for k in range(3)), with_flags(max_loras=slots))
    state = steady_state([column], LLAMA)
    assert state.healthy[0] == 1 and 0 < state.requests_in_system[0] < 1e-10
    busy, alone = (Column((*own, adapter("busy", 1.0)), with_flags(max_loras=8)) for own in (column.adapters, ()))
    beside, by_itself = steady_state([busy, alone], LLAMA).requests_in_system
    assert beside == pytest.approx(by_itself, rel=0.05)
