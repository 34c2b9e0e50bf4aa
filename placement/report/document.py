"""The files of a run: `placement.json` (docs/placement.schema.json), `placement.csv`, `report.html`, `deploy/`.

`placement.report.result.Result.to_dict` puts the entries together; a run without a placement leaves `failure`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from placement.config import Run, config_hash
from placement.export.files import remove_old
from placement.problem.objectives import GpuCount
from placement.problem.problem import GpuAssignment, Placement, PlacementProblem, Term
from placement.report.certificate import to_lines
from placement.report.details import Details
from placement.report.figures import predicted_metrics
from placement.report.promises import promise_entries
from placement.verify.claim import Claim
from placement.verify.verdict import ColumnVerdict, Peak, Verification
from twin.errors import InputError
from twin.files import write_text
from twin.server.calibration import Calibration, fingerprint
from twin.workload.adapter import PROMISES
from twin.workload.peaks import peak_to_mean

Status = Literal["verified", "unverified", "infeasible", "no_solution"]

SCHEMA_VERSION = 1
#: Files of a run, in the order in which they are written.
OUTPUTS = ("placement.csv", "report.html", "placement.json")
PACKAGES = ("adapter-placement", "numpy", "numba", "scipy", "highspy", "pyomo", "ortools", "hydra-core")


def workload_entry(run: Run) -> dict[str, Any]:
    w = run.workload
    peak = peak_to_mean(w)
    return {
        "name": w.name,
        "adapters": len(w.adapters),
        "ranks": sorted({a.rank for a in w.adapters}),
        "rate_req_per_s": w.total_rate_req_per_s,
        "output_tokens_per_s": w.total_output_tokens_per_s,
        "notes": list(w.notes),
        "reading": None if w.reading is None else finite(w.reading.row()),
        "peak_to_mean": None
        if peak is None
        else {
            "ratio": peak.ratio,
            "window_s": peak.window_s,
            "changing_adapters": peak.changing,
        },
    }


def objective_units(terms: Sequence[Term], price: Mapping[str, float]) -> dict[str, str]:
    """Units of the terms; GPUs that have a price are no number of GPUs any more."""
    priced = any(value != 1.0 for value in price.values())
    return {t.name: "$/h" if priced and isinstance(t, GpuCount) and t.scale == 1.0 else t.unit for t in terms}


def gpu_entries(
    run: Run, problem: PlacementProblem, gpus: Sequence[GpuAssignment], verification: Verification | None
) -> list[dict[str, Any]]:
    """One entry a GPU: setting, adapters, what was predicted, simulated and decided."""
    verdicts = verification.gpus if verification is not None else (None,) * len(gpus)
    predicted = [predicted_metrics(problem, gpu) for gpu in gpus]
    figures = getattr(run.planning, "figures", None)
    if figures is not None:
        # The planning model itself, where solvers compute with an approximation of it.
        told = figures(Placement(tuple(gpus)).columns(problem))
        predicted = [old | new for old, new in zip(predicted, told, strict=True)]
    return [
        _gpu(run, problem, k, gpu, verdict, predicted[k])
        for k, (gpu, verdict) in enumerate(zip(gpus, verdicts, strict=True))
    ]


def _gpu(
    run: Run,
    problem: PlacementProblem,
    index: int,
    gpu: GpuAssignment,
    verdict: ColumnVerdict | None,
    predicted: dict[str, float],
) -> dict[str, Any]:
    setting = problem.options[gpu.option].setting
    items = sorted(gpu.items, key=lambda i: problem.items[i].adapter_id)
    loras = sum(problem.items[i].rank > 0 for i in items)
    # vLLM needs every adapter of the server on the host: the flag follows from the assignment.
    setting = replace(setting, max_cpu_loras=max(setting.max_loras, loras, setting.max_cpu_loras or 0))
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
        "predicted": finite(predicted),
        "simulated": finite(verdict.simulated) if verdict else {},
        "promises": finite(promise_entries([problem.items[i] for i in items], run.constraint, verdict)),
        "accepted": verdict.accepted if verdict else None,
        "decision": verdict.decision if verdict else None,
        "reason": verdict.reason if verdict else "",
        "seeds": list(verdict.seeds) if verdict else [],
    }


def verification_entry(
    run: Run, verification: Verification | None, *, rounds: int, history: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """How the placement was judged, and each GPU's verdict."""
    return {
        **_method(run),
        "passed": verification.passed if verification is not None else None,
        "rounds": rounds,
        "history": finite(history),
        "gpus": [_verdict(k, v) for k, v in enumerate(verification.gpus if verification is not None else ())],
        "peaks": [_peak(p) for p in (verification.peaks if verification is not None else ())],
    }


def _verdict(index: int, verdict: ColumnVerdict) -> dict[str, Any]:
    return {
        "gpu_id": f"gpu{index:03d}",
        "decision": verdict.decision,
        "accepted": verdict.accepted,
        "untested": verdict.decision == "untested",
        "reason": verdict.reason,
        "seeds": list(verdict.seeds),
        "hours": verdict.hours,
        "bad_hours": verdict.bad_hours,
        "window_s": verdict.window_s,
        "gpus_alike": verdict.alike,
        "adapters_with_few_requests": verdict.few_requests,
    }


def _peak(peak: Peak) -> dict[str, Any]:
    return {
        "gpu_id": f"gpu{peak.gpu:03d}",
        "source": "recording" if peak.recorded else "profile",
        "start_s": peak.start_s,
        "window_s": peak.window_s,
        "requests": peak.requests,
        "peak_to_mean": finite(peak.peak_to_mean),
        "kept": not peak.broken,
        "reason": peak.broken,
        "late_fraction": finite(peak.figures.get("late_fraction")),
        "ttft_p99_s": finite(peak.figures.get("ttft_p99_s")),
    }


