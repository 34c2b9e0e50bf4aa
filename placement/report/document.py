"""The files of a run: `placement.json` (docs/placement.schema.json), `placement.csv`, `report.html`, `deploy/`."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from placement.config import Run, config_hash
from placement.report.result import Result, Status, predicted_metrics
from twin.files import write_text

SCHEMA_VERSION = 1
PACKAGES = ("adapter-placement", "numpy", "numba", "scipy", "highspy", "pyomo", "ortools", "hydra-core")


def document(run: Run, result: Result) -> dict[str, Any]:
    """The result as plain containers; NaN becomes null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": result.status,
        "termination": result.termination,
        "objective": _finite(result.objective),
        "objective_units": {t.name: t.unit for t in run.objective.terms},
        "terms": _finite(result.terms),
        "bound": _finite(result.bound),
        "bound_outer": _finite(result.bound_outer),
        "bound_tightened": _finite(result.bound_tightened),
        "gap": _finite(result.gap),
        "simulated_objective": _finite(result.simulated_objective),
        "simulated_terms": _finite(result.simulated_terms),
        "certified_minimum_gpus": result.certified_minimum,
        "solver": result.solver,
        "runtime_s": result.solver_s,
        "total_runtime_s": result.runtime_s,
        "workload": _workload(run),
        "gpus": [_gpu(run, result, k) for k in range(len(result.gpus))],
        "verification": _verification(run, result),
        "warnings": list(result.warnings),
        "provenance": provenance(run, result),
    }


def _workload(run: Run) -> dict[str, Any]:
    w = run.workload
    return {
        "name": w.name,
        "adapters": len(w.adapters),
        "ranks": sorted({a.rank for a in w.adapters}),
        "rate_req_per_s": w.total_rate_req_per_s,
        "output_tokens_per_s": w.total_output_tokens_per_s,
        "notes": list(w.notes),
    }


def _gpu(run: Run, result: Result, index: int) -> dict[str, Any]:
    gpu, problem = result.gpus[index], result.problem
    setting = problem.options[gpu.option].setting
    items = sorted(gpu.items, key=lambda i: problem.items[i].adapter_id)
    loras = sum(problem.items[i].rank > 0 for i in items)
    # vLLM needs every adapter of the server on the host: the flag follows from the assignment.
    setting = replace(setting, max_cpu_loras=max(setting.max_loras, loras, setting.max_cpu_loras or 0))
    verdict = result.verification.gpus[index] if result.verification is not None else None
    return {
        "gpu_id": f"gpu{index:03d}",
        "gpu_type": setting.gpu_type,
        "setting": setting.flags(),
        "adapters": [
            {
                "adapter_id": run.workload.adapters[int(problem.item_adapter[i])].adapter_id,
                "rank": problem.items[i].rank,
                "share": float(problem.item_share[i]),
                "rate_req_per_s": problem.items[i].rate_req_per_s,
            }
            for i in items
        ],
        "predicted": _finite(predicted_metrics(problem, gpu)),
        "simulated": _finite(verdict.simulated) if verdict else {},
        "accepted": verdict.accepted if verdict else None,
        "reason": verdict.reason if verdict else "",
        "seeds": list(verdict.seeds) if verdict else [],
    }


def _verification(run: Run, result: Result) -> dict[str, Any]:
    checked = result.verification
    return {
        **_method(run),
        "passed": checked.passed if checked is not None else None,
        "rounds": result.rounds,
        "history": _finite(result.history),
        "gpus": [
            {"gpu_id": f"gpu{k:03d}", "accepted": v.accepted, "reason": v.reason, "seeds": list(v.seeds)}
            for k, v in enumerate(checked.gpus if checked is not None else ())
        ],
    }


def _method(run: Run) -> dict[str, Any]:
    return {
        "method": "none" if run.verifier is None else "twin",
        "rule": run.constraint.rule,
        "ttft_p99_slo_s": run.constraint.slo.ttft_p99_s,
        "confidence": getattr(run.verifier, "confidence", None),
    }


def provenance(run: Run, result: Result | None = None) -> dict[str, Any]:
    """Where the numbers come from: everything needed to compute them again."""
    from surrogates.model.context import calibration_hash

    stamp = run.calibration.stamp
    return {
        "config_hash": config_hash(run.config),
        "seeds": {
            "run": run.options.seed,
            "verification": sorted({s for v in result.verification.gpus for s in v.seeds})
            if result is not None and result.verification is not None
            else [],
        },
        "calibration": {
            "name": run.calibration.name,
            "gpu_type": stamp.gpu_type,
            "model": stamp.model,
            "engine": f"{stamp.engine} {stamp.engine_version}",
            "date": str(stamp.date),
            "source": stamp.source,
            "hash": calibration_hash(run.calibration),
        },
        "surrogate": _surrogate(run),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
    }


def _surrogate(run: Run) -> dict[str, Any]:
    target = str(run.config["surrogate"].get("_target_", ""))
    meta: Mapping[str, Any] = getattr(getattr(run.planning, "artifact", None), "meta", {})
    return {"model": target, "hash": meta.get("weights_sha256"), "margin_override": run.constraint.margin}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def failure(run: Run, status: Status, message: str) -> dict[str, Any]:
    """The document of a run without a placement."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "termination": "optimal" if status == "infeasible" else "time_limit",
        **dict.fromkeys(("objective", "bound", "bound_outer", "bound_tightened", "gap", "simulated_objective")),
        "objective_units": {t.name: t.unit for t in run.objective.terms},
        "terms": {},
        "simulated_terms": {},
        "certified_minimum_gpus": None,
        "solver": run.solver.name,
        "runtime_s": 0.0,
        "total_runtime_s": 0.0,
        "workload": _workload(run),
        "gpus": [],
        "verification": {**_method(run), "passed": None, "rounds": 0, "history": [], "gpus": []},
        "warnings": [message],
        "provenance": provenance(run),
    }


def _finite(value: Any) -> Any:
    """Plain JSON values: NaN and infinities become null, also inside containers."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def to_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def to_csv(data: Mapping[str, Any]) -> str:
    """One line per adapter and GPU: gpu_id, gpu_type, the setting's flags, adapter_id, share."""
    text = io.StringIO()
    flags = list(data["gpus"][0]["setting"]) if data["gpus"] else []
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["gpu_id", "gpu_type", *flags, "adapter_id", "share"])
    for gpu in data["gpus"]:
        for adapter in gpu["adapters"]:
            writer.writerow(
                [gpu["gpu_id"], gpu["gpu_type"], *(gpu["setting"][f] for f in flags), adapter["adapter_id"],
                 repr(adapter["share"])]
            )  # fmt: skip
    return text.getvalue()


def write_outputs(run: Run, data: dict[str, Any], directory: Path) -> list[Path]:
    """Writes all files; `placement.json` last, so that it exists only if the others do."""
    from placement.report.html import render

    files = run.exporter.write(data, directory) if run.exporter is not None else []
    table, report, main = (directory / n for n in ("placement.csv", "report.html", "placement.json"))
    write_text(table, to_csv(data))
    write_text(report, render(data))
    write_text(main, to_json(data))
    return [main, table, report, *files]
