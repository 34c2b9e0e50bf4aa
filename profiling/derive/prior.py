"""What is believed of a step-time law before anything was measured: a mean, and how far it may be off, jointly.

The law's 21 coefficients `c` are `mean + sum_k z_k v_k + e` with independent standard normal `z`. Each factor `v_k`
moves coefficients together: all kernels are slower than their table says, all adapter terms are larger. `e` is what
coefficients may trade against each other, because they are collinear in real steps: its variances are wide, but it is
conditioned on changing neither the kernels' nor the adapters' part of a typical step by more than a few per cent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiling.derive.constants import LAUNCH_TERMS, SCHEDULER_TERMS, TILE_TERMS
from profiling.derive.kernels import KERNEL_TERMS
from twin.server.laws import STEP_TERMS, StepTimeLaw, step_terms

Array = NDArray[np.float64]

#: Standard normal quantile of 90 %: intervals hold the central 80 %, an end is passed by one case in ten.
Z90 = 1.2816
GRAPH_TOKENS = 512.0
#: Standard deviation of a single coefficient relative to its mean, beside what its factor moves.
OWN_KERNELS = {"base": 0.03, "seq": 0.5, "prompt": 0.35, "kv": 0.35, "cliff": 0.35, "past_graph": 0.4}
OWN_ADAPTERS, OWN_SCHEDULER = 0.35, 0.4
#: And at least so much in a typical step, so that a coefficient whose mean is 0 can grow.
OWN_LEAST_MS = 0.15
#: How far single coefficients may change the kernels' or the adapters' part of a typical step, relative.
TRADED = 0.03
#: Steps whose time the ends of the law are made for: a light one and a busy one, both with adapters.
TYPICAL_STEPS = (
    step_terms(decodes=40, prompt=15, kv_tokens=12_000, adapters=20, slots=32, rank=16),
    step_terms(decodes=300, prompt=150, kv_tokens=100_000, adapters=80, slots=96, rank=16, skipped=300, waiting=500),
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """How far the parts of a derived law may be off: one standard deviation.

    Args:
        kernels: relative, of all kernel times together.
        host_ms, cliff_ms: of the host's time in every step, and of a step past the CUDA graphs.
        adapters: relative, of all adapter terms together.
    """

    kernels: float
    host_ms: float
    cliff_ms: float
    adapters: float


@dataclass(frozen=True, slots=True)
class Prior:
    """A normal distribution over the law's coefficients, before `c >= 0`.

    Args:
        mean: (21,), in the order of `STEP_TERMS`.
        factors: name -> (21,).
        traded: covariance of `e`, (21, 21).
    """

    mean: Array
    factors: Mapping[str, Array]
    traded: Array

    @property
    def covariance(self) -> Array:
        """(21, 21)."""
        moved = np.array(list(self.factors.values()))
        return np.asarray(self.traded + moved.T @ moved)


def prior_of(terms: Mapping[str, float], gpu: Mapping[str, float], doubt: Doubt) -> Prior:
    """The prior around a derived law.

    Args:
        terms: the whole law, by name. gpu: the part of it that kernels without adapters are.
    """
    mean = np.array([terms[name] for name in STEP_TERMS])
    typical = typical_features()

    def vector(values: Mapping[str, float]) -> Array:
        return np.array([values.get(name, 0.0) for name in STEP_TERMS])

    factors = {
        "kernels": vector({name: doubt.kernels * gpu[name] for name in KERNEL_TERMS}),
        "host": vector({"base": doubt.host_ms}),
        "graph cliff": vector({"cliff": doubt.cliff_ms, "plain_large": 0.3 * doubt.cliff_ms}),
        "adapters": vector({name: doubt.adapters * terms[name] for name in (*TILE_TERMS, *LAUNCH_TERMS)}),
        "scheduler": vector({name: 0.3 * terms[name] for name in SCHEDULER_TERMS}),
    }
    relative = (
        OWN_KERNELS
        | dict.fromkeys((*TILE_TERMS, *LAUNCH_TERMS), OWN_ADAPTERS)
        | dict.fromkeys(SCHEDULER_TERMS, OWN_SCHEDULER)
        | {"plain_large": 0.3}
    )
    share = np.array([relative[name] for name in STEP_TERMS])
    floor = np.where(typical > 0, OWN_LEAST_MS / np.maximum(typical, 1e-12), 0.0)
    always = vector(dict.fromkeys(("base", "adapter_large", *SCHEDULER_TERMS), 1.0)) > 0
    own = np.maximum(share * mean, np.where(always, 0.0, floor))
    return Prior(mean, factors, _conditioned(np.diag(own**2), mean))


def _conditioned(covariance: Array, mean: Array) -> Array:
    """The covariance, given that the kernels' and the adapters' parts of typical steps are known but for `TRADED`."""
    kinds = (set(KERNEL_TERMS), {*TILE_TERMS, *LAUNCH_TERMS})
    sums = np.array(
        [[step[n] * (n in kind) for n in STEP_TERMS] for step in TYPICAL_STEPS for kind in kinds], dtype=np.float64
    )
    seen = sums @ covariance @ sums.T + np.diag((TRADED * (sums @ mean)) ** 2)
    gain = covariance @ sums.T @ np.linalg.inv(seen)
    left = covariance - gain @ sums @ covariance
    return np.asarray(left, dtype=np.float64)


def typical_features() -> Array:
    """Mean features of `TYPICAL_STEPS`, (21,)."""
    steps = np.array([[step[name] for name in STEP_TERMS] for step in TYPICAL_STEPS])
    return np.asarray(steps.mean(axis=0))


def law_of(coefficients: Array) -> StepTimeLaw:
    """A law from coefficients (21,), negative ones cut to 0."""
    values = {n: round(max(0.0, float(c)), 6) for n, c in zip(STEP_TERMS, coefficients, strict=True)}
    return StepTimeLaw(**values, graph_tokens=GRAPH_TOKENS)


def law_ends(mean: Array, covariance: Array) -> tuple[Array, Array]:
    """(slow end, fast end) of a law, (21,) each.

    The slow end is the likeliest law among those under which the mean of `TYPICAL_STEPS` takes as long as under one in
    ten of all: `mean + z S f / sqrt(f' S f)`. Taking every coefficient at its own end would add up what cannot be wrong
    at once, least of all after a fit, which knows sums better than summands.
    """
    f = typical_features()
    direction = covariance @ f
    shift = Z90 * direction / max(1e-12, float(np.sqrt(f @ direction)))
    return np.maximum(0.0, mean + shift), np.maximum(0.0, mean - shift)


def intervals(mean: Array, covariance: Array) -> dict[str, tuple[float, float]]:
    """Central 80 % of every coefficient by itself, `step.<name>` -> (low, high)."""
    spread = Z90 * np.sqrt(np.diag(covariance))
    return {
        f"step.{name}": (round(max(0.0, float(m - s)), 6), round(float(m + s), 6))
        for name, m, s in zip(STEP_TERMS, mean, spread, strict=True)
    }
