"""The reload cascade: the same column is fast all hour under one seed and slow for long under another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cascade
from benchmarks.cascade import PUSH, PUSH_FOR_S, PUSH_S, Options, column_of, hour, main, pushed
from benchmarks.cascade_figure import Hour, Load, cascade_png
from surrogates.steady_state import steady_state
from tests.twin.columns import LLAMA
from twin.errors import InputError


def test_one_column_has_a_fast_and_a_slow_state() -> None:
    column = column_of(Options(), LLAMA)
    fast, slow = (hour(column, LLAMA, seed) for seed in (2, 0))
    assert fast.loads_per_s.max() < 10 < 30 < np.median(slow.loads_per_s[15:45])
    assert np.median(slow.step_ms[15:45]) > 1.8 * np.median(fast.step_ms)
    assert fast.healthy and not slow.healthy
    # The steady state's answer is the fast one.
    assert float(steady_state([column], LLAMA).loads_per_s[0]) == pytest.approx(fast.loads_per_s.mean(), rel=0.1)


def test_a_push_is_a_minute_of_more_traffic_and_nothing_else() -> None:
    column = column_of(Options(), LLAMA)
    drawn, more = (hour(column, LLAMA, 2, push=push).requests for push in (False, True))
    before = int(PUSH_S / 60)
    assert np.array_equal(drawn[:before], more[:before])
    requests = pushed(column, LLAMA, 2)
    inside = (requests.arrival_s >= PUSH_S) & (requests.arrival_s < PUSH_S + PUSH_FOR_S)
    assert np.all(np.diff(requests.arrival_s) >= 0)
    assert inside.sum() == pytest.approx(PUSH * column.rate_req_per_s * PUSH_FOR_S, rel=0.2)


def flat(seed: int, loads: float, slow: int = 0) -> Hour:
    """An hour whose first minutes are slow."""
    series = np.full(60, loads)
    series[:slow] *= 10
    return Hour(seed, series, 3 * series, series + 20.0, slow == 0)


def test_states_are_told_apart_by_loads() -> None:
    load = Load(5.0, 10.0, 11.0, 4.0, 0.0, 8.0, (flat(0, 4.0), flat(1, 4.0, slow=15)), (flat(0, 4.0, slow=6),))
    assert (load.fell, load.slow_share, load.slow_after_push) == (0.5, 0.125, 6.0)
    assert load.state(slow=False) == (4.0, 12.0, 24.0)
    assert load.state(slow=True) == (40.0, 120.0, 60.0)
    calm = Load(5.0, 10.0, 11.0, 4.0, 0.0, 8.0, (flat(0, 4.0),), ())
    assert np.isnan(calm.state(slow=True)).all()


def test_the_picture_is_the_same_bytes_each_time() -> None:
    pytest.importorskip("matplotlib")
    load = Load(5.0, 10.0, 11.0, 4.0, 0.0, 8.0, (flat(0, 4.0), flat(1, 4.0, slow=15)), (flat(0, 4.0),))
    largest = {"twin": 4.0, "with_residual": 4.5, "physics": 5.0}
    one, two = (cascade_png({"stays fast": flat(0, 4.0)}, [load], largest, 5.0) for _ in range(2))
    assert one == two and one.startswith(b"\x89PNG")


def test_the_command_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cascade, "FACTORS", (0.9, 1.0))
    monkeypatch.setattr(cascade, "HALVINGS", 2)
    monkeypatch.setattr(cascade, "LARGEST_HOURS", 1)
    monkeypatch.setattr(cascade, "cascade_png", lambda *_: b"picture")
    assert main(["seeds=1", f"out={tmp_path / 'cascade.png'}"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["hours"] == summary["hours_that_fell"] == 1
    assert (tmp_path / "cascade.png").read_bytes() == b"picture"
    assert main(["slots=0"]) == 2


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="matplotlib"):
        cascade_png({}, [], {}, 1.0)
