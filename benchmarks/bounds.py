"""How near are bounds to plans, and do they hold?

    python -m benchmarks.bounds [data=FOLDER] [cases=[default:latency:3,...]] [time_limit_s=60] [solvers=[greedy,milp]]
        [columns=1000]

A row is a workload (`benchmarks.workloads`), an objective and a number of GPUs (0 = as many as needed): the best plan
of the solvers, the bound (`placement.solvers.bounds.proven_bound`, told the best plan, and told nothing), the bound of
the pieces alone, and the gap. Then what the bounds rest on is tested on columns that they have not seen: of fresh
random healthy columns and of the plans' GPUs, the share for which the pieces on the optimistic side of the model
(`below`) do not lie below it, and the share that is worth more than it costs at the prices of the bound. The last line
is JSON; `bounds_above_plans` counts bounds above a plan: it has to be 0.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from benchmarks.solvers import MAX_LORAS, MAX_RANKS
from benchmarks.workloads import named_workload
from placement.problem.build import build_problem
from placement.problem.objectives import GpuCount, MeanE2E
from placement.problem.problem import Placement, PlacementProblem, Term, evaluate
from placement.problem.solver import Solver
from placement.solvers.bounds import Bound, bounding, prove_bound, proven_bound
from placement.solvers.greedy import Greedy
from placement.solvers.milp import MilpSolver
from placement.solvers.pool import HEALTHY, ColumnPool
from surrogates.pieces.model import load_planning_model
from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError
from twin.figures.health import Stable
from twin.server.calibration import load_calibration
from twin.server.memory import memory_error
from twin.server.settings import setting_grid

Indices = NDArray[np.int64]

CASES = (
    "default:latency:3", "published_192:latency:3", "servegen_40:latency:3", "published_384:latency:5",
    "power_law_1000_150:gpu_count:0",
)  # fmt: skip
OBJECTIVES: dict[str, tuple[Term, ...]] = {"latency": (MeanE2E(),), "gpu_count": (GpuCount(),)}
SOLVERS: dict[str, Solver] = {"greedy": Greedy(), "milp": MilpSolver()}
CALIBRATION = "llama-3.1-8b-h100-64gb"


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments."""

    cases: tuple[str, ...] = CASES
    solvers: tuple[str, ...] = ("greedy", "milp")
    data: str = ""
    columns: Annotated[int, Range(0)] = 1000
    time_limit_s: Annotated[float, Range(above=0, high=86_400, unit="seconds")] = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """One case; shares of columns for which a bound's assumption fails, NaN = none were looked at.

    Args:
        plan: best objective. bound: told of the best plan. alone: told of none. pieces: of the pieces alone.
        seconds, cpu_s: for `bound`.
        rests_on: columns that `bound` looked at.
        above: how many of the three bounds are above a plan.
        pieces_fail, prices_fail: shares of fresh random columns. plans_fail: share of GPUs of plans, of the pieces.
    """

    case: str
    plan: float
    bound: float
    alone: float
    pieces: float
    gap: float
    seconds: float
    cpu_s: float
    rests_on: int
    above: int
    pieces_fail: float
    prices_fail: float
    plans_fail: float


def named_problem(case: str, data: str) -> PlacementProblem:
    """Of `workload:objective:GPUs`."""
    try:
        name, objective, gpus = case.split(":")
        terms, most = OBJECTIVES[objective], int(gpus) or None
    except (ValueError, KeyError):
        raise InputError(f"case {case!r} is not workload:objective:GPUs", remedy="e.g. default:latency:3") from None
    calibration, health = load_calibration(CALIBRATION), Stable()
    settings = [
        s
        for s in setting_grid((calibration.stamp.gpu_type,), MAX_LORAS, MAX_RANKS)
        if memory_error(s, calibration) is None
    ]
    workload = named_workload(name, data)
    gpu = replace(calibration.gpu, name=calibration.stamp.gpu_type)
    return build_problem(
        workload, load_planning_model(calibration, workload, health), settings, (gpu,), terms, max_gpus=most
    )


