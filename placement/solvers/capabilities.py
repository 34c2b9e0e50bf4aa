"""The capability sheet: what each solver supports. It decides who is refused, before anything is built."""

from __future__ import annotations

from placement.problem.objectives import GpuCount, without_convex_form
from placement.problem.problem import PlacementProblem
from placement.problem.solver import Capabilities, Solver
from twin.errors import InputError

#: Solver -> what it supports, in the order in which they are recommended. A solver of your own carries its own sheet.
SHEET = {
    # Its milp proves a bound where it takes the terms; the sheet names what always holds.
    "portfolio": Capabilities(max_terms=True, non_convex_terms=True),
    "milp": Capabilities(bound=True),
    "cpsat": Capabilities(bound=True, max_terms=True),
    "greedy": Capabilities(max_terms=True, non_convex_terms=True),
    "greedy_published": Capabilities(
        max_terms=True, non_convex_terms=True, gpu_count_only=True, refuted_columns=False, pins=False
    ),
}


def refuse(problem: PlacementProblem, solver: Solver) -> None:
    """Refuses a problem that a solver does not support; called before the solver builds anything.

    Raises:
        InputError: names what is not supported and the solvers that support it.
    """
    missing = unsupported(problem, solver.capabilities)
    if not missing:
        return
    others = [
        f"solver={name}"
        for name, sheet in SHEET.items()
        if name != solver.name and not sheet.gpu_count_only and not unsupported(problem, sheet)
    ]
    if solver.capabilities.gpu_count_only and not _counts_gpus(problem):
        others.insert(0, "+objective=gpu_count")
    raise InputError(
        f"solver {solver.name} cannot {missing}",
        where="objective, solver",
        remedy=f"use {' or '.join(filter(None, (', '.join(others[:-1]), others[-1])))}"
        if others
        else "leave it out: no solver supports it",
    )


def unsupported(problem: PlacementProblem, sheet: Capabilities) -> str:
    """The first thing of a problem that a sheet does not cover, after "cannot"; empty if it covers everything."""
    if sheet.gpu_count_only and not _counts_gpus(problem):
        return f"optimise {' + '.join(t.name for t in problem.terms)}: it only minimises the number of GPUs"
    for term in problem.terms:
        if term.aggregate == "max" and not sheet.max_terms:
            return f"optimise the term {term.name!r}: it is a maximum over GPUs, not a sum"
    if not sheet.non_convex_terms:
        for name in without_convex_form(problem, relaxed=sheet.max_terms):
            return f"optimise the term {name!r}: it has no convex form summed over GPUs"
    if problem.banned and not sheet.refuted_columns:
        return "avoid columns that the twin refuted"
    if (problem.pin_of >= 0).any() and not sheet.pins:
        return "keep pinned adapters on their GPUs"
    return ""


def _counts_gpus(problem: PlacementProblem) -> bool:
    return any(isinstance(t, GpuCount) for t in problem.terms)
