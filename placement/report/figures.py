"""What the planning model and the twin say about the GPUs of a placement, in numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from placement.problem.problem import Array, GpuAssignment, Placement, PlacementProblem, objective_of
from placement.verify.verdict import Verification


def simulated_objective(
    problem: PlacementProblem, placement: Placement, verification: Verification
) -> tuple[float | None, dict[str, float]]:
    """The objective with the twin's figures in place of the planning model's.

    Little's law makes loads of the simulated means: requests in system = rate x E2E, requests decoding = output
    tokens/s x ITL. So a term needs no second definition, and GPUs are weighted by their traffic.
    """
    told = problem.columns_of([g.items for g in placement.gpus], [g.option for g in placement.gpus])
    figures = [v.simulated for v in verification.gpus]

    def simulated(name: str) -> Array:
        return np.array([f.get(name, math.nan) for f in figures])

    itl_s = simulated("itl_mean_ms") / 1000
    columns = replace(
        told,
        requests_in_system=told.rate_req_per_s * simulated("e2e_mean_s"),
        decoding=told.output_tokens_per_s * itl_s,
        pace_s=itl_s,
        ttft_mean_s=simulated("ttft_mean_s"),
        ttft_p99_s=simulated("ttft_p99_s"),
        kv_share=simulated("kv_usage"),
    )
    total, values = objective_of(problem, columns)
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
