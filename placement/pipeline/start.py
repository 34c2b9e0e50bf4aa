"""The start of the search: a first placement by greedy, or what runs today where that is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from placement.config import Run
from placement.pipeline.clock import Clock
from placement.pipeline.proofs import refuse_impossible
from placement.problem.objectives import GpuCount
from placement.problem.problem import Placement, PlacementProblem, evaluate, violations
from placement.report.result import Result
from placement.solvers.greedy import Greedy
from placement.solvers.search_state import SearchState
from placement.today.file import Today
from twin.errors import NoSolutionError

#: Share of the time left that a first placement may take.
FIRST = 0.3
#: Where nothing is found with the model's margin: how much less of it is asked for, in shares of the load.
LESS_MARGIN = (0.1, 0.25, 0.5)
#: Adapters that are looked at alone before a placement is sought, and the violation up to which one is healthy.
BUSIEST, HEALTHY = 16, 1e-6
#: Digits to which today's shares are those of the problem.
DIGITS = 4


def first_placement(
    run: Run, result: Result, problem: PlacementProblem, clock: Clock
) -> tuple[PlacementProblem, Placement | None]:
    """A greedy placement at fixed work: what is saved if nothing better comes, and the size of the fleet.

    Where no term prices GPUs and their number is not given, the fleet is `expansion` times what greedy needs.

    Raises:
        InfeasibleError: proven that no placement exists.
        NoSolutionError: the size of the fleet is unknown.
    """
    dealing = Greedy(seed=run.options.seed, local_search=False, quick=True)
    existing = existing_gpus(run)
    counted = problem
    if not run.objective.prices_gpus:
        same_price = replace(problem.context, price=dict.fromkeys(problem.context.price, 1.0))
        counted = replace(problem, terms=(GpuCount(),), context=same_price)
    limit_s = clock.left_s(FIRST)
    found: Placement | None = None
    for less in (0.0, *LESS_MARGIN):
        reserve = tuple(-less for _ in problem.options) if less and problem.model is not None else problem.reserve
        if less < LESS_MARGIN[-1] and too_busy_alone(replace(counted, reserve=reserve)):
            continue
        with clock.phase("the first placement"):
            found = dealing.solve(replace(counted, reserve=reserve), time_limit_s=limit_s).placement
        if found is not None or problem.model is None or (less and clock.out_of_time()):
            problem = replace(problem, reserve=reserve)
            break
    if found is not None and less:
        result.warnings.append(
            f"no placement was found that keeps the planning model's margin; this one keeps {100 * less:.0f} % of the "
            "load less"
        )
    if run.objective.prices_gpus:
        return problem, found
    if found is None and existing is None:
        refuse_impossible(problem, clock)
        raise NoSolutionError(
            "no placement was found, so the size of the fleet is unknown",
            where=f"time_limit_s = {run.options.time_limit_s:g}",
            remedy="raise time_limit_s, or give the size of the fleet with hardware.count=...",
        )
    size = run.objective.fleet_size(len(found.gpus) if found is not None else 1, existing)
    # A fleet of all GPUs that exist is limited by their stock.
    return (problem if size is None or size == existing else replace(problem, max_gpus=size)), found


def existing_gpus(run: Run) -> int | None:
    """Units of the fleet that exist, of all types; None if there are as many as needed of one."""
    counts = [t.count for t in run.gpu_types]
    return None if None in counts else sum(c for c in counts if c is not None)


def too_busy_alone(problem: PlacementProblem) -> bool:
    """Whether one of the busiest adapters is not healthy on a GPU of its own: a search would only take time."""
    if problem.model is None:
        return False
    reserve = np.array(problem.reserve or np.zeros(len(problem.options)))
    for item in np.argsort([-a.rate_req_per_s for a in problem.items], kind="stable")[:BUSIEST].tolist():
        options = np.flatnonzero(problem.allowed[item])
        alone = problem.columns_of([[item]] * len(options), options.tolist())
        if (alone.violation + reserve[options] > HEALTHY).all():
            return True
    return False


def better_start(run: Run, problem: PlacementProblem, first: Placement | None) -> Placement | None:
    """The better of a first placement and today's; today's GPUs get the settings that the planning model prefers."""
    own = None if run.today is None else _as_start(run, run.today, problem)
    if own is None or first is None:
        return first or own
    return own if evaluate(problem, own)[0] < evaluate(problem, first)[0] else first


def _as_start(run: Run, today: Today, problem: PlacementProblem) -> Placement | None:
    """Today's groups of adapters; None where they break a rule of the problem, or deal other shares than it does."""
    adapters = run.workload.adapters
    items: dict[tuple[str, float], list[int]] = {}
    for item, adapter in enumerate(problem.item_adapter.tolist()):
        key = adapters[adapter].adapter_id, round(float(problem.item_share[item]), DIGITS)
        items.setdefault(key, []).append(item)
    rates = {a.adapter_id: a.rate_req_per_s for a in adapters}
    members: list[list[int]] = []
    for column in today.columns:
        keys = [(a.adapter_id, round(a.rate_req_per_s / (rates[a.adapter_id] or 1.0), DIGITS)) for a in column.adapters]
        if not all(items.get(key) for key in keys):
            return None
        members.append([items[key].pop() for key in keys])
    members = [own for own in members if own]
    if any(items.values()) or not all(problem.allowed[own].all(axis=0).any() for own in members):
        return None
    options = [int(np.flatnonzero(problem.allowed[own].all(axis=0))[0]) for own in members]
    state = SearchState(problem, options, members)
    state.choose_options()
    placement = state.placement()
    return None if violations(problem, placement) else placement
