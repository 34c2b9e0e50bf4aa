"""Errors that a user can act on.

    PlacementError                  exit code
    ├── InputError                  2   a value, file or option is wrong
    │   └── DoesNotFitError         2   a model is too large for a GPU
    ├── InfeasibleError             3   proven: no placement exists
    └── NoSolutionError             4   none found within the limits

Every message names the offending value, where it came from and what to do next.
"""

from __future__ import annotations


class PlacementError(Exception):
    """Base of all errors that are shown to a user without a traceback."""

    exit_code = 1


class InputError(PlacementError):
    """A value is wrong.

    Args:
        problem: what is wrong, with the offending value.
        where: file and line, option or object that the value came from.
        remedy: what to do next.
    """

    exit_code = 2

    def __init__(self, problem: str, *, where: str = "", remedy: str = "") -> None:
        self.problem, self.where, self.remedy = problem, where, remedy
        lines = [problem]
        if where:
            lines.append(f"  where:  {where}")
        if remedy:
            lines.append(f"  remedy: {remedy}")
        super().__init__("\n".join(lines))


class DoesNotFitError(InputError):
    """A model does not fit into the memory of a GPU; where there are other types of GPU, these may do."""


class InfeasibleError(InputError):
    """No placement exists; the message names adapters, constraint and the smallest change that helps."""

    exit_code = 3


class NoSolutionError(InputError):
    """No placement was found within the limits; one may exist."""

    exit_code = 4
