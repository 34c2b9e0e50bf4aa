"""The saturated run by the law equals a literal step-by-step one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from placement.batching.closed_loop import Prefill, closed_loop
from placement.batching.step_times import StepTimes, step_times
from twin.server.calibration import load_calibration

CALIBRATION = load_calibration("opt-1.3b-h100-64gb")
REQUESTS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=25)


def literal(
    requests: Sequence[tuple[int, int]], batch: int, times: StepTimes, budget: int, prefill: Prefill
) -> tuple[float, int]:
    """(duration in s, most requests at once), one step at a time; KV memory without limit."""
    waiting = list(range(len(requests)))
    left = {r: p for r, (p, _) in enumerate(requests)}
    produced: dict[int, int] = {}
    running: list[int] = []
    now, most = 0.0, 0
    while waiting or running:
        decodes = [r for r in running if left[r] == 0]
        if prefill == "separate" and waiting and len(running) < batch:
            room = budget
            admitted: list[int] = []
            while waiting and len(running) + len(admitted) < batch and (not admitted or left[waiting[0]] <= room):
                room -= left[waiting[0]]
                admitted.append(waiting.pop(0))
            now += times.prefill_step(sum(left[r] for r in admitted), len(running))[0]
            for r in admitted:
                left[r], produced[r] = 0, 1
            running += [r for r in admitted if requests[r][1] > 1]
            most = max(most, len(running))
            continue
        room = budget - len(decodes)
        chunk: dict[int, int] = {}
        if prefill == "chunked":
            for r in [r for r in running if left[r] > 0]:
                if room > 0:
                    chunk[r] = min(room, left[r])
                    room -= chunk[r]
            while waiting and len(running) < batch and room > 0:
                r = waiting.pop(0)
                running.append(r)
                chunk[r] = min(room, left[r])
                room -= chunk[r]
        most = max(most, len(running))
        held = sum(requests[r][0] + produced.get(r, 0) for r in running)
        now += times.step(len(running), held, sum(chunk.values()))[0]
        for r in decodes:
            produced[r] += 1
        for r, tokens in chunk.items():
            left[r] -= tokens
            if left[r] == 0:
                produced[r] = 1
        running = [r for r in running if produced.get(r, 0) < requests[r][1]]
    return now / 1000, most


@settings(deadline=None, max_examples=60)
@given(REQUESTS, st.integers(1, 8), st.sampled_from(["chunked", "separate"]), st.integers(64, 128))
def test_run_equals_the_literal_one(requests: list[tuple[int, int]], batch: int, prefill: Prefill, budget: int) -> None:
    times = step_times(CALIBRATION, separate_prefill=prefill == "separate")
    result = closed_loop(
        [p for p, _ in requests], [o for _, o in requests], batch=batch, times=times, prefill=prefill,
        token_budget=budget, kv_capacity_tokens=1e9,
    )  # fmt: skip
    duration, most = literal(requests, batch, times, budget, prefill)
    assert result.duration_s == pytest.approx(duration, rel=2e-4)
    assert result.running_max == most
    assert not result.preempting


def test_one_request_by_hand() -> None:
    times = step_times(CALIBRATION, separate_prefill=True)
    result = closed_loop(
        [100], [11], batch=1, times=times, prefill="separate", token_budget=2048, kv_capacity_tokens=1e6
    )
    decode = [times.step(1, 100 + k, 0)[0] for k in range(1, 11)]
    assert result.duration_s == pytest.approx((times.prefill_step(100, 0)[0] + sum(decode)) / 1000)
    assert result.itl_ms == result.tpot_ms == pytest.approx(np.mean(decode))


@pytest.mark.parametrize("prefill", ["chunked", "separate"])
def test_too_small_a_cache_is_said(prefill: Prefill) -> None:
    times = step_times(CALIBRATION, separate_prefill=prefill == "separate")
    for capacity, preempting in ((4 * 700.0, True), (4 * 1100.0, False)):
        result = closed_loop(
            [200] * 20, [800] * 20, batch=4, times=times, prefill=prefill, token_budget=2048,
            kv_capacity_tokens=capacity,
        )  # fmt: skip
        assert result.preempting == preempting
        assert preempting or result.kv_peak_tokens <= capacity


def test_a_token_budget_bounds_the_batch() -> None:
    """130 output tokens, 242 prompt tokens, 512 a step: B (1 + 242/130) <= 512, as the measured 181 at B = 512."""
    times = step_times(CALIBRATION, separate_prefill=False)
    result = closed_loop(
        [242] * 1500, [130] * 1500, batch=512, times=times, prefill="chunked", token_budget=512, kv_capacity_tokens=1e9
    )
    assert result.running_mean == pytest.approx(512 / (1 + 242 / 130), rel=0.05)  # the ramp-up counts, too
