"""A closed loop keeps so many requests open and no more, and is, with its times, a load like any other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.twin.columns import LLAMA, column
from twin.engine.closed_loop import closed_loop, end_s
from twin.engine.play import play
from twin.errors import InputError
from twin.server.column import Column
from twin.workload.requests import Requests

OK = column(4, (0.05,), 4)


def load(count: int, output: int = 40) -> Requests:
    rng = np.random.default_rng(3)
    whole = [rng.integers(1, 4, count), np.full(count, 100), np.zeros(count), rng.integers(1, output, count)]
    return Requests(np.zeros(count), *(values.astype(np.int32) for values in whole))


@pytest.mark.parametrize(("count", "concurrency"), [(60, 8), (60, 1), (5, 8), (60, 60)])
def test_a_free_place_is_taken_at_once_and_never_more_than_there_are(count: int, concurrency: int) -> None:
    sent = closed_loop(load(count), OK, LLAMA, concurrency=concurrency, seed=0)
    end = end_s(sent, OK, LLAMA, seed=0)
    done = play(OK, LLAMA, horizon_s=end, requests=sent).out
    assert np.isfinite(done.finish_s).all()
    assert done.finish_s.max() == pytest.approx(end)
    first = min(count, concurrency)
    assert (sent.arrival_s[:first] == 0).all()
    # Request first + k goes out in the step that finishes the k-th.
    finished = np.sort(done.finish_s)[: count - first]
    assert (sent.arrival_s[first:] >= finished - 1e-9).all()
    assert (sent.arrival_s[first:] - finished).max(initial=0.0) < 0.05, "within a step"
    opened = np.searchsorted(np.sort(sent.arrival_s), sent.arrival_s, side="right")
    assert (opened - np.searchsorted(np.sort(done.finish_s), sent.arrival_s, side="right")).max() <= concurrency


def test_several_servers_share_no_loop() -> None:
    shared = Column(OK.adapters, replace(OK.setting, servers_per_gpu=2, gpu_memory_utilization=0.45))
    with pytest.raises(InputError, match="share"):
        closed_loop(load(5), shared, LLAMA, concurrency=2, seed=0)
