"""How sure is the twin? Fresh seeds, one after the other, until a question is decided.

`decide_label`: is this column healthy (a rule of `twin.figures.health`)? `decide_limit`: is the mean of a figure above
or below a limit? `estimate`: the mean of a figure within a relative half width. (`twin.confidence.comparison.compare`:
which of two has more of it?) Each says how many seeds were needed and why it stopped; `twin.confidence.sequential`
holds the statistics, `docs/metrics.md` the rules and error probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.confidence.seeds import (
    FIRST_SEED,
    MIN_SEEDS,
    Budget,
    Run,
    Stopped,
    figure,
    refuse_short,
    relative_width,
    sequential_values,
    short_window,
    why,
)
from twin.confidence.sequential import mean_interval, mean_limit, success_boundary
from twin.config.ranges import Range, check

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LabelDecision:
    """Whether a column is healthy.

    Args:
        healthy: the decision; None if the budget ended first.
        stopped: why.
        error: probability that a decision is wrong, at most.
        share: a column is *healthy* if more than this share of all windows is.
        healthy_seeds: of `seeds`, those whose window is healthy.
        reasons: what was wrong with the others, in order of seeds, without repetitions.
        seeds: those simulated, in order.
    """

    healthy: bool | None
    stopped: Stopped
    error: float
    share: float
    healthy_seeds: int
    reasons: tuple[str, ...]
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        outcome = {True: "healthy", False: "not healthy", None: "undecided"}[self.healthy]
        return f"{outcome}: {self.healthy_seeds} of {len(self.seeds)} seeds healthy ({why(self.stopped, self.error)})"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean of a figure over seeds.

    Args:
        metric: field of `twin.figures.prediction.Prediction`.
        low, high: limits that hold with probability `1 - error` however often one looked.
        stopped: `decided` if the question (width or limit) was answered.
        above: for `decide_limit`: the mean is above the limit; None if open.
        values: of each seed, (S,).
        notes: what a reader must know, e.g. that the window is short.
    """

    metric: str
    mean: float
    low: float
    high: float
    error: float
    stopped: Stopped
    above: bool | None
    values: Array
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def relative_half_width(self) -> float:
        """Half the interval / |mean|; infinite around zero unless the interval is a point."""
        return relative_width(self.low, self.high, self.mean)

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.mean:.6g} [{self.low:.6g}, {self.high:.6g}], {len(self.seeds)} seeds "
            f"({why(self.stopped, self.error)})"
        )


def decide_label(
    run: Run,
    *,
    rule: str = "stable",
    error: float = 0.01,
    share: float = 0.5,
    min_seeds: int = MIN_SEEDS,
    max_seeds: int = 50,
    first_seed: int = FIRST_SEED,
    threads: int = 2,
) -> LabelDecision:
    """Is a column healthy: does more than `share` of all windows pass the rule?

    Every seed gives one window and one verdict. Two exact binomial boundaries
    (`twin.confidence.sequential.success_boundary`) are looked at after each: the chance of the decision `healthy` is at
    most `error` where the true share is `share` or less, that of `not healthy` at most `error` where it is `share` or
    more. No normal law is assumed. At `share = 0.5` unanimous seeds decide after 5 (error 0.05) or 8 (error 0.01).

    Raises:
        InputError: unknown rule, impossible numbers, or windows shorter than half an hour.
    """
    from twin.figures.health import check_rule, judge

    budget = Budget(error, min_seeds, max_seeds, first_seed, threads)
    named = check_rule(rule)
    check(share, "share", Range(above=0, below=1, hint="0.5 asks for the majority of windows"))
    passes = success_boundary(share, error, max_seeds)
    fails = success_boundary(1 - share, error, max_seeds)
    healthy, n = 0, 0
    decision: bool | None = None
    reasons: dict[str, None] = {}
    with ThreadPoolExecutor(max_workers=threads) as pool:
        while decision is None and n < max_seeds:
            batch = max(1, min_seeds - n, _trials_to_go(passes, fails, healthy, n))
            results = list(pool.map(run, range(first_seed + n, first_seed + min(n + batch, max_seeds))))
            refuse_short(results)
            for result in results:
                verdict = judge([result], named)
                n += 1
                healthy += verdict.healthy
                if not verdict.healthy:
                    reasons.setdefault(verdict.reason)
                if n < min_seeds:
                    continue
                if healthy >= passes[n - 1]:
                    decision = True
                elif n - healthy >= fails[n - 1]:
                    decision = False
                if decision is not None:
                    break
    return LabelDecision(
        healthy=decision,
        stopped="budget" if decision is None else "decided",
        error=error,
        share=share,
        healthy_seeds=healthy,
        reasons=tuple(reasons),
        seeds=budget.seeds(n),
    )