def measured(case: str, options: Options) -> Row:
    problem = named_problem(case, options.data)
    plans = [SOLVERS[s].solve(problem, time_limit_s=options.time_limit_s).placement for s in options.solvers]
    found: list[Placement] = [p for p in plans if p is not None]
    if not found:
        raise InputError(f"no solver found a plan of {case}", remedy="allow more GPUs or time")
    best = min(found, key=lambda p: evaluate(problem, p)[0])
    wall, cpu = time.perf_counter(), time.process_time()
    bound = proven_bound(problem, options.time_limit_s, known=[best])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    alone = proven_bound(problem, options.time_limit_s)
    pieces = prove_bound(bounding(problem), options.time_limit_s)
    if bound is None or alone is None or pieces is None:
        raise InputError(f"no bound of {case} was found", remedy="allow more time")
    plan = evaluate(problem, best)[0]
    above = sum(b > plan * (1 + 1e-9) for b in (bound.value, alone.value, pieces))
    pool = ColumnPool(problem, np.random.default_rng(2**31))
    fresh = -(-options.columns // len(problem.options))
    groups = [(o, g) for o in range(len(problem.options)) for g in pool.random(o, fresh)]
    used = [(gpu.option, np.array(gpu.items)) for p in found for gpu in p.gpus]
    return Row(
        case, plan, bound.value, alone.value, pieces, 1.0 - bound.value / plan, wall, cpu, bound.columns, above,
        pieces_fail(problem, groups), prices_fail(problem, bound, groups), pieces_fail(problem, used),
    )  # fmt: skip


def pieces_fail(problem: PlacementProblem, columns: Sequence[tuple[int, Indices]]) -> float:
    """Share of the healthy ones among columns for which the pieces of `below` are above the model."""
    said = problem.columns_of([g.tolist() for _, g in columns], [o for o, _ in columns])
    wrong = []
    for k in np.flatnonzero(said.violation <= HEALTHY).tolist():
        option, items = columns[k]
        below, phi = problem.below[option], problem.phi[items].sum(axis=0)[None]
        loads = ((below.requests_in_system, said.requests_in_system), (below.requests_decoding, said.decoding))
        above = any(float(load(phi)[0]) > float(exact[k]) * (1 + 1e-9) for load, exact in loads)
        wrong.append(above or float(below.violation(phi)[0]) > HEALTHY)
    return float(np.mean(wrong)) if wrong else math.nan


def prices_fail(problem: PlacementProblem, bound: Bound, columns: Sequence[tuple[int, Indices]]) -> float:
    """Share of the healthy ones among columns that are worth more than they cost at the prices of a bound."""
    if bound.cuts is None:
        return math.nan
    pool = ColumnPool(problem, np.random.default_rng(0))
    wrong = []
    for option, items in columns:
        cost = float(pool.look(option, [items])[0])
        if math.isfinite(cost):
            worth = float(bound.cuts.slope[option, items].sum() + bound.cuts.constant[option])
            wrong.append(worth > cost + 1e-9 * abs(cost))
    return float(np.mean(wrong)) if wrong else math.nan


def run(options: Options) -> int:
    print(
        f"{'case':32s} {'plan':>8s} {'bound':>8s} {'gap %':>6s} {'alone':>8s} {'pieces':>8s} {'s':>6s} {'CPU s':>6s} "
        f"{'columns':>8s} {'pieces fail %':>13s} {'prices fail %':>13s} {'on plans %':>10s}"
    )
    rows = []
    for case in options.cases:
        row = measured(case, options)
        rows.append(row)
        print(
            f"{row.case:32s} {row.plan:8.4f} {row.bound:8.4f} {100 * row.gap:6.2f} {row.alone:8.4f} {row.pieces:8.4f} "
            f"{row.seconds:6.1f} {row.cpu_s:6.1f} {row.rests_on:8d} {100 * row.pieces_fail:13.2f} "
            f"{100 * row.prices_fail:13.2f} {100 * row.plans_fail:10.1f}",
            flush=True,
        )
    print(json.dumps({"rows": [asdict(r) for r in rows], "bounds_above_plans": sum(r.above for r in rows)}))
    return 0


APP = command("benchmarks.bounds", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
