"""The public names of `placement` and where each comes from."""

import twin.errors

from .command import place as place
from .problem.objectives import (
    GpuCount as GpuCount,
    MeanE2E as MeanE2E,
    MeanItl as MeanItl,
    MeanTtft as MeanTtft,
    Objective as Objective,
    TailE2E as TailE2E,
)
from .problem.problem import (
    GpuAssignment as GpuAssignment,
    ObjectiveContext as ObjectiveContext,
    Placement as Placement,
    PlacementProblem as PlacementProblem,
    Term as Term,
    evaluate as evaluate,
    violations as violations,
)
from .problem.solver import Capabilities as Capabilities, Solver as Solver, SolveReport as SolveReport
from .report.result import Result as Result

PlacementError = twin.errors.PlacementError
InputError = twin.errors.InputError
InfeasibleError = twin.errors.InfeasibleError
NoSolutionError = twin.errors.NoSolutionError
