"""The main job: workload -> settings -> problem -> first placement -> solver -> bound -> verification -> result.

The order of the functions below is the order of the job. Every solver gets the same problem, and one clock runs for all
of it. From the first placement on there is something to report, whatever happens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from placement.config import Run
from placement.deciding import deciding_notes
from placement.pipeline.clock import Clock, Progress
from placement.pipeline.kernels import kernels
from placement.pipeline.proofs import (
    OPTIMAL_GAP,
    PROVING,
    THE_BOUND,
    bound_again,
    bound_result,
    refuse_impossible,
    settle_bounds,
)
from placement.pipeline.start import better_start, first_placement
from placement.problem import timing
from placement.problem.admission import admit
from placement.problem.build import build_problem
from placement.problem.problem import Placement, PlacementProblem, evaluate, violations
from placement.problem.promises import keepable
from placement.problem.solver import SolveReport
from placement.report.promises import planning_notes, unsettled_notes
from placement.report.result import Result
from placement.solvers.capabilities import refuse
from placement.today.comparison import beside_plan
from twin.confidence.seeds import short_windows
from twin.errors import NoSolutionError
from twin.interrupts import saving
from twin.server.column import Column
from twin.workload.peaks import peak_to_mean

log = logging.getLogger(__name__)

#: Share of all the time, from the first settings on, after which the planning model is asked for no further setting.
POSING = 0.3
#: Shares of the time left that the solver may take, and where judging takes long.
SOLVING, LEAST = 0.5, 0.1


def run_pipeline(run: Run, progress: Progress) -> Result:
    """Computes, certifies and verifies a placement.

    Raises:
        InfeasibleError: proven that none exists under the planning model.
        NoSolutionError: none was found within the limits.
    """
    twin_loads = kernels(run, progress)
    clock = Clock(run.options.time_limit_s)
    with progress.stage("planning model"), clock.phase("the planning model"):
        problem, notes, left_out = posed(run, clock)
        refuse(problem, run.solver)
    result = Result(run, "no_solution", "time_limit", run.solver.name, problem, problem)
    result.warnings += notes
    result.left_out = left_out
    try:
        with progress.stage("first placement"):
            problem, first = first_placement(run, result, problem, clock)
            result.problem = result.original = problem
            first = better_start(run, problem, first)
        if first is not None:
            log.info("first placement: %d GPUs after %.1f s", len(first.gpus), clock.spent_s())
            result.placement, result.status = first, "unverified"
        twin_loads.join()
        kept_s = 0.0 if first is None else judging_s(run, first.columns(problem)) + clock.part_s(PROVING)
        with progress.stage(f"solver {run.solver.name}"):
            solve(run, result, problem, first, clock, kept_s)
        if result.termination != "interrupted":
            with progress.stage("bound"):
                bound_result(result, clock)
        result.status = "unverified"
        if run.verifier is not None and result.termination != "interrupted":
            from placement.pipeline.check import verify_and_mend

            verify_and_mend(run, result, progress, clock)
        if result.termination != "interrupted":
            with progress.stage("bound again"):
                bound_again(result, clock)
    except KeyboardInterrupt:
        if result.placement is None:
            raise
        saving()
        result.status, result.termination = "unverified", "interrupted"
    return finished(run, result, clock, progress)


def finished(run: Run, result: Result, clock: Clock, progress: Progress) -> Result:
    """Figures of the placement that was found, and what has to be said about it."""
    assert result.placement is not None
    result.objective, result.terms = evaluate(result.original, result.placement)
    settle_bounds(result)
    interrupted = result.termination == "interrupted"
    if run.today is not None:
        result.today, said = beside_plan(
            run.today, run.verifier, run.calibrations, run.constraint, result.columns,
            None if interrupted else result.verification, round_=max(0, len(result.history) - 1),
            progress=progress, deadline=clock.deadline,
        )  # fmt: skip
        result.warnings += said
        if result.today is None and clock.out_of_time():
            clock.cut["today's placement"] = None
    saving()
    # Only where the bound is exact: one that rests on columns looked at, or on most of them, proves no optimum.
    exact = result.original.model is None
    if exact and result.gap is not None and result.gap <= OPTIMAL_GAP and not interrupted:
        result.termination = "optimal"
    broken = violations(replace(result.problem, max_gpus=None), result.placement)
    if broken:
        raise AssertionError(f"solver {run.solver.name} returned a placement that breaks a rule: {broken[0]}")
    columns = result.placement.columns(result.original)
    result.warnings += calibration_warnings(run, columns)
    result.warnings += deciding_notes(run, [column.setting for column in columns])
    if run.constraint.rule == "stable":  # the other one judges no promise
        result.warnings += unsettled_notes(result.verification)
    result.cut = tuple(clock.cut)
    searches = [phase for phase in result.cut if phase != THE_BOUND]
    if searches:
        result.warnings.append(
            f"the clock (time_limit_s={run.options.time_limit_s:g}) ended {', '.join(searches)}: another run may "
            "find another placement"
        )
    result.runtime_s = clock.spent_s()
    return result


def posed(run: Run, clock: Clock) -> tuple[PlacementProblem, list[str], list[str]]:
    """The problem, what the output must say of it, and which of that is about settings left out."""
    deadline = clock.began + POSING * clock.limit_s
    settings, left_out = admit(
        run.workload, run.settings, run.planning, run.calibrations, late=lambda: timing.up(deadline, "settings")
    )
    kept = keepable(run.workload.adapters, settings, run.calibrations, run.constraint)
    problem = build_problem(
        run.workload,
        run.planning,
        kept.settings,
        run.gpu_types,
        run.objective.terms,
        margin=run.constraint.margin,
        keepable=kept.allowed,
    )
    unknown = planning_notes(run.workload.adapters, run.constraint, run.planning, verified=run.verifier is not None)
    peak = peak_to_mean(run.workload)
    short = short_windows(getattr(run.verifier, "horizon_s", math.inf))
    notes = [*([short] if short else []), *run.notes, *left_out, *kept.notes, *unknown]
    return problem, notes + ([str(peak)] if peak is not None else []), left_out


def judging_s(run: Run, columns: Sequence[Column]) -> float:
    """Seconds that judging GPUs like these takes; 0 where the verifier does not tell."""
    expected = getattr(run.verifier, "expected_s", None)
    return 0.0 if expected is None else float(expected(columns, run.calibrations, run.constraint))


def solve(
    run: Run, result: Result, problem: PlacementProblem, first: Placement | None, clock: Clock, kept_s: float = 0.0
) -> None:
    """Runs the solver; the better of its placement and the first one becomes the result's.

    Args:
        kept_s: seconds that are kept for what comes after it, as far as the solver has some left.
    """
    result.problem = problem
    if first is not None and clock.out_of_time():
        clock.cut[f"solver {run.solver.name}"] = None
        return
    limit_s = min(clock.left_s(SOLVING), max(clock.left_s(LEAST), clock.left_s() - kept_s))
    with clock.phase(f"solver {run.solver.name}"):
        report = run.solver.solve(problem, time_limit_s=limit_s, warm_start=first)
    result.rounds += 1
    result.solver_s += report.runtime_s
    result.termination = report.termination
    result.details = dict(report.details)
    result.proven = report.bound
    if report.placement is not None:
        result.placement = report.placement
    elif first is None or run.solver.capabilities.gpu_count_only:
        raise_without_placement(run, result, problem, report, clock)
    else:
        result.warnings.append(f"solver {run.solver.name} found no placement; this is the first one, dealt greedily")


def raise_without_placement(
    run: Run, result: Result, problem: PlacementProblem, report: SolveReport, clock: Clock
) -> None:
    """Explains why there is no placement."""
    if report.termination == "interrupted":
        raise KeyboardInterrupt
    result.status = "infeasible"
    if report.status == "infeasible":
        from placement.solvers.explain import infeasible_error

        raise infeasible_error(problem)
    refuse_impossible(problem, clock)
    result.status = "no_solution"
    tried = {"greedy": "milp", "portfolio": "", "cpsat": "portfolio"}.get(report.solver, "greedy")
    other = f"try solver={tried}, " if tried else ""
    raise NoSolutionError(
        f"solver {report.solver} found no placement ({report.termination}, {report.runtime_s:.1f} s)",
        where=f"time_limit_s = {run.options.time_limit_s:g}",
        remedy=f"raise time_limit_s, {other}or allow more GPUs (hardware.count)",
    )


def calibration_warnings(run: Run, columns: Sequence[Column]) -> list[str]:
    """Settings and loads outside the range in which the calibration was fitted."""
    notes: dict[str, None] = {}
    for column in columns:
        s = column.setting
        notes |= dict.fromkeys(
            run.calibration_of(s).outside(
                max_loras=s.max_loras,
                max_lora_rank=s.max_lora_rank,
                max_num_seqs=s.max_num_seqs,
                max_num_batched_tokens=s.max_num_batched_tokens,
                block_size=s.block_size,
                gpu_memory_utilization=s.gpu_memory_utilization,
            )
        )
    return list(notes)
