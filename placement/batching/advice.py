"""One advice: curve, B_opt, the KV memory it needs, what that frees, and replicas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from placement.batching.config import Advice
from placement.batching.curves import Curve, CurvePoint, Server, law_curve, law_point
from placement.batching.replication import Replication, best, replication, replications
from placement.batching.rules import Choice, choose
from twin.errors import InfeasibleError, InputError
from twin.server.memory import kv_cache_tokens
from twin.server.roofline import StepParts, step_parts

#: vLLM takes two decimals well; a recommendation is rounded up to them.
UTILIZATION_STEP = 0.01


@dataclass(frozen=True, slots=True)
class MemoryAdvice:
    """KV memory of one server at B_opt.

    Args:
        needed_tokens: the most tokens held at once, with headroom, and at least the longest request.
        utilization: `gpu_memory_utilization` that gives them.
        freed_bytes: against the share of the GPU that was allowed.
    """

    peak_tokens: float
    needed_tokens: float
    needed_bytes: float
    capacity_tokens: int
    utilization: float
    freed_bytes: float


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that is printed, stored and plotted.

    Args:
        maximum: the usable point with the largest batch, which a user without an advisor would run.
        at_batch: replicas at B_opt, as the publication places them.
        chosen: replicas at B_opt that give the most throughput; latency may exceed the SLO, see `best`.
        best: over all batches and numbers of servers, within the SLO; None if no combination meets it.
        best_objective: what `best` optimises.
        parts: where the step of each batch goes, by batch; empty without a roofline.
    """

    advice: Advice
    curve: Curve
    choice: Choice
    maximum: CurvePoint
    memory: MemoryAdvice
    grid: tuple[Replication, ...]
    at_batch: tuple[Replication, ...]
    chosen: Replication
    best: Replication | None
    best_objective: str
    parts: dict[int, StepParts]
    intensity: dict[int, float]
    notes: tuple[str, ...]


def curve_of(advice: Advice) -> Curve:
    """The curve that the configuration asks for."""
    options, server = advice.options, advice.server
    if options.curve == "measured":
        from placement.batching.measured import measured_curve

        assert options.data is not None
        return measured_curve(Path(options.data).expanduser(), server.calibration.model.name)
    if options.curve == "twin":
        from placement.batching.twin_curve import twin_curve

        return twin_curve(server, options.batches)
    return law_curve(server, options.batches)


def memory_advice(server: Server, point: CurvePoint, headroom: float) -> MemoryAdvice:
    """The smallest memory share that holds a point's peak; the KV cache also holds one longest request.

    Peak, not mean: a run at the mean occupancy preempts half of the time.
    """
    calibration, setting = server.calibration, server.setting(point.batch)
    peak = point.kv_peak_tokens
    if math.isnan(peak):
        peak = law_point(server, point.batch).kv_peak_tokens
    longest = setting.max_model_len or calibration.model.max_model_len
    needed = max(peak * (1 + headroom), float(longest))
    per_token = calibration.model.kv_bytes_per_token
    capacity = kv_cache_tokens(setting, calibration)
    exact = setting.gpu_memory_utilization + (needed + setting.block_size - capacity) * per_token / (
        calibration.gpu.memory_bytes
    )
    steps = math.ceil(round(exact / UTILIZATION_STEP, 6))
    utilization = min(setting.gpu_memory_utilization, steps * UTILIZATION_STEP)
    return MemoryAdvice(
        peak_tokens=peak,
        needed_tokens=needed,
        needed_bytes=needed * per_token,
        capacity_tokens=capacity,
        utilization=round(utilization, 4),
        freed_bytes=(setting.gpu_memory_utilization - utilization) * calibration.gpu.memory_bytes,
    )


