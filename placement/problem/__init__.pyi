"""The public names of `placement.problem` and where each comes from."""

from .build import build_problem as build_problem
from .classes import ItemClasses as ItemClasses, item_classes as item_classes
from .objectives import (
    GpuCount as GpuCount,
    MeanE2E as MeanE2E,
    MeanItl as MeanItl,
    MeanTtft as MeanTtft,
    Objective as Objective,
    TailE2E as TailE2E,
    objective as objective,
)
from .problem import (
    GpuAssignment as GpuAssignment,
    ObjectiveContext as ObjectiveContext,
    Placement as Placement,
    PlacementProblem as PlacementProblem,
    Term as Term,
    evaluate as evaluate,
    violations as violations,
)
from .refuted import tighten as tighten
from .rows import ColumnRows as ColumnRows, column_rows as column_rows
from .solver import (
    Capabilities as Capabilities,
    Solver as Solver,
    SolveReport as SolveReport,
    relative_gap as relative_gap,
)
