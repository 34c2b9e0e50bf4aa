"""The first version's rule of acceptance, for comparison: means at a 99.9 % limit after 3, 6 and 12 hours.

What was open then was refuted, and a mean without spread *was* its limit: three clean hours were proof of everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from twin.confidence.sequential import looks, mean_limit
from twin.figures.health import Constraint, Requirement

LOOKS, ERROR = tuple(looks(3, 12)), 0.001


def old_accepts(hour: Callable[[int], Any], constraint: Constraint) -> bool:
    """Whether the rule accepts a GPU; `hour(n)` is the result of its n-th hour."""
    results: list[Any] = []
    for count in LOOKS:
        results += [hour(n) for n in range(len(results), count)]
        if constraint.broken(results):
            return False
        decisions = {old_decision(r, ERROR / len(LOOKS)) for r in constraint.requirements(results)}
        if "refuted" in decisions:
            return False
        if "open" not in decisions:
            return True
    return False


def old_decision(requirement: Requirement, alpha: float) -> str:
    """`accepted`, `refuted` or `open`, at this error probability."""
    values, limit, at_most = requirement.values, requirement.limit, requirement.at_most
    if not np.isfinite(values).all():
        return "refuted"
    worst = mean_limit(values, alpha, upper=at_most)
    if worst <= limit if at_most else worst >= limit:
        return "accepted"
    best = mean_limit(values, alpha, upper=not at_most)
    broken = best > limit if at_most else best < limit
    always = (values > limit).all() if at_most else (values < limit).all()
    return "refuted" if broken or always else "open"
