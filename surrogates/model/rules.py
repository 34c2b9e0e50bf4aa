"""Names of the constraint options and their verdict on simulated columns (`twin.figures.health` owns the rules)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from twin.errors import InputError
from twin.figures import health
from twin.simulation import SimulationResult

Rule = Literal["stable", "published"]
RULES: tuple[Rule, ...] = get_args(Rule)


def is_healthy(results: Sequence[SimulationResult], rule: Rule) -> bool:
    """Verdict on one column from one or several seeds, pooled."""
    return health.RULES[rule](results).healthy


def check_rule(rule: str) -> Rule:
    """Narrows a configured name."""
    for known in RULES:
        if rule == known:
            return known
    raise InputError(f"constraint {rule!r} is not known", remedy=f"choose one of: {', '.join(RULES)}")
