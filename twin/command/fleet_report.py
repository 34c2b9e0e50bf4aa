"""A placement simulated as a whole: `python -m twin placement=placement.json`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from twin.command.placement_file import read_placement
from twin.command.server_report import (
    SCHEMA_VERSION,
    calibration_warnings,
    judged,
    offered,
    provenance,
    queue_label,
    setting_warnings,
    workload_report,
)
from twin.confidence.intervals import intervals, means
from twin.confidence.seeds import short_window
from twin.errors import InputError
from twin.figures.prediction import QUEUE_LABELS
from twin.fleet.node import Failure
from twin.fleet.simulate import simulate_fleet
from twin.wording import finite

if TYPE_CHECKING:
    from twin.command.options import Command
    from twin.fleet.result import FleetResult

Document = dict[str, Any]


def run_fleet(command: Command) -> Document:
    """Simulates the fleet under every seed; returns `metrics.json` as plain containers.

    Raises:
        InputError: an option that fits one server only, or a placement that does not fit the workload.
    """
    assert command.placement is not None
    options, calibration = command.options, command.calibration
    for key in ("adapters_csv", "plot", "chrome_trace", "overheads"):
        if getattr(options, key):
            raise InputError(
                f"{key}=true looks into one server, a placement has several",
                where=key,
                remedy="simulate the GPU of interest alone: 'adapters.ids=[...]' with its engine.max_loras=...",
            )
    file = read_placement(
        command.placement, command.workload, gpu_type=command.setting.gpu_type, calibration=calibration.name,
        rate_scale=options.rate_scale,
    )  # fmt: skip
    gpus = file.fleet.servers
    failures = []
    for index, f in enumerate(command.failures):
        if f.gpu >= len(gpus):
            raise InputError(
                f"failures[{index}].gpu = {f.gpu}, the placement has GPUs 0 to {len(gpus) - 1}",
                where=f"failures[{index}].gpu",
                remedy="count GPUs from 0, in the order of the placement",
            )
        failures.append(Failure(f.gpu, f.at_s, float("inf") if f.back_s is None else f.back_s, f.detect_s))

    def job(seed: int) -> FleetResult:
        return simulate_fleet(
            file.fleet, {command.setting.gpu_type: calibration}, router=options.router, failures=failures,
            horizon_s=options.horizon_s, seed=seed, default_ttft_slo_s=command.judge.slo.ttft_p99_s, threads=1,
        )  # fmt: skip

    with ThreadPoolExecutor(max_workers=options.threads) as pool:
        results = list(pool.map(job, options.all_seeds()))
    return _document(command, file.fleet.adapters, file.fleet.servers, results, [*file.notes])


def _document(command: Command, adapters: Any, servers: Any, results: list[FleetResult], notes: list[str]) -> Document:
    from twin.server.column import Column

    options, calibration = command.options, command.calibration
    rows = [r.row for r in results]
    by_id = {a.adapter_id: a for a in adapters}
    warnings = [*calibration_warnings(calibration), *notes]
    gpus = []
    for index, server in enumerate(servers):
        held = tuple(by_id[i] for i in server.shares)
        mine = [r.servers[index] for r in results]
        warnings += [f"{server.name}: {w}" for w in setting_warnings(Column(held, server.setting), calibration)]
        gpus.append({
            "gpu_id": server.name,
            "gpu_type": server.setting.gpu_type,
            "setting": server.setting.flags(),
            "adapters": sum(a.rank > 0 for a in held),
            "base_model": any(a.rank == 0 for a in held),
            "requests_per_s": float(np.mean([s.requests for s in mine])) / options.horizon_s,
            "metrics": means([s.row for s in mine]),
            "intervals": intervals([s.row for s in mine]),
            "queue": queue_label(mine),
            "down_s": mine[0].down_s,
            "lost": float(np.mean([s.lost for s in mine])),
        })  # fmt: skip
    document = {
        "schema_version": SCHEMA_VERSION,
        "what": "fleet",
        "workload": workload_report(replace(command.workload, adapters=adapters)),
        "router": options.router,
        "failures": [
            {"gpu": f.gpu, "at_s": f.at_s, "back_s": f.back_s, "detect_s": f.detect_s} for f in command.failures
        ],
        "horizon_s": options.horizon_s,
        "seeds": [r.seed for r in results],
        "offered": offered(results),
        "metrics": means(rows),
        "intervals": intervals(rows),
        "queue": queue_label(results),
        **judged(results, adapters, command.judge),
        "resent": float(np.mean([r.resent for r in results])),
        "unrouted": float(np.mean([r.unrouted for r in results])),
        "rejected": float(np.mean([r.rejected for r in results])),
        "gpus": gpus,
        "runs": [
            {"seed": r.seed, "queue": QUEUE_LABELS[int(r.row["queue"])], "arrivals": r.arrivals, "metrics": r.row}
            for r in results
        ],
        "warnings": [*warnings, *filter(None, [short_window(results)])],
        "provenance": provenance(calibration, command.config),
    }  # fmt: skip
    plain = finite(document)
    assert isinstance(plain, dict)
    return plain
