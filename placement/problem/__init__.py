"""The placement problem, free of any solver: what is placed, under which settings, and what a placement is judged by.

`build` makes a `PlacementProblem` of a workload; hot adapters become `replicas`. `problem` holds it and judges
placements, `objectives` its terms, `solver` what is asked of a solver. `classes` (adapters alike) and `rows` (rules
and costs as scaled arrays) are what solvers compute with; `refuted` is what verification teaches.
"""

from placement.problem.build import build_problem
from placement.problem.classes import ItemClasses, item_classes
from placement.problem.objectives import GpuCount, MeanE2E, MeanItl, MeanTtft, Objective, TailE2E, objective
from placement.problem.problem import (
    GpuAssignment,
    ObjectiveContext,
    Placement,
    PlacementProblem,
    Term,
    evaluate,
    violations,
)
from placement.problem.refuted import tighten
from placement.problem.rows import ColumnRows, column_rows
from placement.problem.solver import Capabilities, Solver, SolveReport, relative_gap

__all__ = [
    "Capabilities",
    "ColumnRows",
    "GpuAssignment",
    "GpuCount",
    "ItemClasses",
    "MeanE2E",
    "MeanItl",
    "MeanTtft",
    "Objective",
    "ObjectiveContext",
    "Placement",
    "PlacementProblem",
    "SolveReport",
    "Solver",
    "TailE2E",
    "Term",
    "build_problem",
    "column_rows",
    "evaluate",
    "item_classes",
    "objective",
    "relative_gap",
    "tighten",
    "violations",
]
