"""Today's placement as a start of the search: what runs is not beaten by less."""

from __future__ import annotations

import numpy as np

from placement.config import Run
from placement.problem.problem import Placement, PlacementProblem, evaluate, violations
from placement.solvers.search_state import SearchState
from placement.today.file import Today

#: Shares that differ by less are the same.
DIGITS = 4


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
