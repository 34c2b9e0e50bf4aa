"""The main job: workload -> settings -> problem -> solver -> verification -> tightening -> result.

The order of the functions below is the order of the job. Every solver gets the same problem; `bound` belongs to the
planning model with its margin, before any tightening.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import numpy as np

from placement.config import Run
from placement.deciding import deciding_notes
from placement.problem.admission import admit
from placement.problem.build import build_problem
from placement.problem.problem import Placement, PlacementProblem, evaluate, violations
from placement.problem.promises import keepable
from placement.problem.refuted import tighten
from placement.problem.solver import SolveReport, relative_gap
from placement.report.figures import simulated_objective
from placement.report.promises import planning_notes, unsettled_notes
from placement.report.result import Result
from placement.solvers.bounds import certified_minimum, outer, prove_bound
from placement.solvers.capabilities import refuse
from placement.verify.verdict import NOT_JUDGED, Decision, Verification
from twin.confidence.seeds import short_windows
from twin.errors import InfeasibleError, NoSolutionError, PlacementError
from twin.server.column import Column
from twin.workload.peaks import peak_to_mean

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Where the job says how far it is; see `placement.report.progress`."""

    def stage(self, text: str) -> AbstractContextManager[Advance]: ...


class Advance(Protocol):
    """Called with (done, total)."""

    def __call__(self, done: int, total: int) -> None: ...


def run_pipeline(run: Run, progress: Progress) -> Result:
    """Computes, certifies and verifies a placement.

    Raises:
        InfeasibleError: proven that none exists under the planning model.
        NoSolutionError: none was found within the limits.
    """
    began = time.perf_counter()
    with progress.stage("planning model"):
        settings, left_out = admit(run.workload, run.settings, run.planning, run.calibration)
        kept = keepable(run.workload.adapters, settings, run.calibration, run.constraint)
        problem = build_problem(
            run.workload,
            run.planning,
            kept.settings,
            (run.gpu,),
            run.objective.terms,
            margin=run.constraint.margin,
            keepable=kept.allowed,
        )
        refuse(problem, run.solver)
        minimum = certified_minimum(problem, run.options.time_limit_s)
        problem = with_fleet(run, problem, minimum)
    result = Result(run, "no_solution", "time_limit", run.solver.name, problem, problem, certified_minimum=minimum)
    verified = run.verifier is not None
    unknown = planning_notes(run.workload.adapters, run.constraint, run.planning, verified=verified)
    peak = peak_to_mean(run.workload)
    short = short_windows(getattr(run.verifier, "horizon_s", math.inf))
    result.warnings += [short] if short else []
    result.warnings += [*run.notes, *left_out, *kept.notes, *unknown, *([str(peak)] if peak is not None else [])]
    try:
        warm = warm_up(run, problem)
        with progress.stage(f"solver {run.solver.name}"):
            solve(run, result, problem, None)
            result.bound = result.bound_tightened
            if result.termination != "interrupted":
                bound_result(run, result, result.bound_tightened)
        result.status = "unverified"
        if run.verifier is not None and result.termination != "interrupted":
            with progress.stage("compiling the twin"):
                warm.join()
            verify_and_tighten(run, result, progress)
    except KeyboardInterrupt:
        if result.placement is None:
            raise
        result.status, result.termination = "unverified", "interrupted"
    assert result.placement is not None
    result.objective, result.terms = evaluate(result.original, result.placement)
    result.gap = relative_gap(result.objective, result.bound)
    broken = violations(result.original, result.placement)
    if broken:
        raise AssertionError(f"solver {run.solver.name} returned a placement that breaks a rule: {broken[0]}")
    columns = result.placement.columns(result.original)
    result.warnings += calibration_warnings(run, columns)
    result.warnings += deciding_notes(run, [column.setting for column in columns])
    if run.constraint.rule == "stable":  # the other one judges no promise
        result.warnings += unsettled_notes(result.verification)
    result.runtime_s = time.perf_counter() - began
    return result


def with_fleet(run: Run, problem: PlacementProblem, minimum: int | None) -> PlacementProblem:
    """Limits the number of GPUs where no term prices them: the same for every solver."""
    existing = run.gpu.count
    if run.objective.prices_gpus:
        return problem
    if minimum is None and existing is None:
        raise NoSolutionError(
            "the fewest GPUs could not be proven in time, so the size of the fleet is unknown",
            where=f"time_limit_s = {run.options.time_limit_s:g}",
            remedy="raise time_limit_s, or give the size of the fleet with hardware.count=...",
        )
    size = run.objective.fleet_size(minimum or 1, existing)
    # A fleet of all GPUs that exist is limited by their stock.
    return problem if size is None or size == existing else replace(problem, max_gpus=size)


