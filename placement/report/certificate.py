"""`certificate.json`: the price lists of a run's bounds, for `python -m placement.check` (docs/proofs.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from placement.config import Run
from placement.problem.hashes import calibrations_hash, gpu_hash, placement_hash, workload_hash
from placement.problem.prices import PriceTable, gpu_price, prices_of, proven_worth, slot_features, whole_gpus
from placement.problem.problem import GpuAssignment, PlacementProblem
from surrogates.pieces.fleet import Judge, levels_of

CERTIFICATE_VERSION = 1
#: A column is healthy up to here; `placement.problem.problem.violations` is as strict.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Proofs:
    """What proves the bounds of a run.

    Args:
        tables: price lists of `bound` and `bound_outer`, by these names. rests_on: restrictions that bind.
        solver_bound: what the solver proved itself.
    """

    tables: Mapping[str, PriceTable]
    rests_on: Sequence[str]
    solver_bound: float | None


def certificate(
    run: Run, problem: PlacementProblem, gpus: Sequence[GpuAssignment], proofs: Proofs, document: Mapping[str, Any]
) -> dict[str, Any]:
    """The certificate of a run.

    Args:
        problem: that the bounds and the objective belong to.
        document: of the same run, as it is written.
    """
    tables = proofs.tables
    groups = classes_of(problem, tables)
    first = np.array([members[0] for members in groups], np.int64)
    levels = levels_of(problem.model) if isinstance(problem.model, Judge) else {}
    split = dict(zip(problem.item_adapter.tolist(), problem.item_share.tolist(), strict=True))
    return {
        "schema_version": CERTIFICATE_VERSION,
        "placement_sha256": placement_hash(document),
        "workload_sha256": workload_hash(run.workload.adapters),
        "model": {
            "linear": problem.model is None,
            "surrogate": document["provenance"]["surrogate"],
            "calibrations": {name: c.name for name, c in run.calibrations.items()},
            "calibration_sha256": calibrations_hash(run.calibrations),
            "levels": {name: asdict(level) for name, level in levels.items()},
            "reserve": list(problem.reserve),
        },
        "settings": [asdict(o.setting) for o in problem.options],
        "fleet": {
            "gpu_types": list(problem.gpu_types),
            "option_type": problem.option_type.tolist(),
            "stock": problem.stock.tolist(),
            "max_gpus": problem.max_gpus,
            "gpu_price": gpu_price(problem),
        },
        "splits": {run.workload.adapters[a].adapter_id: round(1 / share) for a, share in split.items() if share < 1.0},
        "rests_on": list(proofs.rests_on),
        "solver_bound": proofs.solver_bound,
        "by_the_twin": _by_the_twin(problem, gpus, document),
        "classes": {
            "first": [problem.items[i].adapter_id for i in first.tolist()],
            "items": [len(members) for members in groups],
        },
        "lists": {name: _list(problem, table, name, first) for name, table in tables.items()},
        "config": run.config,
    }


def _by_the_twin(
    problem: PlacementProblem, gpus: Sequence[GpuAssignment], document: Mapping[str, Any]
) -> dict[str, str]:
    """GPUs that the planning model with its margin does not call healthy and the twin accepted, with their hashes."""
    if not gpus:
        return {}
    judged = replace(problem, trusted=frozenset())
    columns = judged.columns_of([g.items for g in gpus], [g.option for g in gpus])
    unsure = np.flatnonzero(columns.violation > TOLERANCE).tolist()
    entries = [document["gpus"][k] for k in unsure]
    return {gpu["gpu_id"]: gpu_hash(gpu) for gpu in entries if gpu["accepted"]}


def classes_of(problem: PlacementProblem, tables: Mapping[str, PriceTable]) -> list[list[int]]:
    """Items of equal features, settings and classes, which have equal prices; by their first item."""
    psi = slot_features(problem)
    kept = [t.class_of for t in tables.values() if t.nu.any()]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i in range(len(problem.items)):
        key = (psi[i].tobytes(), problem.allowed[i].tobytes(), *(int(c[i]) for c in kept))
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _list(problem: PlacementProblem, table: PriceTable, name: str, first: Any) -> dict[str, Any]:
    worth = proven_worth(problem, table)
    caps = bool(table.nu.any())
    return {
        "margin": name == "bound",
        "bound": whole_gpus(worth, gpu_price(problem)),
        "worth": worth,
        "columns": table.columns,
        "prices": prices_of(problem, table)[first].tolist(),
        "sigma": table.sigma.tolist(),
        "sigma_total": table.sigma_total,
        "beta": table.beta.tolist(),
        "gamma": table.gamma.tolist(),
        "nu": [[k, o, float(table.nu[k, o])] for k, o in np.argwhere(table.nu).tolist()] if caps else [],
        "class_of": table.class_of.tolist() if caps else None,
        "mu": None if table.mu is None or problem.model is not None else table.mu.tolist(),
        "lam": None if table.lam is None or problem.model is not None else table.lam.tolist(),
    }


def to_lines(data: Mapping[str, Any]) -> str:
    """JSON with an entry a line, and an entry of the price lists a line."""
    lines = []
    for name, value in data.items():
        if name == "lists" and value:
            lists = [
                f"  {json.dumps(key)}: {{\n"
                + ",\n".join(f"   {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in entry.items())
                + "\n  }"
                for key, entry in value.items()
            ]
            lines.append(f' "{name}": {{\n' + ",\n".join(lists) + "\n }")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value, allow_nan=False, default=str)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
