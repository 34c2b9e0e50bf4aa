"""This workload, not the average one: what its own simulated hours say over the planning model.

The hours that judged a placement also say how many requests its GPUs held. Where that is not what was planned, the
model's level is corrected, for each type of GPU: objective, bound and everything reported belong to the corrected
model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from placement.problem.objectives import GpuCount, MeanE2E, MeanItl
from placement.problem.problem import Array, GpuAssignment, Placement, PlacementProblem
from placement.verify.verdict import ColumnVerdict, Verification
from surrogates.pieces.exact import Level
from surrogates.pieces.fleet import Judge, levels_of, with_levels

#: Planned and simulated that differ by less than this share agree.
AGREED = 0.005
#: A correction beyond this factor would not be one of the model's level.
MOST = 1.25


def levels_told(problem: PlacementProblem, placement: Placement, checked: Verification) -> dict[str, Level] | None:
    """The planning model's level for each GPU type after the twin's hours; None where they agree.

    A type that the placement does not use stays at its level.
    """
    if not isinstance(problem.model, Judge):
        return None
    levels, changed = levels_of(problem.model), False
    types = [problem.options[g.option].setting.gpu_type for g in placement.gpus]
    for name in dict.fromkeys(types):
        which = [k for k, t in enumerate(types) if t == name]
        factors = _factors(problem, [placement.gpus[k] for k in which], [checked.gpus[k] for k in which])
        if max(abs(f - 1) for f in factors) >= AGREED:
            old, changed = levels[name], True
            levels[name] = Level(old.in_system * factors[0], old.decoding * factors[1])
    return levels if changed else None


def _factors(
    problem: PlacementProblem, gpus: Sequence[GpuAssignment], verdicts: Sequence[ColumnVerdict]
) -> tuple[float, float]:
    """What the twin says over what was planned, of requests in system and of those decoding on some GPUs."""
    planned = problem.columns_of([g.items for g in gpus], [g.option for g in gpus])
    told = [v.simulated for v in verdicts]
    e2e_s = np.array([t.get("e2e_mean_s", math.nan) for t in told])
    itl_s = np.array([t.get("itl_mean_ms", math.nan) for t in told]) / 1000

    def factor(simulated: Array, expected: Array) -> float:
        known = np.isfinite(simulated) & np.isfinite(expected)
        found = float(simulated[known].sum() / expected[known].sum()) if known.any() else 1.0
        return min(max(found, 1 / MOST), MOST)

    return (
        factor(planned.rate_req_per_s * e2e_s, planned.requests_in_system),
        factor(planned.output_tokens_per_s * itl_s, planned.decoding),
    )


def at_levels(problem: PlacementProblem, levels: Mapping[str, Level]) -> PlacementProblem:
    """The problem under the corrected model; pieces for bounds follow it."""
    assert isinstance(problem.model, Judge)
    before = levels_of(problem.model)
    below = []
    for o in problem.below:
        change = change_of(before[o.setting.gpu_type], levels[o.setting.gpu_type])
        in_system = o.requests_in_system.scaled(change.in_system)
        below.append(
            replace(o, requests_in_system=in_system, requests_decoding=o.requests_decoding.scaled(change.decoding))
        )
    return replace(problem, model=with_levels(problem.model, levels), below=tuple(below))


def change_of(before: Level, after: Level) -> Level:
    """Factors on the loads from one level to another."""
    return Level(after.in_system / before.in_system, after.decoding / before.decoding)


def least_change(before: Mapping[str, Level], after: Mapping[str, Level]) -> Level:
    """The least factors over the GPU types: what holds for a bound, whichever types it rests on."""
    changes = [change_of(level, after[name]) for name, level in before.items()]
    return Level(min(c.in_system for c in changes), min(c.decoding for c in changes))


def bound_at_level(problem: PlacementProblem, bound: float | None, change: Level) -> float | None:
    """A bound after the loads have changed by these factors, from the one before: every cost is at least that share.

    Args:
        change: factors on the loads, not on the level.
    """
    return None if bound is None else bound * least_factor(problem, change)


def least_factor(problem: PlacementProblem, change: Level) -> float:
    """Least factor on the cost of any column after the loads have changed by these factors."""
    if all(isinstance(t, GpuCount) for t in problem.terms):
        return 1.0  # no load is in it
    if all(isinstance(t, MeanE2E) for t in problem.terms):
        return change.in_system
    if all(isinstance(t, MeanItl) for t in problem.terms):
        return change.decoding
    return min(1.0, change.in_system, change.decoding)