def _trials_to_go(passes: Sequence[int], fails: Sequence[int], successes: int, trials: int) -> int:
    """Fewest further trials after which a boundary can be reached."""
    for more in range(1, len(passes) - trials + 1):
        at = trials + more - 1
        if successes + more >= passes[at] or trials - successes + more >= fails[at]:
            return more
    return len(passes) - trials


def _estimate(
    metric: str, values: Array, alpha: float, stopped: Stopped, budget: Budget, *, above: bool | None, notes: set[str]
) -> Estimate:
    low, high = mean_interval(values, alpha)
    mean, seeds = float(values.mean()), budget.seeds(len(values))
    return Estimate(metric, mean, low, high, budget.error, stopped, above, values, seeds, tuple(sorted(notes)))


def estimate(
    run: Run,
    metric: str,
    *,
    relative_half_width: float = 0.01,
    error: float = 0.05,
    min_seeds: int = MIN_SEEDS,
    max_seeds: int = 48,
    first_seed: int = FIRST_SEED,
    threads: int = 2,
) -> Estimate:
    """Mean of a figure, with fresh seeds until half the interval is within `relative_half_width` of the mean.

    Looks after 3, 6, 12, ... seeds; each draws a Student-t interval at `error / number of looks`. Assumes that the
    figure varies about normally between seeds; for a rare event (a late request in one seed of fifty) equal values
    say little, ask `decide_label`. A short window is noted, not refused.

    Raises:
        InputError: unknown figure or impossible numbers.
    """
    check(relative_half_width, "relative_half_width", Range(above=0, hint="e.g. 0.01 for 1 %"))
    notes: set[str] = set()

    def value(seed: int) -> float:
        result = run(seed)
        notes.update(filter(None, [short_window([result])]))
        return figure(result, metric)

    def narrow(values: Array, alpha: float) -> bool:
        low, high = mean_interval(values, alpha)
        return relative_width(low, high, float(values.mean())) <= relative_half_width

    budget = Budget(error, min_seeds, max_seeds, first_seed, threads)
    values, alpha, stopped = sequential_values(value, narrow, budget)
    return _estimate(metric, values, alpha, stopped, budget, above=None, notes=notes)


def decide_limit(
    run: Run,
    metric: str,
    limit: float,
    *,
    error: float = 0.01,
    min_seeds: int = MIN_SEEDS,
    max_seeds: int = 48,
    first_seed: int = FIRST_SEED,
    threads: int = 2,
) -> Estimate:
    """Is the mean of a figure above or below a limit? `above` of the result says so.

    As `placement.verify` asks it: Student-t limits, the error probability shared among the looks. A mean that
    equals the limit stays open.

    Raises:
        InputError: unknown figure, impossible numbers, or windows shorter than half an hour.
    """
    check(limit, "limit", Range(hint="in the figure's unit"))

    def value(seed: int) -> float:
        result = run(seed)
        refuse_short([result])
        return figure(result, metric)

    def side(values: Array, alpha: float) -> bool | None:
        # One of the two claims is true, so each may use the whole alpha.
        if mean_limit(values, alpha, upper=False) > limit:
            return True
        return False if mean_limit(values, alpha, upper=True) < limit else None

    budget = Budget(error, min_seeds, max_seeds, first_seed, threads)
    values, alpha, stopped = sequential_values(value, lambda v, a: side(v, a) is not None, budget)
    above = side(values, alpha) if stopped == "decided" else None
    return _estimate(metric, values, alpha, stopped, budget, above=above, notes=set())
