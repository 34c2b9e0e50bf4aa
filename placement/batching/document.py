"""An advice as plain containers: what `advice.json` holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from placement.batching.advice import Result
from placement.batching.curves import CurvePoint
from placement.batching.replication import Replication
from twin.server.hardware import GIB
from twin.server.memory import MEASURED_UTILIZATION
from twin.server.roofline import StepParts
from twin.wording import finite


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