def solve(run: Run, result: Result, problem: PlacementProblem, warm_start: Placement | None) -> SolveReport:
    """One run of the solver; its placement becomes the result's."""
    report = run.solver.solve(problem, time_limit_s=run.options.time_limit_s, warm_start=warm_start)
    result.rounds += 1
    result.solver_s += report.runtime_s
    result.termination = report.termination
    result.details = dict(report.details)
    result.problem = problem
    if report.placement is None:
        raise_without_placement(run, result, problem, report)
    result.placement = report.placement
    # Verdicts belong to the placement before.
    result.verification, result.simulated_objective, result.simulated_terms = None, None, {}
    result.bound_tightened = report.bound
    return report


def raise_without_placement(run: Run, result: Result, problem: PlacementProblem, report: SolveReport) -> None:
    """Explains why there is no placement."""
    if report.termination == "interrupted":
        raise KeyboardInterrupt
    from placement.solvers.explain import infeasible_error, miscount

    if report.status == "infeasible":
        result.status = "infeasible"
        raise infeasible_error(problem)
    proven = miscount(problem)
    if proven is not None:
        result.status = "infeasible"
        raise proven
    other = "greedy" if report.solver != "greedy" else "milp"
    raise NoSolutionError(
        f"solver {report.solver} found no placement ({report.termination}, {report.runtime_s:.1f} s)",
        where=f"time_limit_s = {run.options.time_limit_s:g}",
        remedy=f"raise time_limit_s, try solver={other}, or allow more GPUs (hardware.count)",
    )


def bound_result(run: Run, result: Result, proven: float | None) -> None:
    """Bounds of the untightened problem; a solver that proves none gets the one of the price list."""
    limit = run.options.time_limit_s
    bounds = [prove_bound(result.original, limit) if proven is None else proven]
    result.bound_outer = prove_bound(outer(result.original), limit)
    # What no placement beats without the margin, none beats with it.
    bounds.append(result.bound_outer)
    result.bound = result.bound_tightened = max((b for b in bounds if b is not None), default=None)


def warm_up(run: Run, problem: PlacementProblem) -> threading.Thread:
    """Loads, or compiles, the twin's kernel while the solver works: a second, on a fresh machine a quarter minute."""

    def load_twin() -> None:
        from twin.simulation import simulate

        item = int(np.argmin([a.rate_req_per_s for a in problem.items]))
        option = int(np.argmax(problem.allowed[item]))
        column = Column((problem.items[item],), problem.options[option].setting)
        try:
            simulate(column, run.calibration, horizon_s=60.0)
        except PlacementError as error:  # verification meets it again, where it can be told
            log.debug("warming up the twin: %s", error)

    thread = threading.Thread(target=load_twin if run.verifier is not None else lambda: None, daemon=True)
    thread.start()
    return thread


def verify_and_tighten(run: Run, result: Result, progress: Progress) -> None:
    """Simulates, tightens what the twin did not accept and solves again, a bounded number of rounds.

    GPUs that were refuted are tightened at once. GPUs that stayed undecided are not known to be bad, only too close to
    the limit to tell: where nothing else is wrong the solver is asked for something a little safer. Untested GPUs
    cannot be helped by another placement.
    """
    verifier = run.verifier
    assert verifier is not None
    rounds = getattr(verifier, "max_rounds", 0)
    for round_ in range(rounds + 1):
        assert result.placement is not None
        columns = result.placement.columns(result.problem)
        with progress.stage(f"verification, {len(columns)} GPUs" + (f", round {round_ + 1}" if round_ else "")) as step:
            checked = verifier.columns(
                columns,
                run.calibration,
                run.constraint,
                round_=round_,
                progress=step,
                stop_at_refuted=round_ < rounds,
            )
        if checked.passed:
            checked = with_peaks(run, result, checked)
        result.verification = checked
        result.simulated_objective, result.simulated_terms = simulated_objective(
            result.problem, result.placement, checked
        )
        refuted, undecided = checked.having("refuted"), checked.having("undecided")
        result.history.append(
            {
                "gpus": len(columns),
                "objective": evaluate(result.problem, result.placement)[0],
                "refuted": len(refuted),
                "undecided": len(undecided),
            }
        )
        if checked.passed:
            result.status = "verified"
            return
        unwanted = refuted or undecided
        if round_ == rounds or result.termination == "interrupted" or not unwanted:
            break
        if not solve_again(run, result, unwanted, round_ + 1, progress):
            break
    result.status = "unverified"
    result.warnings += unverified_because(run, result, checked)


