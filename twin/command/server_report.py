"""`metrics.json` of one simulated server, as plain containers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from twin.confidence.intervals import intervals, means
from twin.figures import health
from twin.figures.advice import advice
from twin.figures.bottleneck import Bottleneck, explained, mean_bottleneck
from twin.figures.prediction import QUEUE_LABELS
from twin.figures.promises import kept, summary
from twin.figures.result import SimulationResult
from twin.server.calibration import Calibration
from twin.server.derived import derived_note
from twin.server.memory import host_memory_error, kv_cache_tokens
from twin.wording import finite
from twin.workload.adapter import Adapter
from twin.workload.workload import Workload

if TYPE_CHECKING:
    from twin.command.options import Command, Judge
    from twin.server.column import Column

SCHEMA_VERSION = 1
Document = dict[str, Any]


def one_window(command: Command, seed: int) -> Callable[[Column], dict[str, float]]:
    """Figures of another column in the window of this seed."""
    from twin.simulation import simulate

    def figures(column: Column) -> dict[str, float]:
        return simulate(
            column, command.calibration, horizon_s=command.options.horizon_s, seed=seed,
            default_ttft_slo_s=command.judge.slo.ttft_p99_s,
        ).row  # fmt: skip

    return figures


def server_report(
    command: Command, results: Sequence[SimulationResult], facts: Sequence[Bottleneck], warnings: Sequence[str]
) -> Document:
    """What the table shows and more; the same command gives the same bytes."""
    from twin.server.column import Column

    workload, setting, calibration = command.workload, command.setting, command.calibration
    column = Column(workload.adapters, setting)
    rows = [r.row for r in results]
    limits = mean_bottleneck(facts)
    tokens = kv_cache_tokens(setting, calibration)
    document = {
        "schema_version": SCHEMA_VERSION,
        "what": "server",
        "workload": workload_report(workload),
        "server": {
            "gpu_type": setting.gpu_type,
            "setting": setting.flags(),
            "kv_cache_tokens": tokens,
            "adapters_in_slots": column.adapters_in_slots,
        },
        # Of a finite load the mean time that it took.
        "horizon_s": float(np.mean([r.horizon_s for r in results])),
        "seeds": [r.seed for r in results],
        "offered": offered(results),
        "metrics": means(rows),
        "intervals": intervals(rows),
        "queue": queue_label(results),
        **judged(results, workload.adapters, command.judge),
        "limits": {
            "by": limits.limit,
            "explanation": explained(limits, setting),
            "advice": advice(limits, column, calibration, results[0].row, one_window(command, results[0].seed)),
            "shares": asdict(limits),
        },
        "runs": [
            {
                "seed": r.seed, "queue": QUEUE_LABELS[int(r.row["queue"])], "arrivals": r.arrivals, "steps": r.steps,
                "loads": r.loads, "disk_loads": r.disk_loads, "preemptions": r.preemptions,
                "max_waiting": r.max_waiting, "metrics": r.row,
            }
            for r in results
        ],
        "warnings": [*calibration_warnings(calibration), *setting_warnings(column, calibration), *warnings],
        "provenance": provenance(calibration, command.config),
    }  # fmt: skip
    plain = finite(document)
    assert isinstance(plain, dict)
    return plain


def workload_report(workload: Workload) -> Document:
    loras = [a for a in workload.adapters if a.rank > 0]
    return {
        "name": workload.name,
        "adapters": len(loras),
        "base_model": len(loras) < len(workload.adapters),
        "ranks": sorted({a.rank for a in loras}),
        "rate_req_per_s": workload.total_rate_req_per_s,
        "output_tokens_per_s": workload.total_output_tokens_per_s,
        "notes": list(workload.notes),
        "reading": None if workload.reading is None else workload.reading.row(),
    }


def offered(results: Sequence[Any]) -> dict[str, float]:
    """What arrived, mean over simulations; tokens are those of all requests, served or not."""
    rates = [r.arrivals / r.horizon_s for r in results]
    tokens = [
        r.row["throughput_tps"] / r.row["served_fraction"] if r.row["served_fraction"] > 0 else float("nan")
        for r in results
    ]
    return {"requests_per_s": float(np.mean(rates)), "tokens_per_s": float(np.mean(tokens))}


def queue_label(results: Sequence[Any]) -> str:
    """The label that most simulations have; of a tie the more severe."""
    labels = [int(r.row["queue"]) for r in results]
    return QUEUE_LABELS[max(set(labels), key=lambda v: (labels.count(v), v))]


def judged(results: Sequence[Any], adapters: Sequence[Adapter], judge: Judge) -> Document:
    """Verdicts of both rules, the one asked for, the promises, and the adapters that are late too often."""
    ids = [a.adapter_id for a in adapters]
    verdicts: dict[str, dict[str, object]] = {}
    for name in health.RULES:
        verdict = health.judge(results, name, judge.slo)
        # The rule knows positions, the reader knows names.
        reason = re.sub(r"^adapter (\d+) ", lambda m: f"adapter {ids[int(m[1])]} ", verdict.reason)
        verdicts[name] = {"healthy": verdict.healthy, "reason": reason}
    counts = np.sum([r.counts for r in results], axis=0)
    late = np.sum([r.late_counts for r in results], axis=0)
    worst = sorted(health.starving_adapters(counts, late).tolist(), key=lambda a: (-late[a] / counts[a], a))
    return {
        "rule": judge.rule,
        "ttft_slo_s": judge.slo.ttft_p99_s,
        "healthy": verdicts[judge.rule]["healthy"],
        "verdicts": verdicts,
        "promises": summary(kept(results, judge.slo, late_share=health.MAX_ADAPTER_LATE_SHARE)),
        "late": {
            "requests": int(late.sum()),
            "judged_requests": int(counts.sum()),
            "adapters_with_late_requests": int((late > 0).sum()),
            "starving": [
                {"adapter_id": ids[a], "late": int(late[a]), "requests": int(counts[a])} for a in worst
            ],
        },
    }  # fmt: skip


def calibration_warnings(calibration: Calibration) -> list[str]:
    """That nobody measured it, where nobody did."""
    return [] if calibration.derived is None else [derived_note(calibration.name, calibration.derived)]


def setting_warnings(column: Any, calibration: Calibration) -> list[str]:
    """Where the setting leaves the ranges that the calibration was fitted in, or host memory."""
    setting = column.setting
    notes = calibration.outside(
        max_loras=setting.max_loras,
        max_lora_rank=setting.max_lora_rank,
        max_num_seqs=setting.max_num_seqs,
        num_adapters=column.adapters_in_slots,
    )
    cached = setting.max_cpu_loras if setting.max_cpu_loras is not None else column.adapters_in_slots
    warnings = [f"{note}: the result is an extrapolation" for note in notes]
    problem = host_memory_error(cached, setting, calibration)
    if problem:
        warnings.append(problem)
    if cached < column.adapters_in_slots and calibration.load.disk_ms(setting.max_lora_rank) == 0:
        warnings.append(
            f"{calibration.name} knows no time to load an adapter from disk: loads beyond max_cpu_loras {cached} cost "
            "nothing here"
        )
    return warnings


def provenance(calibration: Calibration, config: Mapping[str, Any]) -> Document:
    """What it takes to compute the numbers again."""
    stamp = calibration.stamp
    return {
        "config_hash": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "calibration": {
            "name": calibration.name, "gpu_type": stamp.gpu_type, "model": stamp.model,
            "engine": f"{stamp.engine} {stamp.engine_version}", "date": str(stamp.date), "source": stamp.source,
        },
    }  # fmt: skip
