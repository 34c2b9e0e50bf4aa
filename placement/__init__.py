"""LoRA adapters on GPUs: the fewest GPUs, or the lowest latency, proven and verified.

    from placement import place
    result = place("adapters.csv", "latency", overrides=["hardware.count=8"])
    print(result, result.to_dict()["gpus"])
    result.write("out")

`place` is what `python -m placement` does. `Term`, `PlacementProblem` and `Solver` are what an objective term or a
solver of your own implements or gets; `evaluate` and `violations` judge any placement from outside.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from placement.command import place
    from placement.problem.objectives import GpuCount, MeanE2E, MeanItl, MeanTtft, Objective, TailE2E
    from placement.problem.problem import (
        GpuAssignment,
        ObjectiveContext,
        Placement,
        PlacementProblem,
        Term,
        evaluate,
        violations,
    )
    from placement.problem.solver import Capabilities, Solver, SolveReport
    from placement.report.result import Result
    from twin.errors import InfeasibleError, InputError, NoSolutionError, PlacementError

#: Public names and where they are; loaded when they are asked for, so that importing the package costs nothing.
_HOME = {
    "placement.command": ("place",),
    "placement.problem.objectives": ("GpuCount", "MeanE2E", "MeanItl", "MeanTtft", "Objective", "TailE2E"),
    "placement.problem.problem": (
        "GpuAssignment", "ObjectiveContext", "Placement", "PlacementProblem", "Term", "evaluate", "violations",
    ),
    "placement.problem.solver": ("Capabilities", "SolveReport", "Solver"),
    "placement.report.result": ("Result",),
    "twin.errors": ("InfeasibleError", "InputError", "NoSolutionError", "PlacementError"),
}  # fmt: skip

__all__ = [
    "Capabilities",
    "GpuAssignment",
    "GpuCount",
    "InfeasibleError",
    "InputError",
    "MeanE2E",
    "MeanItl",
    "MeanTtft",
    "NoSolutionError",
    "Objective",
    "ObjectiveContext",
    "Placement",
    "PlacementError",
    "PlacementProblem",
    "Result",
    "SolveReport",
    "Solver",
    "TailE2E",
    "Term",
    "evaluate",
    "place",
    "violations",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
