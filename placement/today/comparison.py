"""Today's placement and the plan in the twin: the same hours for both, and the verifier's verdict on today's GPUs.

Windows have the seeds of the plan's last round of verification, and a seed draws the same requests for an adapter on
whichever GPU it is: a difference in figures is one of the placements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from placement.today.file import Today
from placement.verify.pool import impatient
from placement.verify.verdict import OUT_OF_TIME, Verification
from placement.verify.verifier import FIRST_SEED, Progress, Verifier, one_window
from twin.figures.adapter_sums import E2E, TOTAL, WEIGHT
from twin.figures.health import STARVATION_THRESHOLD, Constraint
from twin.figures.window import served_or_in_service
from twin.server.calibration import Calibration
from twin.server.column import Column

if TYPE_CHECKING:
    from twin.figures.result import SimulationResult

#: Windows in which both are played, as many as every GPU gets of its own in verification.
WINDOWS = 3


@dataclass(frozen=True, slots=True)
class Figures:
    """A placement in the common windows.

    Args:
        gpus: in use.
        e2e_mean_s: over all requests; unfinished ones count with their time so far, so that on a starved GPU it grows
            with the window.
        itl_mean_ms: over GPUs, weighted by output tokens.
        late_fraction: requests later than their promised first token / all.
        worst_adapter, worst_adapter_e2e_s: the adapter with the largest mean E2E, over its replicas.
        starved_gpus: on which adapters starve, or less than 90 % is served of what is asked.
    """

    gpus: int
    e2e_mean_s: float
    itl_mean_ms: float
    late_fraction: float
    worst_adapter: str
    worst_adapter_e2e_s: float
    starved_gpus: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Today beside the plan.

    Args:
        today: what runs today.
        verification: the verifier's verdicts on it.
        seeds, window_s: of the common windows; seconds.
        figures, plan: of today's placement and of the plan in them.
    """

    today: Today
    verification: Verification
    seeds: tuple[int, ...]
    window_s: float
    figures: Figures
    plan: Figures


class Stages(Protocol):
    """Where it says how far it is; see `placement.report.progress`."""

    def stage(self, text: str) -> AbstractContextManager[Progress]: ...


def beside_plan(
    today: Today,
    verifier: Verifier | None,
    calibrations: Mapping[str, Calibration],
    constraint: Constraint,
    plan: Sequence[Column],
    planned: Verification | None,
    *,
    round_: int,
    progress: Stages,
    deadline: float = math.inf,
) -> tuple[Comparison | None, list[str]]:
    """Judges today's placement as the plan was judged; None where the plan was not. And notes for people.

    Args:
        plan, planned: GPUs of the plan and their verdicts.
        round_: of verification, in which these were given.
        deadline: `timing.now()` value after which nothing is begun.
    """
    if verifier is None or planned is None:
        return None, [*today.notes, f"{today.path}: today's placement was not judged, because the plan was not"]
    try:
        with progress.stage(f"today's placement, {len(today.columns)} GPUs") as step:
            checked = verifier.columns(
                today.columns, calibrations, constraint, round_=round_, progress=step, deadline=deadline
            )
        if any(v.reason == OUT_OF_TIME for v in checked.gpus):
            return None, [*today.notes, f"{today.path}: the time ended before today's placement was judged"]
        with progress.stage("today's placement beside the plan"):
            return compared(today, checked, plan, planned, calibrations, constraint), list(today.notes)
    except KeyboardInterrupt:  # the plan is there, and is saved
        return None, [*today.notes, f"{today.path}: interrupted before today's placement was judged"]


def compared(
    today: Today,
    verification: Verification,
    plan: Sequence[Column],
    planned: Verification,
    calibrations: Mapping[str, Calibration],
    constraint: Constraint,
) -> Comparison:
    """Plays today's GPUs and those of the plan in the first windows of the plan's verification.

    Args:
        verification, planned: verdicts on today's placement and on the plan, of one round: from the same seeds.
    """
    both = (*verification.gpus, *planned.gpus)
    first = min((seed for v in planned.gpus for seed in v.seeds), default=FIRST_SEED)
    seeds = tuple(range(first, first + WINDOWS))
    window_s = max(v.window_s for v in both)

    def figures(columns: Sequence[Column]) -> Figures:
        jobs = [(column, seed) for column in columns for seed in seeds]

        def played(job: tuple[Column, int]) -> SimulationResult:
            return one_window(job[0], calibrations[job[0].setting.gpu_type], constraint, job[1], window_s)

        with impatient() as pool:
            flat = list(pool.map(played, jobs))
        return figures_of(columns, [flat[i : i + WINDOWS] for i in range(0, len(flat), WINDOWS)], constraint)

    return Comparison(today, verification, seeds, window_s, figures(today.columns), figures(plan))


def figures_of(
    columns: Sequence[Column], results: Sequence[Sequence[SimulationResult]], constraint: Constraint
) -> Figures:
    """Figures of a placement from the windows of each of its GPUs."""
    seconds: dict[str, float] = {}
    requests: dict[str, float] = {}
    for column, of_gpu in zip(columns, results, strict=True):
        sums = np.sum([r.adapter_sums[E2E] for r in of_gpu], axis=0)
        for a, adapter in enumerate(column.adapters):
            seconds[adapter.adapter_id] = seconds.get(adapter.adapter_id, 0.0) + float(sums[TOTAL, a])
            requests[adapter.adapter_id] = requests.get(adapter.adapter_id, 0.0) + float(sums[WEIGHT, a])
    means = {name: seconds[name] / n for name, n in requests.items() if n > 0}
    worst = max(means, key=means.__getitem__, default="")
    decided = sum(int(r.counts.sum()) for of_gpu in results for r in of_gpu)
    late = sum(int(r.late_counts.sum()) for of_gpu in results for r in of_gpu)
    itl = np.array([np.mean([r.row["itl_mean_ms"] for r in of_gpu]) for of_gpu in results])
    tokens = np.array([sum(a.rate_req_per_s * a.output_tokens.mean for a in c.adapters) for c in columns])
    known = np.isfinite(itl)
    return Figures(
        gpus=len(columns),
        e2e_mean_s=sum(seconds.values()) / max(1.0, sum(requests.values())),
        itl_mean_ms=float(np.average(itl[known], weights=tokens[known])) if known.any() else float("nan"),
        late_fraction=late / max(1, decided),
        worst_adapter=worst,
        worst_adapter_e2e_s=means.get(worst, float("nan")),
        starved_gpus=sum(_starved(of_gpu, constraint) for of_gpu in results),
    )


def _starved(results: Sequence[SimulationResult], constraint: Constraint) -> bool:
    """Whether adapters of a GPU starve, or the GPU serves less than it is asked."""
    served = float(np.mean([served_or_in_service(r) for r in results]))
    return served < STARVATION_THRESHOLD or bool(constraint.broken(results))
