"""Verification: every GPU of a placement in the twin, with fresh seeds, until the case is clear.

An optimizer picks lucky columns, so a column is judged by seeds that nobody has seen, and by confidence limits, not
by means: it is *accepted* if every requirement holds at the 99.9 % limit (Student t over seeds), *refuted* if one
is broken under every seed or at the limit. Open cases get twice the seeds, up to `max_seeds`; what is open then is
refuted too. The error probability is shared among the looks, so that repeated looks do not spend it twice.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np

from twin.confidence.sequential import looks, mean_limit
from twin.config.ranges import Range, check, check_fields
from twin.figures.health import MAX_ADAPTER_LATE_SHARE, Constraint, Requirement
from twin.figures.promises import Kept, kept
from twin.server.calibration import Calibration
from twin.server.column import Column

log = logging.getLogger(__name__)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from twin.figures.result import SimulationResult

Progress = Callable[[int, int], None]
Simulate = Callable[[Column, int], "SimulationResult"]
Decision = Literal["accepted", "refuted", "open"]

#: Verification seeds start here: no training run or example uses them.
FIRST_SEED = 1_000_000


@dataclass(frozen=True, slots=True)
class ColumnVerdict:
    """What the twin says about one GPU.

    Args:
        accepted: every requirement holds with confidence.
        reason: the requirement that decided, in words; empty if accepted.
        seeds: seeds that were simulated.
        simulated: metrics, means over the seeds (fields of `twin.figures.prediction.Prediction`).
        promises: what was promised to each adapter and how much of it was used, all seeds together.
    """

    accepted: bool
    reason: str
    seeds: tuple[int, ...]
    simulated: dict[str, float]
    promises: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """Verdicts of a placement's GPUs, in its order."""

    gpus: tuple[ColumnVerdict, ...]

    @property
    def passed(self) -> bool:
        return all(v.accepted for v in self.gpus)

    @property
    def refuted(self) -> list[int]:
        """Indices of GPUs that were not accepted."""
        return [k for k, v in enumerate(self.gpus) if not v.accepted]


class Verifier(Protocol):
    """Judges columns by something better than the planning model."""

    def columns(
        self,
        columns: Sequence[Column],
        calibration: Calibration,
        constraint: Constraint,
        *,
        round_: int,
        progress: Progress | None = None,
    ) -> Verification: ...


def decide(requirement: Requirement, alpha: float) -> Decision:
    """Whether one requirement holds, is broken, or needs more seeds."""
    values, limit, at_most = requirement.values, requirement.limit, requirement.at_most
    if not np.isfinite(values).all():
        return "refuted"
    worst = mean_limit(values, alpha, upper=at_most)
    if worst <= limit if at_most else worst >= limit:
        return "accepted"
    best = mean_limit(values, alpha, upper=not at_most)
    certainly_broken = best > limit if at_most else best < limit
    always_broken = (values > limit).all() if at_most else (values < limit).all()
    return "refuted" if certainly_broken or always_broken else "open"


def judge(results: Sequence[SimulationResult], constraint: Constraint, alpha: float) -> tuple[Decision, str]:
    """Verdict on one column from its results so far, with the figure that decided."""
    broken = constraint.broken(results)
    if broken:
        return "refuted", broken
    open_reason = ""
    for requirement in constraint.requirements(results):
        decision = decide(requirement, alpha)
        if decision == "accepted":
            continue
        reason = (
            f"{requirement.text} {requirement.values.mean():.4g} "
            f"(limit {'<=' if requirement.at_most else '>='} {requirement.limit:.4g}, {len(results)} seeds)"
        )
        if decision == "refuted":
            return "refuted", reason
        open_reason = open_reason or reason
    return ("open", open_reason) if open_reason else ("accepted", "")


def mean_metrics(results: Sequence[SimulationResult]) -> dict[str, float]:
    """Metrics averaged over seeds; NaN where no seed gives one."""
    rows = [r.prediction_row() for r in results]
    means = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        values = values[np.isfinite(values)]
        means[name] = float(values.mean()) if len(values) else math.nan
    return means


