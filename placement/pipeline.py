"""The main job: workload -> settings -> problem -> solver -> verification -> tightening -> result.

The order of the functions below is the order of the job. Every solver gets the same problem; `bound` belongs to the
planning model with its margin, before any tightening.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from placement.build import build_problem
from placement.config import Run
from placement.margin import WithMargin
from placement.objectives import GpuCount, relaxed_terms
from placement.problem import (
    GpuAssignment,
    Placement,
    PlacementProblem,
    SolveReport,
    evaluate,
    relative_gap,
    violations,
)
from placement.solvers.aggregate import Aggregate
from placement.tightening import tighten
from placement.verify import Verification, Verifier
from surrogates.planning import affine_load
from twin.column import Column
from twin.errors import InfeasibleError, InputError, NoSolutionError
from twin.memory import memory_error
from twin.settings import EngineSetting

Status = Literal["verified", "unverified", "infeasible", "no_solution"]


class Progress(Protocol):
    """Where the job says how far it is; see `placement.report.progress`."""

    def stage(self, text: str) -> AbstractContextManager[Advance]: ...


class Advance(Protocol):
    """Called with (done, total)."""

    def __call__(self, done: int, total: int) -> None: ...


@dataclass(slots=True)
class Result:
    """Everything that is reported about a run.

    Args:
        problem: the last one solved, tightened by verification.
        original: the one before tightening; bounds and the objective belong to it.
        bound: lower bound for every placement under the planning model with its margin; None = none claimed.
        bound_outer: the same without the margin.
        bound_tightened: the same with what verification taught; equals `bound` if it taught nothing.
        gap: (objective - bound) / |objective|.
        rounds: times the solver ran.
        history: per round, GPUs, objective and number of refuted GPUs.
    """

    status: Status
    termination: str
    solver: str
    problem: PlacementProblem
    original: PlacementProblem
    placement: Placement | None = None
    objective: float = math.nan
    terms: dict[str, float] = field(default_factory=dict)
    bound: float | None = None
    bound_outer: float | None = None
    bound_tightened: float | None = None
    gap: float | None = None
    simulated_objective: float | None = None
    simulated_terms: dict[str, float] = field(default_factory=dict)
    verification: Verification | None = None
    solver_s: float = 0.0
    runtime_s: float = 0.0
    rounds: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    details: dict[str, float | str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    certified_minimum: int | None = None

    @property
    def gpus(self) -> tuple[GpuAssignment, ...]:
        return self.placement.gpus if self.placement is not None else ()


def fitting_settings(run: Run) -> tuple[tuple[EngineSetting, ...], list[str]]:
    """Settings under which vLLM starts and that the planning model knows, and a note on those it does not.

    Raises:
        InputError: none is left.
    """
    refused = {s: memory_error(s, run.calibration) for s in run.settings}
    fitting = tuple(s for s, problem in refused.items() if problem is None)
    if not fitting:
        smallest = min(refused, key=lambda s: s.max_loras * s.max_lora_rank)
        raise InputError(
            f"no engine setting fits into the memory of {run.gpu.name}: {smallest.label}: {refused[smallest]}",
            where="engine.max_loras, engine.max_lora_rank",
            remedy="allow fewer slots or lower ranks, a smaller engine.max_model_len, or a GPU with more memory",
        )
    known, unknown = [], []
    for setting in fitting:
        try:
            run.planning.option(setting)
            known.append(setting)
        except InputError as error:
            unknown.append((setting, error))
    if not known:
        raise unknown[0][1]
    if not unknown:
        return tuple(known), []
    labels = ", ".join(s.label for s, _ in unknown[:4]) + (", ..." if len(unknown) > 4 else "")
    return tuple(known), [f"{len(unknown)} settings left out ({labels}): {unknown[0][1].problem}"]


def prove_bound(problem: PlacementProblem, time_limit_s: float) -> float | None:
    """Lower bound for every placement under the problem's facets, from the price list; None if there is none."""
    terms = relaxed_terms(problem.terms)
    relaxed = replace(problem, terms=terms)
    if any(t.aggregate != "sum" or t.convex(o, problem.context) is None for t in terms for o in problem.options):
        return None
    aggregate = Aggregate(relaxed)
    aggregate.prove(time_limit_s)
    return aggregate.bound


