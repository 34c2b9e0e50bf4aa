"""Teacher forcing: the batch that a real run had, found by making the twin as slow as the run was.

Near saturation a small error of the step time makes a large one of the batch, so regressing on a free-running
simulation drifts to the wrong fixed point. Instead each run's step time is scaled until the simulated
S = running mean / output token rate is the measured one; the features there belong to the measured step time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiling.fit.micro import Row
from profiling.published.replay import Replay, Rig, Script, replay, script_of
from profiling.published.runs import MeasuredRun
from twin.server.calibration import Calibration
from twin.server.rules import EngineRules

TOLERANCE = 0.003
MAX_SIMULATIONS = 8
#: Relative error of the batch at which a row counts half.
RUNNING_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class ForcedRun:
    """A run at its measured step time.

    Args:
        scale: factor on the law's step time that reproduces the measured one.
        features: mean over steps of each term of the law, (21,).
        step_ms: mean step time without adapter loads, ms.
        residual: log of simulated / measured S that the search left.
        running: simulated / measured running requests. Far from 1 where the real server held fewer requests than
            its memory allows (another tenant of the GPU, or minutes-long jumps between a small and a full batch):
            the features are then not those of the run.
    """

    run: MeasuredRun
    scale: float
    features: NDArray[np.float64]
    step_ms: float
    residual: float
    running: float = 1.0

    @property
    def weight(self) -> float:
        """Weight of its row: 1 where the batch is the measured one, 1/2 where it is 5 % off."""
        return 1.0 / (1.0 + ((self.running - 1.0) / RUNNING_TOLERANCE) ** 2)

    def row(self) -> Row:
        """The equation it gives to the fit."""
        return Row("run", self.run.group, self.features, self.step_ms, self.weight)


def force(
    run: MeasuredRun,
    calibration: Calibration,
    rig: Rig,
    *,
    seed: int = 0,
    start: float = 1.0,
    rules: EngineRules | None = None,
) -> ForcedRun:
    """Finds the scale by a bracketed secant search on logarithms; deterministic."""
    script = script_of(run, calibration, rig, seed=seed, known_arrivals=True)
    target = math.log(run.step_ms)
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    best: tuple[float, float, Replay] | None = None
    x = math.log(start)
    for _ in range(MAX_SIMULATIONS):
        played = replay(script, calibration, rig, time_scale=math.exp(x), rules=rules)
        error = math.log(played.step_ms) - target
        if best is None or abs(error) < abs(best[1]):
            best = (x, error, played)
        if abs(error) < TOLERANCE:
            break
        if error < 0:
            low = (x, error) if low is None or x > low[0] else low
        else:
            high = (x, error) if high is None or x < high[0] else high
        if low is not None and high is not None and low[0] < high[0]:
            share = min(0.9, max(0.1, -low[1] / (high[1] - low[1])))
            x = low[0] + share * (high[0] - low[0])
        else:
            # S grows at least about in proportion to the scale.
            x -= error * 0.7
    assert best is not None
    return _forced(script, best[0], best[1], best[2])


def _forced(script: Script, x: float, error: float, played: Replay) -> ForcedRun:
    out, scale = played.out, math.exp(x)
    step_ms = 1000 * (out.busy_s - out.load_s) / out.steps
    running = played.running / script.run.metrics["running_mean"]
    # Loads keep their measured cost, so that the scale falls on the law alone; `busy_s` holds scaled loads.
    return ForcedRun(script.run, scale, out.features / out.steps, step_ms, error, running)


def force_all(
    runs: Sequence[MeasuredRun],
    calibration: Calibration,
    rig: Rig,
    *,
    starts: Sequence[float] | None = None,
    threads: int = 2,
    rules: EngineRules | None = None,
) -> list[ForcedRun]:
    """Every run, in parallel threads; order and figures do not depend on their number."""

    def job(task: tuple[MeasuredRun, float]) -> ForcedRun:
        return force(task[0], calibration, rig, start=task[1], rules=rules)

    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(job, zip(runs, starts or [1.0] * len(runs), strict=True)))
