"""A workload estimated from a recording has to stand the recording's own busiest windows."""

from __future__ import annotations

import numpy as np
import pytest

from placement.verify.peaks import clock, peak_warning
from placement.verify.verifier import TwinVerifier
from twin.figures.health import Stable
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.sources.estimates import estimate
from twin.workload.adapter import Adapter, Lengths
from twin.workload.peaks import peak_to_mean
from twin.workload.rates import OnOff, RateProfile
from twin.workload.recording import Recording, RequestLog
from twin.workload.workload import Workload

CALIBRATION = load_calibration("llama-3.1-8b-h100-64gb")
CALIBRATIONS = {CALIBRATION.gpu.name: CALIBRATION}
SETTING = EngineSetting(CALIBRATION.stamp.gpu_type, 16, 16)
NAMES = tuple(f"a{i}" for i in range(8))
VERIFIER = TwinVerifier(hours=50, max_hours=50)


def recording(rates: list[float], hour_s: float = 3600.0, speed: float = 1.0) -> Recording:
    """Poisson arrivals at these rates, an hour each, dealt to the adapters in turn."""
    rng = np.random.default_rng(3)
    times = np.concatenate([h * hour_s + np.sort(rng.random(round(r * hour_s))) * hour_s for h, r in enumerate(rates)])
    n = len(times)
    lengths = np.full(n, 200.0)
    return Recording(NAMES, RequestLog(times, np.arange(n) % 8, lengths, lengths, np.zeros(n)), "log.csv", speed)


def adapters(recorded: Recording) -> tuple[Adapter, ...]:
    found = estimate(recorded.log, 8, quantile=None, window_s=600.0, duration_s=recorded.log.duration_s)
    return found.adapters(list(NAMES), [16] * 8, found.rate_req_per_s)


SWING = recording([2, 2, 90, 6])
CALM = recording([6, 7, 6, 6])


def test_a_plan_for_the_mean_does_not_stand_the_busiest_hour() -> None:
    column = Column(adapters(SWING), SETTING)
    peaks = VERIFIER.peaks([column], CALIBRATIONS, Stable(), recording=SWING, shares=[[1.0] * 8])
    first = max(peaks, key=lambda p: p.peak_to_mean)
    assert first.start_s == pytest.approx(7200, abs=60)
    assert first.peak_to_mean == pytest.approx(90 / 25, rel=0.02)
    assert "late" in first.broken
    assert first.figures["ttft_p99_s"] > 100
    assert sum(bool(p.broken) for p in peaks) == 1
    text = peak_warning(first, 1, 3, SWING, [column], {"quantile": None})
    assert "2 h 0 min" in text or "1 h 59 min" in text
    assert "workload.quantile=0.9" in text or "workload.quantile=0.95" in text


def test_a_calm_recording_is_kept() -> None:
    column = Column(adapters(CALM), SETTING)
    peaks = VERIFIER.peaks([column], CALIBRATIONS, Stable(), recording=CALM, shares=[[1.0] * 8])
    assert len(peaks) == 3
    assert not any(p.broken for p in peaks)


def test_a_replica_gets_its_share_of_the_recorded_requests() -> None:
    column = Column(adapters(SWING), SETTING)
    peaks = VERIFIER.peaks([column], CALIBRATIONS, Stable(), recording=SWING, shares=[[0.25] * 8])
    assert max(p.requests for p in peaks) == pytest.approx(81_000, rel=0.02)
    assert not any(p.broken for p in peaks)


def test_a_recording_faster_than_real_time_is_replayed_at_the_speed_of_its_workload() -> None:
    quick = recording([4, 4], speed=2.0)
    column = Column(tuple(a.scaled(2.0) for a in adapters(quick)), SETTING)
    (peak,) = VERIFIER.peaks([column], CALIBRATIONS, Stable(), recording=quick, shares=[[1.0] * 8])
    assert peak.requests == pytest.approx(28_800, rel=0.02)
    assert peak.peak_to_mean == pytest.approx(1.0, rel=0.03)


def test_adapters_that_the_recording_does_not_know_are_left_out() -> None:
    stranger = Adapter("new", 16, 0.001, Lengths(200, 1.0), Lengths(200, 1.0))
    column = Column((stranger, *adapters(CALM)), SETTING)
    peaks = VERIFIER.peaks(
        [column, Column((stranger,), SETTING)], CALIBRATIONS, Stable(), recording=CALM, shares=[[1.0] * 9, [1.0]]
    )
    assert {p.gpu for p in peaks} == {0}


def test_the_busiest_time_of_a_long_profile_is_drawn() -> None:
    day = RateProfile(tuple(3600.0 * h for h in range(25)), tuple(8.0 if h == 9 else 1.0 for h in range(24)))
    busy = tuple(Adapter(n, 16, 2.0, Lengths(200, 1.0), Lengths(200, 1.0), rate_process=day) for n in NAMES)
    (peak,) = VERIFIER.peaks([Column(busy, SETTING)], CALIBRATIONS, Stable(), recording=None, shares=[[1.0] * 8])
    assert (peak.recorded, peak.start_s) == (False, 9 * 3600)
    assert "late" in peak.broken
    assert "plan_rate=peak" in peak_warning(peak, 1, 1, None, [Column(busy, SETTING)], {"plan_rate": "mean"})


def test_hours_are_drawn_over_the_whole_profile() -> None:
    """A day with six bad hours: not one of them is its first."""
    day = RateProfile(tuple(3600.0 * h for h in range(25)), tuple(9.0 if h >= 18 else 1.0 for h in range(24)))
    busy = tuple(Adapter(n, 16, 4.5, Lengths(200, 1.0), Lengths(200, 1.0), rate_process=day) for n in NAMES)
    checked = VERIFIER.columns([Column(busy, SETTING)], CALIBRATIONS, Stable(), round_=0)
    assert checked.gpus[0].decision == "refuted"


def test_peak_to_mean_of_recordings_and_processes() -> None:
    found = peak_to_mean(Workload(adapters(SWING), recording=SWING))
    assert found is not None
    assert found.ratio == pytest.approx(90 / 25, rel=0.1)
    plain = adapters(CALM)
    assert peak_to_mean(Workload(plain)) is None
    switching = Workload(
        (*plain[:2], Adapter("x", 8, 1.0, Lengths(9, 1), Lengths(9, 1), rate_process=OnOff(60.0, 540.0)))
    )
    ratio = peak_to_mean(switching)
    assert ratio is not None
    assert (ratio.ratio, ratio.changing, ratio.window_s) == (pytest.approx(10), 1, None)
    assert "10" in str(ratio)


def test_lengths_of_time_are_told_in_words() -> None:
    assert [clock(s) for s in (45, 600, 3600, 12_000)] == ["45 s", "10 min", "1 h 0 min", "3 h 20 min"]
