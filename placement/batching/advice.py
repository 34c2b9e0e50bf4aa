"""One advice: curve, B_opt, the KV memory it needs, what that frees, and replicas."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from placement.batching.config import Advice
from placement.batching.curves import Curve, CurvePoint, Server, law_curve, law_point
from placement.batching.replication import Replication, best, replication, replications
from placement.batching.rules import Choice, choose
from twin.errors import InfeasibleError, InputError
from twin.server.hardware import GIB
from twin.server.memory import MEASURED_UTILIZATION, kv_cache_tokens
from twin.server.roofline import StepParts, step_parts
from twin.wording import finite

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


def document(result: Result) -> dict[str, Any]:
    """Plain containers for `advice.json`."""
    options, choice, memory = result.advice.options, result.choice, result.memory
    calibration = result.advice.server.calibration
    point, largest = choice.point, result.maximum
    return dict(finite(
        {
            "schema_version": 1,
            "model": calibration.model.name,
            "hardware": calibration.gpu.name,
            "calibration": {"name": calibration.name, "engine_version": calibration.stamp.engine_version},
            "rule": options.rule,
            "slo": {"asked": options.slo, "ms": choice.slo_ms, "reference_batch": choice.reference},
            "epsilon": options.epsilon if options.rule == "efficiency" else None,
            "curve": {
                "source": result.curve.source,
                "prefill": result.advice.server.prefill if result.curve.source != "measured" else None,
                "points": [
                    {**asdict(p), "efficiency": choice.efficiency.get(p.batch),
                     "bandwidth_share_of_step": _share(result.parts.get(p.batch)),
                     "arithmetic_intensity": result.intensity.get(p.batch)}
                    for p in result.curve.points
                ],
                "dropped_preempting": list(result.curve.dropped),
            },
            "b_opt": {
                "batch": point.batch,
                "throughput_req_per_s": point.throughput_req_per_s,
                "itl_ms": point.itl_ms,
                "tpot_ms": point.tpot_ms,
                "efficiency": choice.efficiency.get(point.batch),
                "bound_by": choice.bound_by,
            },
            "maximum_batch": {
                "batch": largest.batch,
                "throughput_req_per_s": largest.throughput_req_per_s,
                "itl_ms": largest.itl_ms,
                "throughput_change_pct": _change(point.throughput_req_per_s, largest.throughput_req_per_s),
                "itl_change_pct": _change(point.itl_ms, largest.itl_ms),
            },
            "memory": {**asdict(memory), "measured_at_utilization": MEASURED_UTILIZATION,
                       "needed_gib": memory.needed_bytes / GIB, "freed_gib": memory.freed_bytes / GIB},
            "recommended": {"max_num_seqs": point.batch, "gpu_memory_utilization": memory.utilization},
            "replication": {
                "sharing": options.sharing,
                "at_b_opt": [_replica(r, largest) for r in result.at_batch],
                "recommended": _replica(result.chosen, largest),
                "best": None if result.best is None else _replica(result.best, largest),
                "best_objective": result.best_objective,
                "grid": [_replica(r, largest) for r in result.grid],
            },
            "notes": list(result.notes),
            "config": result.advice.config,
        }
    ))  # fmt: skip


def _share(parts: StepParts | None) -> float | None:
    return None if parts is None else parts.dram_ms / parts.step_ms


def _change(value: float, reference: float) -> float:
    return 100 * (value / reference - 1)


def _replica(r: Replication, largest: CurvePoint) -> dict[str, Any]:
    row: dict[str, Any] = {
        "max_num_seqs": r.batch,
        "servers_per_gpu": r.servers,
        "gpu_memory_utilization": r.utilization,
        "kv_capacity_tokens": r.kv_capacity_tokens,
        "problem": r.problem,
    }
    if r.point is not None:
        row |= {
            "throughput_req_per_s": r.point.throughput_req_per_s,
            "itl_ms": r.point.itl_ms,
            "gpu_busy_share": r.point.busy_share,
            "kv_peak_tokens": r.point.kv_peak_tokens,
            "throughput_change_pct": _change(r.point.throughput_req_per_s, largest.throughput_req_per_s),
            "itl_change_pct": _change(r.point.itl_ms, largest.itl_ms),
        }
    return row