def _method(run: Run) -> dict[str, Any]:
    claim: Claim | None = getattr(run.verifier, "claim", None)
    return {
        "method": "none" if run.verifier is None else "twin",
        "rule": run.constraint.rule,
        "ttft_p99_slo_s": run.constraint.slo.ttft_p99_s,
        "default_promises": {name: getattr(run.constraint.slo, name) for name in PROMISES},
        "confidence": claim.confidence if claim is not None else None,
        "claim": None
        if claim is None
        else {
            "level": claim.name,
            "bad_hours": claim.bad_hours,
            "error": claim.error,
            "text": claim.text,
        },
    }


def provenance(run: Run, verification: Verification | None = None) -> dict[str, Any]:
    """Where the numbers come from: everything needed to compute them again."""
    calibrations = {name: _calibration(c) for name, c in run.calibrations.items()}
    return {
        "config_hash": config_hash(run.config),
        "seeds": {
            "run": run.options.seed,
            "verification": sorted({s for v in verification.gpus for s in v.seeds}) if verification else [],
        },
        "calibration": next(iter(calibrations.values())),
        "calibrations": calibrations,
        "gpu_types": [
            {
                "name": name,
                "price_per_hour": c.gpu.price_per_hour,
                "count": c.gpu.count,
                "tensor_parallel_size": c.stamp.tensor_parallel_size,
            }
            for name, c in run.calibrations.items()
        ],
        "surrogate": _surrogate(run),
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    stamp = calibration.stamp
    return {
        "name": calibration.name,
        "gpu_type": stamp.gpu_type,
        "model": stamp.model,
        "engine": f"{stamp.engine} {stamp.engine_version}",
        "date": str(stamp.date),
        "source": stamp.source,
        "hash": fingerprint(calibration),
    }


def _surrogate(run: Run) -> dict[str, Any]:
    target = str(run.config["surrogate"].get("_target_", ""))
    meta: Mapping[str, Any] = getattr(getattr(run.planning, "residual", None), "meta", {})
    return {
        "model": target,
        "hash": meta.get("weights_sha256"),
        "margin_override": run.constraint.margin,
        "bound_level": getattr(run.planning, "bound_level", None),
    }


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
        **dict.fromkeys(
            (
                "objective",
                "bound",
                "bound_outer",
                "bound_tightened",
                "bound_columns",
                "gap",
                "gap_parts",
                "gap_simulated",
                "simulated_objective",
            )
        ),
        "objective_units": objective_units(run.objective.terms, {t.name: t.price_per_hour for t in run.gpu_types}),
        "terms": {},
        "simulated_terms": {},
        "bound_rests_on": [],
        "stopped_by_clock": [],
        "certified_minimum_gpus": None,
        "solver": run.solver.name,
        "runtime_s": 0.0,
        "total_runtime_s": 0.0,
        "workload": workload_entry(run),
        "gpus": [],
        "verification": verification_entry(run, None, rounds=0, history=()),
        "today": None,
        "warnings": [message],
        "provenance": provenance(run),
    }


def finite(value: Any) -> Any:
    """Plain JSON values: NaN and infinities become null, also inside containers."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def to_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def to_csv(data: Mapping[str, Any]) -> str:
    """One line per adapter and GPU: gpu_id, gpu_type, the setting's flags, adapter_id, share."""
    text = io.StringIO()
    # Flags that only some types of GPU have stand at the end.
    flags = list(dict.fromkeys(flag for gpu in data["gpus"] for flag in gpu["setting"]))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["gpu_id", "gpu_type", *flags, "adapter_id", "share"])
    for gpu in data["gpus"]:
        for adapter in gpu["adapters"]:
            writer.writerow(
                [gpu["gpu_id"], gpu["gpu_type"], *(gpu["setting"].get(f, "") for f in flags), adapter["adapter_id"],
                 repr(adapter["share"])]
            )  # fmt: skip
    return text.getvalue()


def write_outputs(
    run: Run,
    data: dict[str, Any],
    directory: Path,
    details: Details | None = None,
    proof: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes all files; `placement.json` last, so that it exists only if the others do.

    Args:
        details: what the report shows beyond `data`.
        proof: the certificate (`placement.report.certificate`), if there is one.

    Raises:
        InputError: the deployment files could not be made; the plan itself is written all the same.
    """
    from placement.report.html import render

    files: list[Path] = []
    failed: InputError | None = None
    try:
        files = run.exporter.write(data, directory) if run.exporter is not None else []
    except InputError as error:
        failed = error
    if failed is not None or run.exporter is None:
        remove_old(directory)
    table, report, main = (directory / n for n in OUTPUTS)
    certificate = directory / "certificate.json"
    if proof is not None:
        write_text(certificate, to_lines(proof))
        files = [certificate, *files]
    else:
        certificate.unlink(missing_ok=True)
    write_text(table, to_csv(data))
    linked = [f.relative_to(directory).as_posix() for f in (main, table, *files)]
    write_text(report, render(data, details, linked))
    write_text(main, to_json(data))
    if failed is not None:
        raise InputError(
            f"{failed.problem} (the plan is saved in {directory})", where=failed.where, remedy=failed.remedy
        ) from failed
    return [main, table, report, *files]


def write_failure(run: Run, status: Status, message: str, directory: Path) -> None:
    """Writes the `placement.json` of a run without a placement, and removes what an earlier one left beside it."""
    remove_old(directory)
    for name in OUTPUTS:
        (directory / name).unlink(missing_ok=True)
    write_text(directory / OUTPUTS[-1], to_json(failure(run, status, message)))
