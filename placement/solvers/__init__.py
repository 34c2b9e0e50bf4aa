"""Solvers, one file each: `milp`, `cpsat`, `greedy` and, as a baseline, `greedy_published`.

What they share: `capabilities` decides what a solver is asked; `aggregate` (the class model, built by `perspective`,
solved by `highs`) proves a bound by a `certificate`, and `settings` takes whole GPUs from it; `packing` and
`assignment` put class members on them, `dealing` individual adapters; `lpt`, `local_search` and `search_state` build
and improve placements, of which an `incumbent` is the best. `bounds` says for any problem what no placement beats,
`explain` why none exists.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from placement.solvers.bounds import certified_minimum, prove_bound
    from placement.solvers.capabilities import SHEET, refuse
    from placement.solvers.cpsat import CpSat
    from placement.solvers.explain import infeasible_error
    from placement.solvers.greedy import Greedy
    from placement.solvers.greedy_published import GreedyPublished
    from placement.solvers.milp import MilpSolver

#: Public names and where they are; a solver's library is loaded when that solver is asked for.
_HOME = {
    "bounds": ("certified_minimum", "prove_bound"),
    "capabilities": ("SHEET", "refuse"),
    "cpsat": ("CpSat",),
    "explain": ("infeasible_error",),
    "greedy": ("Greedy",),
    "greedy_published": ("GreedyPublished",),
    "milp": ("MilpSolver",),
}

__all__ = [
    "SHEET",
    "CpSat",
    "Greedy",
    "GreedyPublished",
    "MilpSolver",
    "certified_minimum",
    "infeasible_error",
    "prove_bound",
    "refuse",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
