"""Where a ray leaves the healthy set: the largest factor on all rates of a mix, found by bisection in the twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from surrogates.model.features import AdapterArrays
from twin.figures.health import RULES, Rule, judge
from twin.figures.result import SimulationResult

#: `simulate(adapters with scaled rates, seed)`.
SimulateMix = Callable[[AdapterArrays, int], SimulationResult]

#: Ratio between neighbouring factors of the lattice that is searched.
LATTICE_STEP = 0.015
#: Coarse search in steps of this many lattice points (a factor of 1.6); fine enough for pooling below the second.
_STRIDE, _POOLED_STRIDE = 32, 4
#: Farthest lattice point, a factor of 1,800 either way.
_FARTHEST = 500
#: Tokens/s with which a search starts.
_START_TPS = 2000.0


@dataclass(slots=True)
class RayTrace:
    """Everything simulated on one ray.

    Args:
        columns: (theta, seed, fields of `Prediction`) of each simulation in order.
        theta: boundary factor under each rule; NaN where the mix is healthy or unhealthy at every factor tried.
    """

    columns: list[tuple[float, int, dict[str, float]]] = field(default_factory=list)
    theta: dict[Rule, float] = field(default_factory=dict)


class _Ray:
    """Verdicts on lattice points `theta = start * exp(step * k)`; simulations are kept and shared by both rules."""

    def __init__(self, adapters: AdapterArrays, simulate: SimulateMix, trace: RayTrace) -> None:
        self._adapters, self._simulate, self._trace = adapters, simulate, trace
        self._results: dict[tuple[int, int], SimulationResult] = {}
        tokens = float((adapters.rate_req_per_s * (adapters.prompt_mean + adapters.output_mean)).sum())
        self._start = _START_TPS / tokens

    def theta(self, k: float) -> float:
        return self._start * math.exp(LATTICE_STEP * k)

    def healthy(self, k: int, rule: Rule, seeds: int) -> bool:
        for seed in range(seeds):
            if (k, seed) not in self._results:
                result = self._simulate(self._adapters.scaled(self.theta(k)), seed)
                self._results[k, seed] = result
                self._trace.columns.append((self.theta(k), seed, result.row))
        return judge([self._results[k, seed] for seed in range(seeds)], rule).healthy

    def known(self) -> list[int]:
        """Lattice points simulated with the first seed."""
        return sorted(k for k, seed in self._results if seed == 0)

    def bracket(self, rule: Rule, low: int, high: int, stride: int, seeds: int) -> tuple[int, int] | None:
        """Moves `low` down until healthy and `high` up until not, doubling the stride; None beyond the lattice."""
        step = stride
        while not self.healthy(low, rule, seeds):
            high, low, step = low, low - step, min(2 * step, 4 * stride)
            if low < -_FARTHEST:
                return None
        step = stride
        while self.healthy(high, rule, seeds):
            low, high, step = high, high + step, min(2 * step, 4 * stride)
            if high > _FARTHEST:
                return None
        return low, high

    def bisect(self, rule: Rule, low: int, high: int, width: int, seeds: int) -> tuple[int, int]:
        while high - low > width:
            middle = (low + high) // 2
            if self.healthy(middle, rule, seeds):
                low = middle
            else:
                high = middle
        return low, high


def trace_ray(
    adapters: AdapterArrays,
    simulate: SimulateMix,
    *,
    pooled_seeds: int = 1,
    interior: int = 0,
    rng: np.random.Generator | None = None,
) -> RayTrace:
    """Finds the boundary of one ray under both rules to within 1.5 %.

    Args:
        pooled_seeds: seeds pooled for verdicts near the boundary. One is enough where adapters <= slots; elsewhere
            one seed mislabels 11 % of the columns there.
        interior: further columns at random factors between 5 % and 95 % of the `stable` boundary, for the loads.
    """
    trace = RayTrace()
    ray = _Ray(adapters, simulate, trace)
    for rule in RULES:
        trace.theta[rule] = math.nan
        points = ray.known()
        healthy = [k for k in points if ray.healthy(k, rule, 1)]
        start_low = max(healthy, default=points[0] if points else 0)
        start_high = min((k for k in points if k > start_low), default=start_low + _STRIDE)
        found = ray.bracket(rule, start_low, start_high, _STRIDE, 1)
        if found is None:
            continue
        if pooled_seeds > 1:
            low, high = ray.bisect(rule, *found, _POOLED_STRIDE, 1)
            found = ray.bracket(rule, low, high, _POOLED_STRIDE, pooled_seeds)
            if found is None:
                continue
        low, high = ray.bisect(rule, *found, 1, pooled_seeds)
        trace.theta[rule] = ray.theta((low + high) / 2)
    stable = trace.theta["stable"]
    if interior and rng is not None and math.isfinite(stable):
        for factor in np.exp(rng.uniform(math.log(0.05), math.log(0.95), interior)).tolist():
            trace.columns.append((stable * factor, 0, simulate(adapters.scaled(stable * factor), 0).row))
    return trace
