"""What a run found, and what the planning model and the twin say about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from placement.problem.problem import GpuAssignment, Placement, PlacementProblem
from placement.verify import Verification
from surrogates.model.planning import affine_load

Status = Literal["verified", "unverified", "infeasible", "no_solution"]


@dataclass(slots=True)
class Result:
    """Everything that is reported about a run.

    Args:
        problem: the last one solved, tightened by verification.
        original: the one before tightening; bounds and the objective belong to it.
        bound: lower bound for every placement under the planning model with its margin; None = none claimed.
        bound_outer: the same without the margin.
        bound_tightened: the same with what verification taught; equals `bound` if it taught nothing.
        gap: (objective - bound) / |objective|.
        rounds: times the solver ran.
        history: per round, GPUs, objective and number of refuted GPUs.
    """

    status: Status
    termination: str
    solver: str
    problem: PlacementProblem
    original: PlacementProblem
    placement: Placement | None = None
    objective: float = math.nan
    terms: dict[str, float] = field(default_factory=dict)
    bound: float | None = None
    bound_outer: float | None = None
    bound_tightened: float | None = None
    gap: float | None = None
    simulated_objective: float | None = None
    simulated_terms: dict[str, float] = field(default_factory=dict)
    verification: Verification | None = None
    solver_s: float = 0.0
    runtime_s: float = 0.0
    rounds: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    details: dict[str, float | str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    certified_minimum: int | None = None

    @property
    def gpus(self) -> tuple[GpuAssignment, ...]:
        return self.placement.gpus if self.placement is not None else ()


def simulated_objective(result: Result, verification: Verification) -> tuple[float | None, dict[str, float]]:
    """The objective with the twin's loads in place of the planning model's.

    Little's law makes loads of the simulated means: requests in system = rate x E2E, requests decoding = output
    tokens/s x ITL. So a term needs no second definition, and GPUs are weighted by their traffic.
    """
    assert result.placement is not None
    problem, placement = result.problem, result.placement
    phi = placement.features(problem)
    values: dict[str, float] = {}
    total = 0.0
    for term in problem.terms:
        costs = []
        for k, column in enumerate(placement.columns(problem)):
            metrics = verification.gpus[k].simulated
            tokens_per_s = math.fsum(a.rate_req_per_s * a.output_tokens.mean for a in column.adapters)
            flat = np.zeros(phi.shape[1])
            option = replace(
                problem.options[placement.gpus[k].option],
                requests_in_system=affine_load(flat, column.rate_req_per_s * metrics["e2e_mean_s"]),
                requests_decoding=affine_load(flat, tokens_per_s * metrics["itl_mean_ms"] / 1000),
            )
            costs.append(float(term.cost(option, phi[k : k + 1], problem.context)[0]))
        values[term.name] = sum(costs) if term.aggregate == "sum" else max(costs)
        total += term.weight * values[term.name] / term.scale
    return (total if math.isfinite(total) else None), values


def predicted_metrics(problem: PlacementProblem, gpu: GpuAssignment) -> dict[str, float]:
    """What the planning model says about one GPU; names of `twin.figures.prediction.Prediction` where they exist."""
    option = problem.options[gpu.option]
    items = [problem.items[i] for i in gpu.items]
    phi = problem.phi[list(gpu.items)].sum(axis=0)[None]
    rate = math.fsum(a.rate_req_per_s for a in items)
    out_tps = math.fsum(a.rate_req_per_s * a.output_tokens.mean for a in items)
    in_tps = math.fsum(a.rate_req_per_s * a.prompt_tokens.mean for a in items)
    in_system, decoding = float(option.requests_in_system(phi)[0]), float(option.requests_decoding(phi)[0])
    return {
        "rate_req_per_s": rate,
        "load": load(option.feasible.G @ phi[0], option.feasible.g),
        "in_throughput_tps": in_tps,
        "out_throughput_tps": out_tps,
        "throughput_tps": in_tps + out_tps,
        "e2e_mean_s": in_system / rate,
        "itl_mean_ms": 1000 * decoding / out_tps,
        "ttft_mean_s": max(0.0, in_system - decoding) / rate,
        "requests_in_system": in_system,
        "running": decoding,
    }


def load(used: np.ndarray, limits: np.ndarray) -> float:
    """Share of the allowed load that is used, by the tightest facet `used <= -limits`; NaN without facets."""
    usable = limits < 0
    return float((used[usable] / -limits[usable]).max()) if usable.any() else math.nan
