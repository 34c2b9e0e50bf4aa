"""Fewer GPUs than the planning model's margin allows, where the twin accepts them.

The margin keeps away most placements that the twin would refute, and with them some that it would accept. Where GPUs
are what counts, a verified placement is followed by trials with one GPU less and less of the margin, each judged like
any other; the last one that was accepted stays.
"""

from __future__ import annotations

from dataclasses import replace

from placement.config import Run
from placement.pipeline.clock import Clock, Progress
from placement.problem import timing
from placement.problem.objectives import GpuCount
from placement.problem.problem import PlacementProblem
from placement.report.result import Result
from placement.solvers.fleets import cheaper, fleet_price, may_be_cheaper
from placement.solvers.greedy import one_gpu_less

#: Share of the load by which the margin is cut in a trial, trials in all, and how often one may be mended.
LESS, TRIALS, MENDINGS = 0.04, 3, 2
#: A trial's search may take this share of the time left; it is begun only where so many times the time is left that
#: judging took.
SHARE, TIMES = 0.3, 1.3


def worth_trying(run: Run, result: Result) -> bool:
    """Whether only GPUs count, and fewer are not proven impossible."""
    bound = result.bound
    counts = all(isinstance(t, GpuCount) for t in run.objective.terms)
    return (
        counts
        and result.problem.model is not None
        and bound is not None
        and bound < result.objective_now() * (1 - 1e-6)
    )


def with_less_margin(problem: PlacementProblem) -> PlacementProblem:
    """The problem that asks for less than the margin, but on settings that the twin has refuted."""
    old = problem.reserve or (0.0,) * len(problem.options)
    return replace(problem, reserve=tuple(r if r > 0 else min(r, 0.0) - LESS for r in old))


def trial(run: Run, result: Result, clock: Clock, progress: Progress) -> bool:
    """Puts a placement with one GPU less, or on a cheaper fleet of several types, into the result, to be judged; False
    where there is none.
    """
    assert result.placement is not None
    problem = with_less_margin(result.problem)
    began = timing.now()
    several = may_be_cheaper(problem)
    search = cheaper if several else one_gpu_less
    with progress.stage("a cheaper fleet?" if several else f"{len(result.placement.gpus) - 1} GPUs?"):
        found = search(problem, result.placement, seed=run.options.seed, deadline=began + clock.left_s(SHARE))
    if found is None or fleet_price(problem, found) >= fleet_price(problem, result.placement):
        return False
    result.placement, result.problem = found, problem
    result.rounds += 1
    result.solver_s += timing.now() - began
    return True
