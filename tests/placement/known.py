"""Problems for the conformance suite. Tiny ones are solved by brute force, the others on paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from placement.problem.objectives import GpuCount, MeanE2E, MeanItl, MeanTtft, TailE2E
from placement.problem.problem import PlacementProblem, Term
from tests.placement.synthetic import adapter, option, power_law, problem

SMALL_OPTIONS = (option(8, 8), option(8, 32), option(32, 32))

TERMS: dict[str, tuple[Term, ...]] = {
    "gpu_count": (GpuCount(),),
    "latency": (MeanE2E(),),
    "itl": (MeanItl(),),
    "weighted": (GpuCount(), MeanE2E(scale=2.0)),
    "tail": (TailE2E(),),
    "mixed": (GpuCount(weight=0.7), MeanE2E(scale=2.0), TailE2E(scale=4.0)),
    "ttft": (MeanTtft(),),
}


def _six(**extra: object) -> PlacementProblem:
    """Six unequal adapters of two ranks that need two or three GPUs."""
    rates, ranks = (8.0, 6.0, 5.0, 4.0, 3.0, 2.0), (8, 32, 8, 8, 32, 8)
    adapters = [adapter(f"a{i}", r, k) for i, (r, k) in enumerate(zip(rates, ranks, strict=True))]
    return problem(adapters, options=SMALL_OPTIONS, **extra)  # type: ignore[arg-type]


def _two_types(**extra: object) -> PlacementProblem:
    """A fast, dear GPU type and a slow, cheap one."""
    adapters = [adapter(f"a{i}", r) for i, r in enumerate((7.0, 6.0, 4.0, 3.0, 2.0))]
    options = (option(8, 8, "fast"), option(32, 8, "fast"), option(8, 8, "slow", speed=0.5))
    price = {"fast": 1.0, "slow": 0.4}
    return problem(adapters, options=options, price=price, **extra)  # type: ignore[arg-type]


def _replicas() -> PlacementProblem:
    """One adapter split in three, so that at least three GPUs are needed."""
    adapters = [adapter("hot", 24.0), adapter("a", 3.0), adapter("b", 2.0)]
    return problem(adapters, options=SMALL_OPTIONS, shares={"hot": 3})


def _banned() -> PlacementProblem:
    """The two hottest adapters may not share a GPU under any setting."""
    return _six(banned=tuple((o, frozenset({0, 1})) for o in range(3)))


def _pinned() -> PlacementProblem:
    """Two adapters pinned to one GPU, one to another."""
    plain = _six()
    pins = {0: "left", 3: "left", 5: "right"}
    return replace(plain, items=tuple(replace(a, pinned_gpu=pins.get(i)) for i, a in enumerate(plain.items)))


def _base_model() -> PlacementProblem:
    """Requests to the base model need no slot and run under any setting."""
    adapters = [adapter("base", 9.0, 0), *(adapter(f"a{i}", 4.0, 32) for i in range(4))]
    return problem(adapters, options=SMALL_OPTIONS)


#: name -> (problem with a price on GPUs, fleet size for objectives that need one)
TINY: dict[str, tuple[Callable[[], PlacementProblem], int]] = {
    "six adapters": (_six, 4),
    "two GPU types": (_two_types, 4),
    "stock": (lambda: _two_types(stock={"fast": 1}), 4),
    "replicas": (_replicas, 4),
    "refuted columns": (_banned, 4),
    "pins": (_pinned, 4),
    "base model": (_base_model, 4),
}


def tiny(name: str, terms: str) -> PlacementProblem:
    """A tiny problem under an objective; a fleet limit where no term prices GPUs."""
    make, fleet = TINY[name]
    chosen = TERMS[terms]
    limit = None if any(isinstance(t, GpuCount) for t in chosen) else fleet
    return replace(make(), terms=chosen, max_gpus=limit)


def alike() -> tuple[PlacementProblem, int]:
    """208 equal adapters of 1 req/s, one setting of 32 slots.

    Limit 20 / (1 + 32 * 8 / 4000) = 18.8 req/s; the first facet reads n / 18.8 - 1 + 0.02 <= 0, so 18 adapters a GPU
    and ceil(208 / 18) = 12 (divisible: 208 / 18.4 = 11.3) GPUs.
    """
    return problem([adapter(f"a{i}", 1.0) for i in range(208)], options=[option(32, 8)]), 12


def cold() -> tuple[PlacementProblem, int]:
    """1000 adapters of 0.001 req/s: nothing but the trained range of 384 adapters binds, so 3 GPUs."""
    return problem([adapter(f"a{i}", 0.001) for i in range(1000)], options=[option(8, 8), option(96, 8)]), 3


def skewed(n: int = 250) -> PlacementProblem:
    """Power-law rates, three ranks, unequal output lengths."""
    return problem(power_law(n, seed=1))


def too_hot() -> PlacementProblem:
    """60 req/s for at most two GPUs of about 19 req/s: infeasible, even if adapters were divisible."""
    return problem([adapter(f"a{i}", 2.0) for i in range(30)], options=[option(32, 8)], max_gpus=2)


def total_rate(p: PlacementProblem) -> float:
    return float(np.sum([a.rate_req_per_s for a in p.items]))
