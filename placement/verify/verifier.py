"""Every GPU of a placement in the twin, with seeds that nobody has seen, until the case is clear.

An optimizer picks lucky columns, so a column is judged by fresh windows and by what they prove (`claim`), not by means.
Hopeless GPUs are refuted after a few windows; others get as many as the claim takes, and twice that while they are
undecided. GPUs alike share windows.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Protocol

from placement.problem import timing
from placement.verify.alike import groups_alike
from placement.verify.claim import EARLY_LOOKS, Claim
from placement.verify.judge import Opinion, deviations, few_requests, judge, mean_metrics, promises_kept
from placement.verify.peaks import busiest_windows
from placement.verify.pool import impatient
from placement.verify.verdict import NOT_JUDGED, OUT_OF_TIME, ColumnVerdict, Decision, Peak, Verification
from placement.verify.windows import profile_s, random_start_s, starting_at, window_length_s
from twin.config.ranges import Range, check_fields
from twin.figures.health import Constraint
from twin.server.calibration import Calibration
from twin.server.column import Column

if TYPE_CHECKING:
    from twin.figures.result import SimulationResult
    from twin.workload.recording import Recording

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
#: One window: column, seed, length in seconds.
Simulate = Callable[[Column, int, float], "SimulationResult"]

#: Verification seeds start here: no training run or example uses them.
FIRST_SEED = 1_000_000
#: Of windows that are only timed.
TRIAL_SEED = 500_000_000
#: More than a round can use: GPUs alike get windows of their own each.
SEEDS_OF_A_ROUND = 1_000_000
#: Windows of its own that every GPU gets, however many are alike.
OWN_WINDOWS = 3


class Verifier(Protocol):
    """Judges columns by something better than the planning model, each by the calibration of its GPU type."""

    def columns(
        self,
        columns: Sequence[Column],
        calibrations: Mapping[str, Calibration],
        constraint: Constraint,
        *,
        round_: int,
        progress: Progress | None = None,
        stop_at_refuted: bool = False,
        deadline: float = math.inf,
    ) -> Verification: ...


@dataclass(slots=True)
class _Group:
    """Columns alike, and what was simulated of them: (member, seed, result) of every window."""

    members: list[int]
    window_s: float
    looks: tuple[int, ...]
    allowed: tuple[int, ...]
    results: list[tuple[int, int, SimulationResult]] = field(default_factory=list)
    opinion: Opinion = field(default_factory=lambda: Opinion("open", "not looked at", 0))

    def windows(self, member: int | None = None) -> list[SimulationResult]:
        return [r for m, _, r in self.results if member is None or m == member]


@dataclass(frozen=True, slots=True)
class TwinVerifier:
    """Simulates every GPU in the twin.

    Args:
        name: of the level, for people.
        bad_hours: an accepted GPU has a smaller share of bad hours than this ...
        error: ... but for this probability.
        hours: windows of the first look that may accept.
        max_hours: most windows of a GPU, or of GPUs alike.
        horizon_s: length of a window; an hour, because shorter ones are biased, not only noisy. Windows are longer
            where hardly a request arrives in one.
        replay_windows: busiest windows of a recorded workload, or of rates that follow a profile, that every GPU must
            stand; 0 = none.
        seed: shifts all verification seeds.
        threads: simulations at a time; null = processors.
        max_rounds: most rounds of verify, tighten and solve again.
    """

    name: str = "quick"
    bad_hours: float = 0.1
    error: float = 0.05
    hours: int = 60
    max_hours: int = 240
    horizon_s: Annotated[float, Range(above=0, unit="seconds")] = 3600.0
    replay_windows: Annotated[int, Range(0, 100)] = 3
    seed: Annotated[int, Range(0, 99_999)] = 0
    threads: Annotated[int | None, Range(1, hint="or null for the processors")] = None
    max_rounds: Annotated[int, Range(0, 100)] = 8

    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"verify.{name}")
        _ = self.claim

    @property
    def claim(self) -> Claim:
        """What an accepted GPU is claimed to be."""
        return Claim(self.name, self.bad_hours, self.error, self.hours, self.max_hours, self.max_rounds + 1)

    def columns(
        self,
        columns: Sequence[Column],
        calibrations: Mapping[str, Calibration],
        constraint: Constraint,
        *,
        round_: int,
        progress: Progress | None = None,
        stop_at_refuted: bool = False,
        deadline: float = math.inf,
    ) -> Verification:
        """Judges columns; every round gets seeds of its own.

        Args:
            calibrations: of each GPU type by name.
            deadline: `timing.now()` value after which no window is begun: what is open then is undecided.
        """

        def run(column: Column, seed: int, window_s: float) -> SimulationResult:
            return one_window(column, calibrations[column.setting.gpu_type], constraint, seed, window_s)

        first = FIRST_SEED + (self.seed * (self.max_rounds + 1) + round_) * SEEDS_OF_A_ROUND
        return self.judged(
            columns, constraint, run, first_seed=first, progress=progress, stop_at_refuted=stop_at_refuted,
            deadline=deadline,
        )  # fmt: skip

    def expected_s(
        self, columns: Sequence[Column], calibrations: Mapping[str, Calibration], constraint: Constraint
    ) -> float:
        """Seconds that the first look at these columns takes, by an hour of the busiest one."""
        groups = groups_alike(columns, constraint.slo)
        busiest = columns[groups[0][0]]
        calibration = calibrations[busiest.setting.gpu_type]
        one_window(busiest, calibration, constraint, TRIAL_SEED, self.horizon_s)  # loads what was compiled
        began = timing.now()
        one_window(busiest, calibration, constraint, TRIAL_SEED + 1, self.horizon_s)
        windows = sum(max(self.hours, OWN_WINDOWS * len(group)) for group in groups)
        return (timing.now() - began) * windows / (self.threads or os.cpu_count() or 1)

    def judged(
        self,
        columns: Sequence[Column],
        constraint: Constraint,
        run: Simulate,
        *,
        first_seed: int,
        progress: Progress | None = None,
        stop_at_refuted: bool = False,
        deadline: float = math.inf,
    ) -> Verification:
        """Sequential looks with any simulation `run(column, seed, window_s)`.

        Args:
            stop_at_refuted: one refuted GPU ends it: what is undecided then stays so, because the placement changes.
        """
        claim = self.claim
        groups = [self._group(columns, members, constraint) for members in groups_alike(columns, constraint.slo)]
        open_groups = list(groups)
        with impatient(self.threads) as pool:
            for stage in range(len(EARLY_LOOKS) + max((len(g.looks) for g in groups), default=0)):
                jobs = [
                    (g, g.members[n % len(g.members)], first_seed + n)
                    for g in open_groups
                    for n in range(len(g.results), _windows_at(g, stage))
                ]
                done = pool.map(
                    lambda job: run(columns[job[1]], job[2], job[0].window_s) if timing.now() < deadline else None,
                    jobs,
                )
                late = False
                for (group, member, seed), result in zip(jobs, done, strict=True):
                    if result is None:
                        late = True
                    else:
                        group.results.append((member, seed, result))
                for group in open_groups:
                    if late:
                        group.opinion = Opinion("open", OUT_OF_TIME, group.opinion.bad)
                    else:
                        group.opinion = self._opinion(group, stage, constraint, claim)
                if late:
                    timing.cut("hours of verification")
                    break
                open_groups = [g for g in open_groups if g.opinion.decision == "open"]
                log.debug("look %d: %d of %d groups of GPUs open", stage + 1, len(open_groups), len(groups))
                if progress:
                    progress(len(columns) - sum(len(g.members) for g in open_groups), len(columns))
                refuted = any(g.opinion.decision == "refuted" for g in groups)
                if not open_groups or (stop_at_refuted and refuted):
                    for group in open_groups:
                        group.opinion = Opinion("open", NOT_JUDGED, group.opinion.bad)
                    break
        verdicts: list[ColumnVerdict | None] = [None] * len(columns)
        for group in groups:
            for member in group.members:
                verdicts[member] = self._verdict(group, member, columns[member], constraint)
        found = Verification(tuple(v for v in verdicts if v is not None))
        log.info("seeds from %d on: %d of %d columns accepted", first_seed, len(found.having("accepted")), len(columns))
        return found

    def _group(self, columns: Sequence[Column], members: list[int], constraint: Constraint) -> _Group:
        claim = self.claim
        looks = claim.looks(OWN_WINDOWS * len(members))
        length_s = window_length_s(
            columns[members[0]],
            horizon_s=self.horizon_s,
            windows=looks[0],
            requests=constraint.least_requests(claim.error),
        )
        return _Group(members, length_s, looks, claim.allowed(looks))

    def _opinion(self, group: _Group, stage: int, constraint: Constraint, claim: Claim) -> Opinion:
        look = stage - len(EARLY_LOOKS)
        if look >= len(group.looks):
            return group.opinion
        allowed = group.allowed[look] if look >= 0 else -1
        looks = len(EARLY_LOOKS) + len(group.looks)
        members = [group.windows(member) for member in group.members]
        opinion = judge(members, constraint, claim, allowed=allowed, looks=looks)
        if opinion.decision != "accepted" or len(group.members) == 1:
            return opinion
        # Alike is not the same: a GPU that fails in all of its own windows is not saved by the others.
        for own in members:
            bad = [why for why in map(constraint.broken_window, own) if why]
            if len(bad) >= claim.refuting(len(own)):
                return Opinion(
                    "refuted", f"{len(bad)} of its own {len(own)} hours broke the rule, e.g. {bad[0]}", len(bad)
                )
        return opinion

    def _verdict(self, group: _Group, member: int, column: Column, constraint: Constraint) -> ColumnVerdict:
        own = group.windows(member)
        results = group.windows()
        decision: Decision = "undecided"
        reason = group.opinion.reason
        if group.opinion.decision != "open":
            decision = group.opinion.decision
        elif results and not sum(r.arrivals for r in results):
            days = group.window_s * len(results) / 86_400
            decision, reason = "untested", f"not tested: no request arrived in {days:,.0f} simulated days"
        return ColumnVerdict(
            decision=decision,
            reason=reason,
            seeds=tuple(s for m, s, _ in group.results if m == member),
            simulated=mean_metrics(own or results),
            hours=len(results),
            bad_hours=group.opinion.bad,
            window_s=group.window_s,
            alike=len(group.members),
            few_requests=few_requests(own, constraint, self.error) if own else len(column.adapters),
            promises=promises_kept(own, constraint) if own else (),
            deviations=deviations(own),
        )

    def peaks(
        self,
        columns: Sequence[Column],
        calibrations: Mapping[str, Calibration],
        constraint: Constraint,
        *,
        recording: Recording | None,
        shares: Sequence[Sequence[float]],
    ) -> tuple[Peak, ...]:
        """The busiest windows, of the recorded requests or by the rate profiles, on every GPU.

        Args:
            shares: of each column's adapters, the share of the adapter's requests that this GPU gets.
        """
        if not self.replay_windows:
            return ()
        return busiest_windows(
            columns,
            calibrations,
            constraint,
            recording=recording,
            shares=shares,
            windows=self.replay_windows,
            window_s=self.horizon_s,
            seed=FIRST_SEED + self.seed,
            threads=self.threads or os.cpu_count() or 1,
        )


def one_window(
    column: Column, calibration: Calibration, constraint: Constraint, seed: int, window_s: float
) -> SimulationResult:
    """A window as verification plays it: at a random time of rates that follow a longer profile."""
    from twin.simulation import simulate

    span_s = profile_s(column)
    if span_s > window_s:
        column = starting_at(column, random_start_s(span_s, seed))
    return simulate(column, calibration, horizon_s=window_s, seed=seed, default_ttft_slo_s=constraint.slo.ttft_p99_s)


def _windows_at(group: _Group, stage: int) -> int:
    """Windows that a group has after a look; its own last number after its last look."""
    if stage < len(EARLY_LOOKS):
        return min(EARLY_LOOKS[stage], group.looks[0])
    return group.looks[min(stage - len(EARLY_LOOKS), len(group.looks) - 1)]


def no_verification() -> None:
    """`verify=none`."""
