r"""What a placement is judged by: terms, always minimised.

    objective = sum over terms of  weight * value / scale,    value = SUM or MAX over the GPUs of cost(GPU)

`weight` is a preference without unit; `scale` has the unit of the value and says what one point is worth, e.g. 2 s of
latency against 1 GPU. Means follow from Little's law: with N requests in system and rate R per GPU, the mean E2E
latency of all requests is `sum N / sum R`, so that latency adds over GPUs. Only GPUs that hold adapters are counted.

A term is any object with the attributes of `placement.problem.problem.Term`; `docs/objectives.md` shows how to bring
one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from placement.problem.problem import Aggregate, Array, ObjectiveContext, PlacementProblem, Term, convex_of
from surrogates.model.columns import Columns
from surrogates.model.planning import HingeLoad, OptionModel, affine_load
from twin.errors import InputError


@dataclass(frozen=True, slots=True)
class GpuCount:
    """Price of the GPUs; with prices of 1, their number."""

    weight: float = 1.0
    scale: float = 1.0
    name: str = "gpu_count"
    unit: str = "GPUs"
    aggregate: Aggregate = "sum"

    def cost(self, columns: Columns, context: ObjectiveContext) -> Array:
        """Price of the GPU type for each of P columns, (P,)."""
        return np.array([context.price[s.gpu_type] for s in columns.setting])

    def convex(self, option: OptionModel, context: ObjectiveContext) -> HingeLoad:
        return affine_load(np.zeros(len(option.requests_in_system.q)), context.price[option.setting.gpu_type])


@dataclass(frozen=True, slots=True)
class MeanE2E:
    """Mean end-to-end latency over all requests, seconds: requests in system / total rate (Little's law)."""

    weight: float = 1.0
    scale: float = 1.0
    name: str = "latency"
    unit: str = "s"
    aggregate: Aggregate = "sum"

    def cost(self, columns: Columns, context: ObjectiveContext) -> Array:
        """Share of the mean that each of P columns contributes, seconds, (P,)."""
        return columns.requests_in_system / context.total_rate_req_per_s

    def convex(self, option: OptionModel, context: ObjectiveContext) -> HingeLoad:
        return option.requests_in_system.scaled(1.0 / context.total_rate_req_per_s)


@dataclass(frozen=True, slots=True)
class MeanItl:
    """Mean inter-token latency over all output tokens, seconds: requests decoding / total output-token rate."""

    weight: float = 1.0
    scale: float = 1.0
    name: str = "itl"
    unit: str = "s"
    aggregate: Aggregate = "sum"

    def cost(self, columns: Columns, context: ObjectiveContext) -> Array:
        """Share of the mean that each of P columns contributes, seconds, (P,)."""
        return columns.decoding / context.total_output_tokens_per_s

    def convex(self, option: OptionModel, context: ObjectiveContext) -> HingeLoad:
        return option.requests_decoding.scaled(1.0 / context.total_output_tokens_per_s)


@dataclass(frozen=True, slots=True)
class MeanTtft:
    """Mean time to first token over all requests, seconds: (requests in system - requests decoding) / total rate.

    A request is in system from arrival to its last token and decoding from its first token on, so the difference of
    the two loads counts the requests that still wait for their first token. The difference of two convex loads is
    not convex: no certificate, and only solvers with `non_convex_terms`.
    """

    weight: float = 1.0
    scale: float = 1.0
    name: str = "ttft"
    unit: str = "s"
    aggregate: Aggregate = "sum"

    def cost(self, columns: Columns, context: ObjectiveContext) -> Array:
        """Share of the mean that each of P columns contributes, seconds, (P,); never below 0."""
        waiting = columns.requests_in_system - columns.decoding
        return np.maximum(waiting, 0.0) / context.total_rate_req_per_s

    def convex(self, option: OptionModel, context: ObjectiveContext) -> None:
        return None


@dataclass(frozen=True, slots=True)
class TailE2E:
    """Mean end-to-end latency of the worst GPU, seconds (aggregate MAX).

    Not a convex load, but never less than the mean over all GPUs: `relaxed` is that mean, which bounds it.
    """

    weight: float = 1.0
    scale: float = 1.0
    name: str = "tail"
    unit: str = "s"
    aggregate: Aggregate = "max"

    def cost(self, columns: Columns, context: ObjectiveContext) -> Array:
        """Mean E2E latency of each of P columns, seconds, (P,)."""
        return columns.requests_in_system / np.maximum(columns.rate_req_per_s, 1e-12)

    def convex(self, option: OptionModel, context: ObjectiveContext) -> None:
        return None

    def relaxed(self) -> Term:
        """A SUM term with a convex form whose value is at most this term's value for every placement."""
        return MeanE2E(self.weight, self.scale, self.name)


Fleet = Literal["minimum", "expand"]


@dataclass(frozen=True, slots=True)
class Objective:
    """Terms, and how many GPUs to use where no term puts a price on them.

    Args:
        terms: at least one.
        fleet: `expand` = the GPUs that exist, or `expansion` x the certified minimum if their number is not given;
            `minimum` = the certified minimum. Without effect if a term prices GPUs.
        expansion: factor for `expand`, >= 1.
    """

    terms: tuple[Term, ...]
    fleet: Fleet = "expand"
    expansion: float = 1.25

    @property
    def prices_gpus(self) -> bool:
        """A `GpuCount` term decides how many GPUs to use."""
        return any(isinstance(t, GpuCount) for t in self.terms)

    def fleet_size(self, certified_minimum: int, existing: int | None) -> int | None:
        """GPUs to use at most, the same for every solver; None = the terms decide.

        Args:
            certified_minimum: lower bound on the GPU count.
            existing: `hardware.count` summed over types; None if a type is unlimited.
        """
        if self.prices_gpus:
            return None
        if self.fleet == "minimum":
            return certified_minimum
        return existing if existing is not None else math.ceil(self.expansion * certified_minimum - 1e-9)


def objective(terms: Mapping[str, Term] | None = None, fleet: str = "expand", expansion: float = 1.25) -> Objective:
    """Builds an objective from a config node (`_target_` of the files under `conf/objective`).

    Args:
        terms: name -> term; the name is the key in reports. A term of weight 0 is left out.
        fleet: `expand` or `minimum`, see `Objective`.
        expansion: see `Objective`.

    Raises:
        InputError: unknown fleet, no term, or a weight or scale that makes no sense.
    """

    def wrong(problem: str, remedy: str, where: str = "objective") -> InputError:
        return InputError(problem, where=where, remedy=remedy)

    if fleet not in ("minimum", "expand"):
        raise wrong(f"fleet {fleet!r} is unknown", "use fleet: minimum or fleet: expand", "objective.fleet")
    if not (isinstance(expansion, (int, float)) and math.isfinite(expansion) and expansion >= 1):
        raise wrong(f"expansion {expansion!r} is not a number >= 1", "e.g. 1.25", "objective.expansion")
    chosen = []
    for name, term in (terms or {}).items():
        where = f"objective.terms.{name}"
        missing = [f for f in ("weight", "scale", "aggregate", "unit", "cost") if not hasattr(term, f)]
        if missing:
            raise wrong(
                f"{term!r} is not a term: it has no {missing[0]!r}",
                "give a _target_ whose object has name, unit, weight, scale, aggregate and cost(columns, context)",
                where,
            )
        for value, what, good in (
            (term.weight, "weight", "a number >= 0"),
            (term.scale, "scale", "a number > 0"),
        ):
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (what == "scale" and value == 0):
                raise wrong(f"{what} {value!r} is not {good}", "terms are minimised; use positive numbers", where)
        if term.aggregate not in ("sum", "max"):
            raise wrong(f"aggregate {term.aggregate!r} is unknown", "use sum or max", where)
        if term.weight > 0:
            chosen.append(_named(term, str(name)))
    if not chosen:
        raise wrong("the objective has no term with a positive weight", "e.g. +objective=gpu_count")
    return Objective(tuple(chosen), "minimum" if fleet == "minimum" else "expand", float(expansion))


def as_objective(value: Objective | Term) -> Objective:
    """An objective as it is; a single term as an objective."""
    return value if isinstance(value, Objective) else objective({getattr(value, "name", "objective"): value})


def _named(term: Term, name: str) -> Term:
    """The term under the name of its config key, so that two terms of one kind can stand side by side."""
    if getattr(term, "name", None) == name:
        return term
    own: Any = term
    if is_dataclass(own):
        return cast(Term, replace(own, name=name))  # type: ignore[type-var]
    own.name = name
    return term


def relaxed_terms(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """Terms with MAX terms replaced by SUM terms that bound them from below, where they offer that (`relaxed`).

    A bound for the relaxed terms is a bound for the terms themselves.
    """
    return tuple(t.relaxed() if t.aggregate == "max" and hasattr(t, "relaxed") else t for t in terms)


def without_convex_form(problem: PlacementProblem, *, relaxed: bool = False) -> list[str]:
    """Names of the terms that are not a convex load summed over GPUs: no bound covers them.

    Args:
        relaxed: MAX terms count through the SUM term that bounds them (`relaxed_terms`).
    """
    return [
        term.name
        for term in (relaxed_terms(problem.terms) if relaxed else problem.terms)
        if term.aggregate != "sum" or any(convex_of(term, o, problem.context) is None for o in problem.options)
    ]
