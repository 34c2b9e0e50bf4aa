"""This workload, not the average one: what its own simulated hours say over the planning model.

The hours that judged a placement also say how many requests its GPUs held. Where that is not what was planned, the
model's level is corrected: objective, bound and everything reported belong to the corrected model.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from placement.problem.objectives import GpuCount, MeanE2E, MeanItl
from placement.problem.problem import Placement, PlacementProblem
from placement.verify.verdict import Verification
from surrogates.pieces.exact import Level, SteadyColumns

#: Planned and simulated that differ by less than this share agree.
AGREED = 0.005
#: A correction beyond this factor would not be one of the model's level.
MOST = 1.25


def level_of(problem: PlacementProblem, placement: Placement, checked: Verification) -> Level | None:
    """Factors between the twin and the planning model over a placement's GPUs; None where they agree."""
    if not isinstance(problem.model, SteadyColumns):
        return None
    planned = problem.columns_of([g.items for g in placement.gpus], [g.option for g in placement.gpus])
    told = [v.simulated for v in checked.gpus]
    e2e_s = np.array([t.get("e2e_mean_s", math.nan) for t in told])
    itl_s = np.array([t.get("itl_mean_ms", math.nan) for t in told]) / 1000
    loads = (
        (planned.rate_req_per_s * e2e_s, planned.requests_in_system),
        (planned.output_tokens_per_s * itl_s, planned.decoding),
    )
    factors = []
    for simulated, expected in loads:
        known = np.isfinite(simulated) & np.isfinite(expected)
        factor = float(simulated[known].sum() / expected[known].sum()) if known.any() else 1.0
        factors.append(min(max(factor, 1 / MOST), MOST))
    if max(abs(f - 1) for f in factors) < AGREED:
        return None
    level = problem.model.level
    return Level(level.in_system * factors[0], level.decoding * factors[1])


def at_level(problem: PlacementProblem, level: Level) -> PlacementProblem:
    """The problem under the corrected model; pieces for bounds follow it."""
    assert isinstance(problem.model, SteadyColumns)
    old = problem.model.level
    in_system, decoding = level.in_system / old.in_system, level.decoding / old.decoding
    below = tuple(
        replace(
            o,
            requests_in_system=o.requests_in_system.scaled(in_system),
            requests_decoding=o.requests_decoding.scaled(decoding),
        )
        for o in problem.below
    )
    return replace(problem, model=problem.model.with_level(level), below=below)


def bound_at_level(problem: PlacementProblem, bound: float | None, change: Level) -> float | None:
    """A bound after the loads have changed by these factors, from the one before: every cost is at least that share.

    Args:
        change: factors on the loads, not on the level.
    """
    return None if bound is None else bound * least_change(problem, change)


def least_change(problem: PlacementProblem, change: Level) -> float:
    """Least factor on the cost of any column after the loads have changed by these factors."""
    if all(isinstance(t, GpuCount) for t in problem.terms):
        return 1.0  # no load is in it
    if all(isinstance(t, MeanE2E) for t in problem.terms):
        return change.in_system
    if all(isinstance(t, MeanItl) for t in problem.terms):
        return change.decoding
    return min(1.0, change.in_system, change.decoding)