def advise(advice: Advice) -> Result:
    """Computes an advice.

    Raises:
        InputError, InfeasibleError: as in `choose`, or the asked number of servers does not fit.
    """
    options, server = advice.options, advice.server
    curve = curve_of(advice)
    choice = choose(curve, options.rule, slo=options.slo, epsilon=options.epsilon)
    notes = [*curve.notes]
    if curve.dropped:
        notes.append(f"batch limits left out, because they preempt: {', '.join(map(str, curve.dropped))}")
    if server.calibration.batching is None:
        notes.append(
            f"{server.calibration.name} holds no measurement of co-located servers: replicas are not considered"
        )
    notes += _outside(server, curve)
    grid, at_batch = _replicas(advice, curve, choice)
    chosen = _most_throughput(at_batch)
    maximum = max(curve.usable, key=lambda p: p.batch)
    fitting = [r for r in (*grid, *at_batch) if r.point is not None]
    least = 0.0 if options.objective == "throughput" else maximum.throughput_req_per_s
    try:
        found = best(fitting, objective=options.objective, slo_ms=choice.slo_ms, least_throughput=least)
    except InfeasibleError as error:
        found = None
        notes.append(error.problem)
    parts, intensity = _roofline(server, curve)
    return Result(
        advice=advice,
        curve=curve,
        choice=choice,
        maximum=maximum,
        memory=memory_advice(server, choice.point, options.headroom),
        grid=tuple(grid),
        at_batch=tuple(at_batch),
        chosen=chosen,
        best=found,
        best_objective=options.objective,
        parts=parts,
        intensity=intensity,
        notes=tuple(notes),
    )


def _outside(server: Server, curve: Curve) -> list[str]:
    largest = max(p.batch for p in curve.points)
    return server.calibration.outside(max_num_seqs=float(largest), gpu_memory_utilization=server.utilization)


def _replicas(advice: Advice, curve: Curve, choice: Choice) -> tuple[list[Replication], list[Replication]]:
    """(all combinations, those at B_opt), by the law or in the twin as the curve is.

    Raises:
        InfeasibleError: the asked number of servers does not fit at B_opt.
    """
    options, server = advice.options, advice.server
    point_of = law_point
    if options.curve == "twin":
        from placement.batching.twin_curve import twin_point

        point_of = twin_point
    most = options.max_servers if server.calibration.batching else 1
    if options.servers is not None and options.servers > most:
        if server.calibration.batching is None:
            raise InputError(
                f"calibration {server.calibration.name!r} holds no measurement of servers that share a GPU",
                where="servers", remedy="leave servers out, or choose e.g. model=opt-1.3b",
            )  # fmt: skip
        most = options.servers
    if options.servers is not None:
        asked = replication(server, choice.point.batch, options.servers, point_of)
        if asked.problem:
            raise InfeasibleError(
                f"{options.servers} servers at a batch of {asked.batch} do not fit: {asked.problem}",
                where="servers",
                remedy="fewer servers, or a smaller batch (a stricter slo)",
            )
        return [asked], [asked]
    batches = [p.batch for p in curve.usable]
    grid = replications(server, batches, most, point_of)
    return grid, [r for r in grid if r.batch == choice.point.batch]


def _most_throughput(found: list[Replication]) -> Replication:
    fitting = [r for r in found if r.point is not None]
    if not fitting:
        raise InfeasibleError(
            f"not even one server fits: {found[0].problem}", where="batches", remedy="give smaller batch limits"
        )
    return max(fitting, key=lambda r: r.point.throughput_req_per_s if r.point else 0.0)


def _roofline(server: Server, curve: Curve) -> tuple[dict[int, StepParts], dict[int, float]]:
    """Where the decode step of each batch goes, at the mean context of a running request."""
    laws = server.calibration.batching
    if laws is None:
        return {}, {}
    context = mean_context(server)
    parts, intensity = {}, {}
    for p in curve.usable:
        bound = laws.roofline.bound(p.batch, p.batch * context)
        law = server.calibration.step
        step_ms = law.base + law.seq * p.batch + law.kv * p.batch * context / 1000
        parts[p.batch] = step_parts(step_ms, laws.sharing.gap_ms(p.batch), bound)
        intensity[p.batch] = bound.intensity
    return parts, intensity


def mean_context(server: Server) -> float:
    """Mean KV tokens of a running request: its prompt and half of its output, weighted by how long it runs."""
    pairs = list(zip(server.lengths.prompt, server.lengths.output, strict=True))
    return sum(o * (p + o / 2) for p, o in pairs) / sum(o for _, o in pairs)
