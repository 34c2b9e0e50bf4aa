"""Placements of whatever origin, judged by the twin on the same hours: requests of an adapter are the same for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.today.comparison import figures_of
from placement.verify.verifier import TwinVerifier
from twin.figures.health import Constraint
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.simulation import simulate_many

#: Seeds of the common hours: neither training nor verification uses them.
FIRST_SEED = 600_000


@dataclass(frozen=True, slots=True)
class Judged:
    """What the twin says about a placement.

    Args:
        gpus: in use.
        e2e_s: mean E2E latency of all requests, seconds. Of a starved GPU it grows with the length of the window.
        itl_ms: mean time between tokens, GPUs weighted by output tokens, milliseconds.
        bad_hours: share of bad hours of the worst GPU, 0..1.
        starved: an adapter starves, or a GPU serves less than 90 % of what it is asked.
        hours: simulated on each GPU.
    """

    gpus: int
    e2e_s: float
    itl_ms: float
    bad_hours: float
    starved: bool
    hours: int


def judged(
    columns: Sequence[Column], calibration: Calibration, constraint: Constraint, *, hours: int = 6, threads: int = 2
) -> Judged:
    """The same `hours` seeds for every placement."""
    results = simulate_many(
        columns,
        calibration,
        seeds=range(FIRST_SEED, FIRST_SEED + hours),
        default_ttft_slo_s=constraint.slo.ttft_p99_s,
        threads=threads,
    )
    figures = figures_of(columns, results, constraint)
    return Judged(
        gpus=len(columns),
        e2e_s=figures.e2e_mean_s,
        itl_ms=figures.itl_mean_ms,
        bad_hours=max(float(np.mean([bool(constraint.broken_window(r)) for r in of_gpu])) for of_gpu in results),
        starved=figures.starved_gpus > 0,
        hours=hours,
    )


def accepted(
    columns: Sequence[Column], calibration: Calibration, constraint: Constraint, verifier: TwinVerifier
) -> bool:
    """Whether the verifier accepts every GPU."""
    found = verifier.columns(columns, {calibration.gpu.name: calibration}, constraint, round_=0, stop_at_refuted=True)
    return all(v.accepted for v in found.gpus)