def with_peaks(run: Run, result: Result, checked: Verification) -> Verification:
    """The verdicts with the busiest windows of a workload whose rates change."""
    peaks = getattr(run.verifier, "peaks", None)
    if peaks is None or result.placement is None:
        return checked
    shares = [[float(result.problem.item_share[i]) for i in gpu.items] for gpu in result.placement.gpus]
    found = peaks(
        result.placement.columns(result.problem),
        run.calibration,
        run.constraint,
        recording=run.workload.recording,
        shares=shares,
    )
    return replace(checked, peaks=found)


def solve_again(run: Run, result: Result, unwanted: Sequence[int], round_: int, progress: Progress) -> bool:
    """Another placement without these GPUs; False, with a warning, where none was found."""
    assert result.placement is not None
    problem = tighten(result.problem, [result.placement.gpus[k] for k in unwanted], round_)
    with progress.stage(f"solver {run.solver.name}, round {round_ + 1}"):
        try:
            try:
                solve(run, result, problem, result.placement)
            except (InfeasibleError, NoSolutionError):
                wider = widened(run, result, problem)
                if wider is problem:
                    raise
                solve(run, result, wider, result.placement)
            if result.bound_tightened is None:
                result.bound_tightened = prove_bound(result.problem, run.options.time_limit_s)
        except (InfeasibleError, NoSolutionError) as error:
            result.warnings.append(
                f"after tightening, no placement was found that the twin might accept: {error.problem}"
            )
            return False
    return True


def unverified_because(run: Run, result: Result, checked: Verification) -> list[str]:
    """Why the placement is not verified, for people."""
    said: dict[Decision, str] = {
        "refuted": "the twin refuted",
        "undecided": "the twin could not decide on",
        "untested": "no request arrived that could test",
    }
    warnings = []
    for decision, words in said.items():
        which = [k for k in checked.having(decision) if checked.gpus[k].reason != NOT_JUDGED]
        if which:
            warnings.append(f"{words} {len(which)} of {len(result.gpus)} GPUs: {checked.gpus[which[0]].reason}")
    broken = [p for p in checked.peaks if p.broken]
    if broken:
        from placement.verify.peaks import peak_warning

        worst = max(broken, key=lambda p: p.peak_to_mean)
        options = run.config.get("workload") or {}
        warnings.append(
            peak_warning(worst, len(broken), len(checked.peaks), run.workload.recording, result.columns, options)
        )
    return warnings


def widened(run: Run, result: Result, problem: PlacementProblem) -> PlacementProblem:
    """A fleet derived from the certified minimum grows with it, and the bounds with the fleet; a given one does not."""
    if run.objective.prices_gpus or run.gpu.count is not None:
        return problem
    minimum = certified_minimum(problem, run.options.time_limit_s)
    size = run.objective.fleet_size(minimum, None) if minimum is not None else None
    if size is None or problem.max_gpus is None or size <= problem.max_gpus:
        return problem
    result.warnings.append(f"the fleet grew from {problem.max_gpus} to {size} GPUs, because verification tightened it")
    result.original = replace(result.original, max_gpus=size)
    bound_result(run, result, None)
    return replace(problem, max_gpus=size)


def calibration_warnings(run: Run, columns: Sequence[Column]) -> list[str]:
    """Settings and loads outside the range in which the calibration was fitted."""
    notes: dict[str, None] = {}
    for column in columns:
        s = column.setting
        notes |= dict.fromkeys(
            run.calibration.outside(
                max_loras=s.max_loras,
                max_lora_rank=s.max_lora_rank,
                max_num_seqs=s.max_num_seqs,
                max_num_batched_tokens=s.max_num_batched_tokens,
                block_size=s.block_size,
                gpu_memory_utilization=s.gpu_memory_utilization,
            )
        )
    return list(notes)
