"""What the benchmark of derived calibrations counts as careful."""

from __future__ import annotations

import math

from benchmarks.derive import careful_figures
from profiling.published.fidelity import Comparison
from profiling.published.runs import MeasuredRun

RUN = MeasuredRun("r", "t", "g", "m", 8, 8, 8, (1.0,), (8,), 200, 200, math.nan, True, True, {})


def row(itl: float, measured: float, starved: bool = True) -> Comparison:
    return Comparison(RUN, 0, {"itl": itl}, {"itl": measured}, starved, starved_measured=True)


def test_careful_is_slower_than_measured_and_finds_the_starved() -> None:
    mean = [row(10, 11), row(20, 21), row(30, 28), row(40, 44)]
    careful = [row(12, 11), row(22, 21), row(33, 28), row(43, 44, starved=False)]
    assert careful_figures(mean, careful) == {
        "careful_slower_pct": 75.0,
        "careful_longer_pct": 10.0,
        "careful_starved_found_pct": 75.0,
    }