def certified_minimum(problem: PlacementProblem, time_limit_s: float) -> int | None:
    """Fewest GPUs that any placement needs under the planning model; None if that could not be proven."""
    price = dict.fromkeys(problem.context.price, 1.0)
    counted = replace(
        problem, terms=(GpuCount(),), context=replace(problem.context, price=price), max_gpus=None, banned=()
    )
    bound = prove_bound(counted, time_limit_s)
    return None if bound is None else max(1, math.ceil(bound - 1e-6))


def outer(problem: PlacementProblem) -> PlacementProblem:
    """The optimistic side: facets without the margin."""
    return replace(problem, options=tuple(replace(o, feasible=o.outer) for o in problem.options), banned=())


def place(run: Run, progress: Progress) -> Result:
    """Computes, certifies and verifies a placement.

    Raises:
        InfeasibleError: proven that none exists under the planning model.
        NoSolutionError: none was found within the limits.
    """
    began = time.perf_counter()
    with progress.stage("planning model"):
        settings, left_out = fitting_settings(run)
        margin = run.constraint.margin
        planning = run.planning if margin is None else WithMargin(run.planning, margin)
        problem = build_problem(run.workload, planning, settings, (run.gpu,), run.objective.terms)
        minimum = certified_minimum(problem, run.options.time_limit_s)
        problem = with_fleet(run, problem, minimum)
    result = Result("no_solution", "time_limit", run.solver.name, problem, problem, certified_minimum=minimum)
    result.warnings += [*run.notes, *left_out]
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
            verify_and_tighten(run, run.verifier, result, progress)
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
    result.warnings += calibration_warnings(run, result.placement.columns(result.original))
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
        refuse(run, result, problem, report)
    result.placement = report.placement
    result.bound_tightened = report.bound
    return report


