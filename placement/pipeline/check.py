"""The twin has the last word: every GPU is judged, and what it does not accept is mended."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from placement.config import Run
from placement.pipeline.clock import Clock, Progress
from placement.pipeline.level import at_levels, bound_at_level, least_change, least_factor, levels_told
from placement.pipeline.room import mostly_refused, own_loads, replanned, room_of, with_room
from placement.pipeline.tighter import MENDINGS, TIMES, TRIALS, trial, worth_trying
from placement.problem import timing
from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, evaluate
from placement.report.figures import simulated_objective
from placement.report.result import Result
from placement.solvers.fleets import fleet_price
from placement.solvers.mending import mend, warned
from placement.verify.verdict import NOT_JUDGED, OUT_OF_TIME, ColumnVerdict, Decision, Verification
from surrogates.pieces.fleet import Judge, levels_of

#: Share of the time left that one mending may take.
MENDING = 0.3

Key = tuple[int, frozenset[int]]


def verify_and_mend(run: Run, result: Result, progress: Progress, clock: Clock) -> None:
    """Simulates every GPU, and mends the placement where the twin did not accept one, a bounded number of rounds.

    GPUs that were refuted are mended at once. GPUs that stayed undecided are not known to be bad, only too close to the
    limit to tell: where nothing else is wrong they are asked to be a little safer. Untested GPUs cannot be helped by
    another placement. A GPU that was accepted is not judged again as long as it stays as it is. Where only GPUs count,
    trials with fewer follow (`placement.pipeline.tighter`).
    """
    verifier = run.verifier
    assert verifier is not None
    rounds = getattr(verifier, "max_rounds", 0)
    known: dict[Key, ColumnVerdict] = {}
    began = timing.now()
    checked = rounds_of(run, result, known, range(rounds + 1), progress, clock)
    if not checked.passed:
        result.status = "unverified"
        corrected(result, checked)
        result.warnings += unverified_because(run, result, checked)
        return
    result.status = "verified"
    took_s = timing.now() - began
    for _ in range(TRIALS):
        next_ = len(result.history)
        if next_ > rounds or not worth_trying(run, result) or clock.left_s() < TIMES * took_s:
            break
        kept = copy(result)
        kept.history, kept.warnings = list(result.history), list(result.warnings)
        if not trial(run, result, clock, progress):
            break
        again = rounds_of(
            run, result, known, range(next_, min(next_ + MENDINGS, rounds + 1)), progress, clock, near=True
        )
        assert result.placement is not None and kept.placement is not None
        before, after = (fleet_price(kept.problem, p) for p in (kept.placement, result.placement))
        if not again.passed or after >= before:
            tried = result.history[len(kept.history) :]
            for name in ("placement", "problem", "original", "verification", "simulated_objective", "simulated_terms"):
                setattr(result, name, getattr(kept, name))
            result.warnings, result.history = kept.warnings, [*kept.history, *tried]
            break
        checked = again
    corrected(result, checked)


def rounds_of(
    run: Run, result: Result, known: dict[Key, ColumnVerdict], which: range, progress: Progress, clock: Clock, *,
    near: bool = False,
) -> Verification:  # fmt: skip
    """Rounds of judging and mending, until all GPUs are accepted or the rounds or the time end; the last verdicts.

    Args:
        near: the placement is only mended, not planned again.
    """
    checked = Verification(())
    for round_ in which:
        assert result.placement is not None
        last = round_ == which[-1]
        checked = judged(run, result, result.placement, known, round_, not last, progress, clock)
        if checked.passed:
            checked = with_peaks(run, result, checked)
        result.verification = checked
        result.simulated_objective, result.simulated_terms = simulated_objective(
            result.problem, result.placement, checked
        )
        refuted, undecided = checked.having("refuted"), checked.having("undecided")
        result.history.append(
            {
                "gpus": len(result.placement.gpus),
                "objective": evaluate(result.problem, result.placement)[0],
                "refuted": len(refuted),
                "undecided": len(undecided),
            }
        )
        unwanted = refuted or undecided
        if checked.passed or last or result.termination == "interrupted" or not unwanted:
            break
        if clock.out_of_time():
            break
        if not near and mostly_refused(result, unwanted) and replanned(run, result, unwanted, progress, clock):
            continue
        with progress.stage(f"mending {len(unwanted)} GPUs, round {round_ + 1}"):
            if not mended(run, result, unwanted, known, round_ + 1, clock):
                break
    return checked


def corrected(result: Result, checked: Verification) -> None:
    """Brings the planning model to the level of the hours that were simulated of this workload."""
    assert result.placement is not None
    levels = levels_told(result.problem, result.placement, checked)
    if levels is None:
        return
    assert isinstance(result.problem.model, Judge)
    before = levels_of(result.problem.model)
    result.problem, result.original = at_levels(result.problem, levels), at_levels(result.original, levels)
    change = least_change(before, levels)
    result.bound = bound_at_level(result.original, result.bound, change)
    result.bound_outer = bound_at_level(result.original, result.bound_outer, change)
    factor = least_factor(result.original, change)
    result.price_tables = {name: table.scaled(factor) for name, table in result.price_tables.items()}
    result.levels = levels


def key_of(gpu: GpuAssignment) -> Key:
    return gpu.option, frozenset(gpu.items)


def judged(
    run: Run,
    result: Result,
    placement: Placement,
    known: dict[Key, ColumnVerdict],
    round_: int,
    stop_at_refuted: bool,
    progress: Progress,
    clock: Clock,
) -> Verification:
    """Verdicts of all GPUs; those accepted before keep theirs, and new ones join them."""
    assert run.verifier is not None
    columns = placement.columns(result.problem)
    open_ = [k for k, gpu in enumerate(placement.gpus) if key_of(gpu) not in known]
    found: dict[int, ColumnVerdict] = {}
    if open_:
        text = f"verification, {len(open_)} GPUs" + (f", round {round_ + 1}" if round_ else "")
        with progress.stage(text) as step:
            checked = run.verifier.columns(
                [columns[k] for k in open_],
                run.calibrations,
                run.constraint,
                round_=round_,
                progress=step,
                stop_at_refuted=stop_at_refuted,
                deadline=clock.deadline,
            )
        if any(v.reason == OUT_OF_TIME for v in checked.gpus):
            clock.cut["verification"] = None
        found = dict(zip(open_, checked.gpus, strict=True))
    for k, verdict in found.items():
        if verdict.accepted:
            known[key_of(placement.gpus[k])] = verdict
    return Verification(tuple(found[k] if k in found else known[key_of(gpu)] for k, gpu in enumerate(placement.gpus)))


def mended(
    run: Run, result: Result, unwanted: Sequence[int], known: dict[Key, ColumnVerdict], round_: int, clock: Clock
) -> bool:
    """Another placement in which these GPUs carry less; False, with a warning, where none was found."""
    assert result.placement is not None
    gpus = [result.placement.gpus[k] for k in unwanted]
    problem = replace(warned(result.problem, gpus), trusted=frozenset(known))
    most = int(min(problem.stock.sum(), len(problem.items)))
    began, limit_s = timing.now(), clock.left_s(MENDING)
    with clock.phase("mending"):
        asked = own_loads(run, problem, gpus, began + 0.5 * limit_s, round_) if round_ > 1 else {}
        if asked and result.room_asked:
            # The workload is at fault, not these GPUs: what is moved off them must not break the next ones.
            problem = with_room(problem, room_of(problem, gpus, asked))
        found = mend(
            problem, result.placement, unwanted, round_=round_, most=most, seed=run.options.seed,
            deadline=began + limit_s, shares={unwanted[k]: share for k, share in asked.items()},
        )  # fmt: skip
        if found is None:
            found = solved_again(run, result, problem, limit_s)
    result.rounds += 1
    result.solver_s += timing.now() - began
    if found is None:
        result.warnings.append("no placement was found in which the GPUs that the twin did not accept carry less")
        return False
    if problem.max_gpus is not None and len(found.gpus) > problem.max_gpus:
        result.warnings.append(
            f"the fleet grew from {problem.max_gpus} to {len(found.gpus)} GPUs, because the twin did not accept "
            f"{len(unwanted)} of them"
        )
        problem = replace(problem, max_gpus=len(found.gpus))
        result.original = replace(result.original, max_gpus=len(found.gpus))
    # Verdicts belong to the placement before; Ctrl-C may come between two lines.
    result.verification, result.simulated_objective, result.simulated_terms = None, None, {}
    result.placement, result.problem = found, problem
    return True


def solved_again(run: Run, result: Result, problem: PlacementProblem, limit_s: float) -> Placement | None:
    """What the solver itself makes of the problem, where mending found nothing."""
    if not run.solver.capabilities.refuted_columns:
        return None
    report = run.solver.solve(problem, time_limit_s=limit_s, warm_start=result.placement)
    if report.termination == "interrupted":
        raise KeyboardInterrupt
    return report.placement


def with_peaks(run: Run, result: Result, checked: Verification) -> Verification:
    """The verdicts with the busiest windows of a workload whose rates change."""
    peaks = getattr(run.verifier, "peaks", None)
    if peaks is None or result.placement is None:
        return checked
    shares = [[float(result.problem.item_share[i]) for i in gpu.items] for gpu in result.placement.gpus]
    found = peaks(
        result.placement.columns(result.problem),
        run.calibrations,
        run.constraint,
        recording=run.workload.recording,
        shares=shares,
    )
    return replace(checked, peaks=found)


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
