"""B_opt: the two published rules, on any curve.

* `efficiency` (rule A; the publication's figure): `max {B : T(B) / (B T(1)) > epsilon and L(B) <= SLO}` with L the
  mean gap between tokens over all tokens.
* `latency` (rule B; the publication's memory figure): `max {B : L(B) <= SLO}` with L the mean over requests (TPOT).
  Published with SLO = 3 L(32).

SLO = k L(B_ref) with B_ref the batch nearest 32; strict k = 2, relaxed k = 4; or a number of milliseconds. Points
with preemption do not count: their KV cache is too small for the batch. (The published code keeps them.) B is
`max_num_seqs`; the published rule B takes the largest batch observed, which differs where a token budget binds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from placement.batching.curves import Curve, CurvePoint
from twin.config.ranges import Range, check
from twin.errors import InfeasibleError, InputError

Rule = Literal["efficiency", "latency"]
SLO_FACTORS = {"strict": 2.0, "relaxed": 4.0}
#: k of the published rule B.
LATENCY_RULE_FACTOR = 3.0
REFERENCE_BATCH = 32


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch limit and why.

    Args:
        point: the chosen point.
        slo_ms: bound on the latency.
        reference: the batch that a relative SLO refers to.
        efficiency: T(B) / (B T(1)) of each usable batch, NaN where there is no B = 1.
        bound_by: what the next larger usable batch fails: `slo`, `epsilon`, `both`, or `memory` if there is none.
    """

    rule: Rule
    point: CurvePoint
    slo_ms: float
    reference: int
    efficiency: dict[int, float]
    bound_by: str


def latency_ms(point: CurvePoint, rule: Rule) -> float:
    """L(B) of a rule."""
    return point.itl_ms if rule == "efficiency" else point.tpot_ms


#: The publication uses 0.1: at least a tenth of the throughput per request of a batch of 1.
EPSILON = Range(above=0, below=1, hint="the publication uses 0.1")


def efficiencies(curve: Curve) -> dict[int, float]:
    """T(B) / (B T(1)) of the usable points; NaN without a point at B = 1."""
    one = curve.at(1)
    t1 = one.throughput_req_per_s if one else math.nan
    return {p.batch: p.throughput_req_per_s / (p.batch * t1) for p in curve.usable}


def slo_of(curve: Curve, slo: str | float, rule: Rule) -> tuple[float, int]:
    """(bound in ms, reference batch).

    Raises:
        InputError: the SLO is neither a known word, `<k>x`, nor a positive number of milliseconds.
    """
    reference = curve.nearest(REFERENCE_BATCH)
    factor = SLO_FACTORS.get(slo) if isinstance(slo, str) else None
    if isinstance(slo, str) and factor is None and slo.endswith("x"):
        factor = _positive(slo[:-1])
    if factor is not None:
        return factor * latency_ms(reference, rule), reference.batch
    value = _positive(slo)
    if value is None:
        raise InputError(
            f"slo = {slo!r} is not an SLO", where="slo",
            remedy="use strict (2 L(32)), relaxed (4 L(32)), a factor like 3x, or milliseconds between tokens",
        )  # fmt: skip
    return value, reference.batch


def _positive(text: str | float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def choose(curve: Curve, rule: Rule, *, slo: str | float, epsilon: float) -> Choice:
    """The largest batch that a rule allows.

    Raises:
        InputError: epsilon or the SLO is not valid, or the rule needs a point at B = 1 that the curve lacks.
        InfeasibleError: no batch meets the SLO and epsilon.
    """
    check(epsilon, "epsilon", EPSILON, where="epsilon")
    slo_ms, reference = slo_of(curve, slo, rule)
    efficiency = efficiencies(curve)
    if rule == "efficiency" and curve.at(1) is None:
        raise InputError(
            "rule=efficiency compares with a batch of 1, which the curve does not have",
            where="batches" if curve.source != "measured" else "data",
            remedy="add 1 to batches, or use rule=latency",
        )

    def fails(p: CurvePoint) -> tuple[bool, bool]:
        return latency_ms(p, rule) > slo_ms, rule == "efficiency" and not efficiency[p.batch] > epsilon

    good = [p for p in curve.usable if not any(fails(p))]
    if not good:
        fastest = min(curve.usable, key=lambda p: latency_ms(p, rule))
        raise InfeasibleError(
            f"no batch meets an SLO of {slo_ms:.3g} ms and an efficiency above {epsilon:g}: the lowest latency is "
            f"{latency_ms(fastest, rule):.3g} ms, at a batch of {fastest.batch}",
            where="slo",
            remedy=f"give slo={math.ceil(latency_ms(fastest, rule) * 10) / 10:g} or more, or another GPU",
        )
    best = max(good, key=lambda p: p.batch)
    larger = [p for p in curve.usable if p.batch > best.batch]
    bound_by = "memory" if curve.dropped else "grid"
    if larger:
        slow, poor = fails(larger[0])
        bound_by = "both" if slow and poor else "slo" if slow else "epsilon"
    return Choice(rule, best, slo_ms, reference, efficiency, bound_by)