def refuse(run: Run, result: Result, problem: PlacementProblem, report: SolveReport) -> None:
    """Explains why there is no placement."""
    if report.termination == "interrupted":
        raise KeyboardInterrupt
    if report.status == "infeasible":
        result.status = "infeasible"
        from placement.explain import infeasible_error

        raise infeasible_error(problem)
    raise NoSolutionError(
        f"solver {report.solver} found no placement ({report.termination}, {report.runtime_s:.1f} s)",
        where=f"time_limit_s = {run.options.time_limit_s:g}",
        remedy="raise time_limit_s, try solver=greedy, or allow more GPUs (hardware.count)",
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
        from twin.simulate import simulate

        item = int(np.argmin([a.rate_req_per_s for a in problem.items]))
        option = int(np.argmax(problem.allowed[item]))
        simulate(Column((problem.items[item],), problem.options[option].setting), run.calibration, horizon_s=60.0)

    thread = threading.Thread(target=load_twin if run.verifier is not None else lambda: None, daemon=True)
    thread.start()
    return thread


def verify_and_tighten(run: Run, verifier: Verifier, result: Result, progress: Progress) -> None:
    """Simulates, tightens what was refuted and solves again, a bounded number of rounds."""
    rounds = getattr(verifier, "max_rounds", 0)
    for round_ in range(rounds + 1):
        assert result.placement is not None
        columns = result.placement.columns(result.problem)
        with progress.stage(f"verification, {len(columns)} GPUs" + (f", round {round_ + 1}" if round_ else "")) as step:
            checked = verifier.columns(columns, run.calibration, run.constraint, round_=round_, progress=step)
        result.verification = checked
        result.simulated_objective, result.simulated_terms = simulated_objective(result, checked)
        result.history.append(
            {
                "gpus": len(columns),
                "objective": evaluate(result.problem, result.placement)[0],
                "refuted": len(checked.refuted),
            }
        )
        if checked.passed:
            result.status = "verified"
            return
        if round_ == rounds or result.termination == "interrupted":
            break
        problem = tighten(result.problem, [result.placement.gpus[k] for k in checked.refuted], round_ + 1)
        with progress.stage(f"solver {run.solver.name}, round {round_ + 2}"):
            try:
                solve(run, result, widened(run, result, problem), result.placement)
                if result.bound_tightened is None:
                    result.bound_tightened = prove_bound(result.problem, run.options.time_limit_s)
            except (InfeasibleError, NoSolutionError) as error:
                result.warnings.append(
                    f"after tightening, no placement was found that the twin might accept: {error.problem}"
                )
                break
    result.status = "unverified"
    refuted = checked.refuted
    result.warnings.append(
        f"the twin did not accept {len(refuted)} of {len(result.gpus)} GPUs: {checked.gpus[refuted[0]].reason}"
    )


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


def simulated_objective(result: Result, verification: Verification) -> tuple[float | None, dict[str, float]]:
    """The objective with the twin's loads in place of the planning model's.

    Little's law makes loads of the simulated means: requests in system = rate x E2E, requests decoding = output
    tokens/s x ITL. So a term needs no second definition, and GPUs are weighted by their traffic.
    """
    assert result.placement is not None
    problem, placement = result.problem, result.placement
    phi = placement.features(problem)
    values: dict[str, float] = {}
    total = 0.0
    for term in problem.terms:
        costs = []
        for k, column in enumerate(placement.columns(problem)):
            metrics = verification.gpus[k].simulated
            tokens_per_s = math.fsum(a.rate_req_per_s * a.output_tokens.mean for a in column.adapters)
            flat = np.zeros(phi.shape[1])
            option = replace(
                problem.options[placement.gpus[k].option],
                requests_in_system=affine_load(flat, column.rate_req_per_s * metrics["e2e_mean_s"]),
                requests_decoding=affine_load(flat, tokens_per_s * metrics["itl_mean_ms"] / 1000),
            )
            costs.append(float(term.cost(option, phi[k : k + 1], problem.context)[0]))
        values[term.name] = sum(costs) if term.aggregate == "sum" else max(costs)
        total += term.weight * values[term.name] / term.scale
    return (total if math.isfinite(total) else None), values


def predicted_metrics(problem: PlacementProblem, gpu: GpuAssignment) -> dict[str, float]:
    """What the planning model says about one GPU, in the names of `twin.prediction.Prediction` where they exist."""
    option = problem.options[gpu.option]
    items = [problem.items[i] for i in gpu.items]
    phi = problem.phi[list(gpu.items)].sum(axis=0)[None]
    rate = math.fsum(a.rate_req_per_s for a in items)
    out_tps = math.fsum(a.rate_req_per_s * a.output_tokens.mean for a in items)
    in_tps = math.fsum(a.rate_req_per_s * a.prompt_tokens.mean for a in items)
    in_system, decoding = float(option.requests_in_system(phi)[0]), float(option.requests_decoding(phi)[0])
    return {
        "rate_req_per_s": rate,
        "load": load(option.feasible.G @ phi[0], option.feasible.g),
        "in_throughput_tps": in_tps,
        "out_throughput_tps": out_tps,
        "throughput_tps": in_tps + out_tps,
        "e2e_mean_s": in_system / rate,
        "itl_mean_ms": 1000 * decoding / out_tps,
        "ttft_mean_s": max(0.0, in_system - decoding) / rate,
        "requests_in_system": in_system,
        "running": decoding,
    }


def load(used: np.ndarray, limits: np.ndarray) -> float:
    """Share of the allowed load that is used, by the tightest facet `used <= -limits`; NaN without facets."""
    usable = limits < 0
    return float((used[usable] / -limits[usable]).max()) if usable.any() else math.nan


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