def promises_kept(results: Sequence[SimulationResult], constraint: Constraint) -> tuple[Kept, ...]:
    """Every promise to every adapter of a column, all seeds together."""
    allowed = float(getattr(constraint, "adapter_late_share", MAX_ADAPTER_LATE_SHARE))
    return kept(results, constraint.slo, late_share=allowed)


@dataclass(frozen=True, slots=True)
class TwinVerifier:
    """Simulates every GPU in the twin.

    Args:
        min_seeds: seeds of the first look, >= 3.
        max_seeds: most seeds of a column.
        confidence: of acceptance, per column.
        horizon_s: simulated seconds; an hour, because shorter windows are biased, not only noisy.
        seed: shifts all verification seeds.
        threads: simulations at a time; null = processors.
        max_rounds: most rounds of verify, tighten and solve again.
    """

    min_seeds: Annotated[int, Range(3, hint="a spread needs at least 3 seeds")] = 3
    max_seeds: Annotated[int, Range(3)] = 12
    confidence: Annotated[float, Range(above=0.5, below=1, hint="a probability such as 0.999")] = 0.999
    horizon_s: Annotated[float, Range(above=0, unit="seconds")] = 3600.0
    seed: Annotated[int, Range(0, 99_999)] = 0
    threads: Annotated[int | None, Range(1, hint="or null for the processors")] = None
    max_rounds: Annotated[int, Range(0, 100)] = 8

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"verify.{name}")
        check(self.max_seeds, "verify.max_seeds", Range(self.min_seeds, whole=True, hint="at least verify.min_seeds"))

    def looks(self) -> list[int]:
        """Numbers of seeds at which a column is judged: min, twice that, ..., max."""
        return looks(self.min_seeds, self.max_seeds)

    def columns(
        self,
        columns: Sequence[Column],
        calibration: Calibration,
        constraint: Constraint,
        *,
        round_: int,
        progress: Progress | None = None,
    ) -> Verification:
        """Judges columns; every round gets seeds of its own."""
        from twin.simulation import simulate

        def run(column: Column, seed: int) -> SimulationResult:
            return simulate(
                column,
                calibration,
                horizon_s=self.horizon_s,
                seed=seed,
                default_ttft_slo_s=constraint.slo.ttft_p99_s,
            )

        first = FIRST_SEED + self.seed * 10_000 + round_ * self.max_seeds
        return self.judged(columns, constraint, run, first_seed=first, progress=progress)

    def judged(
        self,
        columns: Sequence[Column],
        constraint: Constraint,
        run: Simulate,
        *,
        first_seed: int,
        progress: Progress | None = None,
    ) -> Verification:
        """Sequential looks with any simulation `run(column, seed)`."""
        schedule = self.looks()
        alpha = (1 - self.confidence) / len(schedule)
        results: list[list[SimulationResult]] = [[] for _ in columns]
        reasons = [""] * len(columns)
        undecided, accepted = list(range(len(columns))), set[int]()
        if not columns:
            return Verification(())
        with ThreadPoolExecutor(max_workers=self.threads or os.cpu_count() or 1) as pool:
            for seeds in schedule:
                jobs = [(k, first_seed + s) for k in undecided for s in range(len(results[k]), seeds)]
                done = pool.map(lambda job: run(columns[job[0]], job[1]), jobs)
                for (k, _), result in zip(jobs, done, strict=True):
                    results[k].append(result)
                still_open = []
                for k in undecided:
                    decision, reasons[k] = judge(results[k], constraint, alpha)
                    if decision == "accepted":
                        accepted.add(k)
                    elif decision == "open":
                        still_open.append(k)
                undecided = still_open
                log.debug("%d seeds: %d columns accepted, %d open", seeds, len(accepted), len(undecided))
                if progress:
                    progress(len(columns) - len(undecided), len(columns))
                if not undecided:
                    break
        log.info("seeds from %d on: %d of %d columns accepted", first_seed, len(accepted), len(columns))
        return Verification(
            tuple(
                ColumnVerdict(
                    accepted=k in accepted,
                    reason=reasons[k],
                    seeds=tuple(range(first_seed, first_seed + len(results[k]))),
                    simulated=mean_metrics(results[k]),
                    promises=promises_kept(results[k], constraint),
                )
                for k in range(len(columns))
            )
        )


def no_verification() -> None:
    """`verify=none`."""
