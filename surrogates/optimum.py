"""`python -m surrogates optimum`: how many adapters one GPU serves best, and with how many slots.

The single-GPU task of arXiv 2508.08343: adapters of a few rates and ranks are added to a server with `max_loras` slots
until it starves; over all numbers of slots, the largest throughput without starvation is the optimum. Too few slots
waste time on reloads, too many take the KV cache's memory and time in every step.

For each number of slots, numbers of adapters are tried upwards, at least as many as slots, until the first one that
starves, as the publication does. A candidate's throughput is what the twin serves in a simulated hour (`source=twin`),
or what it asks for (`physics`, `neural`, which know the rule `stable`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from twin.config.ranges import Range
from twin.errors import InfeasibleError, InputError
from twin.figures.health import Rule, check_rule, judge
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column
from twin.server.memory import memory_error
from twin.server.settings import EngineSetting
from twin.sources.synthetic import PUBLISHED_OUTPUT_MEAN, PUBLISHED_PROMPT_MEAN, discrete_rates

Source = Literal["neural", "physics", "twin"]
SOURCES: tuple[Source, ...] = ("neural", "physics", "twin")
#: Slots and adapters of the published measurements.
PUBLISHED_GRID = (16, 32, 64, 96, 128, 160, 192, 256, 320, 384)
#: Tells whether a column is healthy, and its tokens per second.
Judge = Callable[[Column], tuple[bool, float]]


@dataclass(frozen=True, slots=True)
class OptimumCommand:
    """`key=value` arguments.

    Args:
        rates, ranks: of the adapters, dealt in turn (`workload=published`).
        prompt_tokens, output_tokens: mean lengths of their requests.
        slots: numbers of slots to choose from. adapters: numbers of adapters.
        rule: what starves: `published` (throughput / ideal < 0.90) or `stable`.
        source: `neural` (physics with its residual), `physics` or `twin`.
    """

    calibration: str = "llama-3.1-8b-h100-64gb"
    rates: tuple[float, ...] = (0.4, 0.05, 0.0125)
    ranks: tuple[int, ...] = (8, 16, 16)
    prompt_tokens: Annotated[float, Range(1, unit="tokens")] = PUBLISHED_PROMPT_MEAN
    output_tokens: Annotated[float, Range(1, unit="tokens")] = PUBLISHED_OUTPUT_MEAN
    slots: tuple[int, ...] = PUBLISHED_GRID
    adapters: tuple[int, ...] = PUBLISHED_GRID
    rule: str = "published"
    source: str = "twin"
    seed: Annotated[int, Range(0)] = 0


@dataclass(frozen=True, slots=True)
class Point:
    """Best number of adapters of a number of slots.

    Args:
        adapters: 0 = the server does not start, or already the fewest adapters starve it.
        throughput_tps: prompt and output tokens per second of that many.
        starves_at: the first number of adapters that starves; None = none of those tried.
        crashes: vLLM would not start: no memory.
    """

    slots: int
    adapters: int
    throughput_tps: float
    starves_at: int | None
    crashes: bool = False


def column_of(adapters: int, slots: int, options: OptimumCommand, gpu_type: str) -> Column:
    """The server with so many adapters of the published shape."""
    workload = discrete_rates(
        adapters, list(options.rates), list(options.ranks), seed=options.seed, prompt_mean=options.prompt_tokens,
        output_mean=options.output_tokens,
    )  # fmt: skip
    return Column(workload.adapters, EngineSetting(gpu_type, slots, max(options.ranks)))


def judge_of(options: OptimumCommand, calibration: Calibration) -> Judge:
    """Tells by the chosen source whether a column starves.

    Raises:
        InputError: no such source or rule.
    """
    rule = check_rule(options.rule)
    if options.source == "twin":
        return _by_twin(calibration, rule, options.seed)
    if options.source not in SOURCES:
        raise InputError(f"source {options.source!r} is unknown", remedy=f"use one of {', '.join(SOURCES)}")
    if rule == "published":
        raise InputError(
            "the steady state knows the rule 'published' only roughly where slots are few",
            where="rule, source",
            remedy="use source=twin, or rule=stable",
        )
    return _by_physics(calibration, corrected=options.source == "neural")


def _by_twin(calibration: Calibration, rule: Rule, seed: int) -> Judge:
    from twin.simulation import simulate

    def verdict(column: Column) -> tuple[bool, float]:
        result = simulate(column, calibration, seed=seed)
        return judge([result], rule).healthy, result.row["throughput_tps"]

    return verdict


def _by_physics(calibration: Calibration, *, corrected: bool) -> Judge:
    from surrogates.residual.model import corrected as corrected_states
    from surrogates.residual.weights import read_residual
    from surrogates.steady_state.model import steady_state

    residual = read_residual() if corrected else None

    def verdict(column: Column) -> tuple[bool, float]:
        state = steady_state([column], calibration)
        if residual is not None:
            state = corrected_states(state, residual).state
        asked = sum(a.rate_req_per_s * (a.prompt_tokens.mean + a.output_tokens.mean) for a in column.adapters)
        return bool(state.healthy[0] > 0), asked

    return verdict


def best_points(options: OptimumCommand, calibration: Calibration) -> list[Point]:
    """The best number of adapters for every number of slots.

    Raises:
        InputError: nothing to choose from, or a value out of range.
    """
    for name in ("slots", "adapters"):
        if not getattr(options, name):
            raise InputError(f"{name} lists nothing to choose from", where=name, remedy=f"give e.g. {name}=[16,32,64]")
    verdict = judge_of(options, calibration)
    points = []
    for slots in sorted(options.slots):
        setting = EngineSetting(calibration.stamp.gpu_type, slots, max(options.ranks))
        if memory_error(setting, calibration) is not None:
            points.append(Point(slots, 0, 0.0, None, crashes=True))
            continue
        points.append(_climbed(slots, options, calibration.stamp.gpu_type, verdict))
    return points


def _climbed(slots: int, options: OptimumCommand, gpu_type: str, verdict: Judge) -> Point:
    best, throughput = 0, 0.0
    for adapters in sorted(n for n in options.adapters if n >= slots):
        healthy, tokens = verdict(column_of(adapters, slots, options, gpu_type))
        if not healthy:
            return Point(slots, best, throughput, adapters)
        best, throughput = adapters, tokens
    return Point(slots, best, throughput, None)


def optimum(points: Sequence[Point]) -> Point:
    """The point with the largest throughput; the fewest slots among equals.

    Raises:
        InfeasibleError: nothing can be served without starvation.
    """
    served = [p for p in points if p.adapters]
    if not served:
        raise InfeasibleError(
            "no number of slots serves even the fewest adapters without starvation",
            where="rates, slots, adapters",
            remedy="lower the rates, or allow fewer slots and adapters",
        )
    return max(served, key=lambda p: (p.throughput_tps, -p.slots))


def run_optimum(options: OptimumCommand) -> int:
    """Adapters and slots with the largest throughput that one GPU serves without starvation."""
    import json

    calibration = load_calibration(options.calibration)
    points = best_points(options, calibration)
    print(f"{'slots':>6s} {'adapters':>9s} {'tokens/s':>9s} {'starves at':>11s}")
    for p in points:
        if p.crashes:
            print(f"{p.slots:6d} {'-':>9s} {'-':>9s} {'no memory':>11s}")
        else:
            starves = "-" if p.starves_at is None else str(p.starves_at)
            print(f"{p.slots:6d} {p.adapters:9d} {p.throughput_tps:9,.0f} {starves:>11s}")
    best = optimum(points)
    print(json.dumps({"slots": best.slots, "adapters": best.adapters, "throughput_tps": round(best.throughput_tps, 1)}))
    return 0
