"""The rules of a placement, evaluated from its document: nothing is taken from the run but what it claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from placement.check.ground import Ground
from placement.problem.hashes import gpu_hash
from placement.problem.problem import objective_of, pinned_to_one
from placement.problem.solver import relative_gap
from twin.server.memory import memory_error

#: A column is healthy up to here (`placement.problem.problem.violations`); figures agree up to here, relative.
HEALTHY, AGREED = 1e-6, 1e-9


@dataclass(frozen=True)
class Placed:
    """A placement by indices of the ground's problem: option and items of each GPU."""

    options: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]


def placed(document: Mapping[str, Any], ground: Ground) -> tuple[Placed | None, list[str]]:
    """The placement by indices, and the rules of counting that it breaks; None where it cannot be evaluated."""
    problem, wrong = ground.problem, list[str]()
    adapters = ground.run.workload.adapters
    index = {a.adapter_id: n for n, a in enumerate(adapters)}
    left: dict[int, list[int]] = {}
    for i, owner in enumerate(problem.item_adapter.tolist()):
        left.setdefault(owner, []).append(i)
    shares, groups, options = dict.fromkeys(left, Fraction(0)), [], []
    for gpu in document["gpus"]:
        name, held = gpu["gpu_id"], list[int]()
        for entry in gpu["adapters"]:
            n = index.get(entry["adapter_id"])
            if n is None:
                wrong.append(f"{name}: the workload has no adapter {entry['adapter_id']!r}")
                continue
            shares[n] += Fraction(entry["share"])
            free = left[n]
            if not free or entry["share"] != float(problem.item_share[free[0]]):
                wrong.append(f"{name}: {entry['adapter_id']!r} is here with share {entry['share']!r}: a copy too many")
                continue
            if entry["rank"] != adapters[n].rank:
                wrong.append(f"{name}: {entry['adapter_id']!r} has rank {adapters[n].rank}, not {entry['rank']}")
            held.append(free.pop(0))
        options.append(_option(gpu, ground, sum(problem.items[i].rank > 0 for i in held), wrong))
        groups.append(tuple(held))
        if not held:
            wrong.append(f"{name}: holds no adapter")
        if len({int(problem.item_adapter[i]) for i in held}) < len(held):
            wrong.append(f"{name}: an adapter is here twice")
    for n, items in left.items():
        if items or abs(shares[n] - 1) > AGREED:
            wrong.append(f"{adapters[n].adapter_id!r} is placed {float(shares[n]):.6g} times")
    broken = bool(wrong)
    return None if broken else Placed(tuple(options), tuple(groups)), wrong


def _option(gpu: Mapping[str, Any], ground: Ground, loras: int, wrong: list[str]) -> int:
    """Index of a GPU's setting; -1, and what is wrong, where the certificate does not have it."""
    for o, s in enumerate(ground.settings):
        host = max(s.max_loras, loras, s.max_cpu_loras or 0)
        if s.gpu_type == gpu["gpu_type"] and replace(s, max_cpu_loras=host).flags() == gpu["setting"]:
            return o
    wrong.append(f"{gpu['gpu_id']}: its setting for {loras} adapters is none of the certificate's")
    return -1


def broken(document: Mapping[str, Any], certificate: Mapping[str, Any], ground: Ground, own: Placed) -> list[str]:
    """Rules of the fleet, of each GPU, and of what the document claims, that a placement breaks."""
    problem = ground.problem
    names = [gpu["gpu_id"] for gpu in document["gpus"]]
    wrong = [] if len(set(names)) == len(names) else ["two GPUs have one name"]
    used = Counter(problem.gpu_types[int(problem.option_type[o])] for o in own.options)
    for t, kind in enumerate(problem.gpu_types):
        if used[kind] > problem.stock[t]:
            wrong.append(f"{used[kind]} GPUs of type {kind} are used, {problem.stock[t]} exist")
    if problem.max_gpus is not None and len(names) > problem.max_gpus:
        wrong.append(f"{len(names)} GPUs are used, the certificate speaks of at most {problem.max_gpus}")
    for name, o, group in zip(names, own.options, own.groups, strict=True):
        reason = memory_error(ground.settings[o], ground.run.calibration_of(ground.settings[o]))
        if reason is not None:
            wrong.append(f"{name}: vLLM would not start: {reason}")
        wrong += [
            f"{name}: {problem.items[i].adapter_id!r} of rank {problem.items[i].rank} may not run under its setting"
            for i in group
            if not problem.allowed[i, o]
        ]
    wrong += _pins(ground, own, names)
    return wrong + _unhealthy(document, certificate, ground, own) + _claims(document, certificate, ground, own)


def _pins(ground: Ground, own: Placed, names: list[str]) -> list[str]:
    """Adapters pinned to one GPU sit together, those pinned to different ones apart."""
    problem, wrong, hosts = ground.problem, list[str](), dict[str, str]()
    for name, group in zip(names, own.groups, strict=True):
        pins = {str(a.pinned_gpu) for a in (problem.items[i] for i in group) if pinned_to_one(a, problem.gpu_types)}
        if len(pins) > 1:
            wrong.append(f"{name}: holds adapters pinned to different GPUs: {', '.join(sorted(pins))}")
        for pin in pins:
            if hosts.setdefault(pin, name) != name:
                wrong.append(f"{hosts[pin]} and {name} both hold adapters pinned to {pin!r}")
    return wrong


def _unhealthy(document: Mapping[str, Any], certificate: Mapping[str, Any], ground: Ground, own: Placed) -> list[str]:
    """GPUs that the planning model with its margin does not call healthy, but for those that the twin accepted."""
    columns = ground.problem.columns_of(own.groups, own.options)
    return [
        f"{gpu['gpu_id']}: not healthy under the planning model with its margin (by {columns.violation[k]:.3g})"
        for k, gpu in enumerate(document["gpus"])
        if not columns.violation[k] <= HEALTHY and not by_the_twin(gpu, certificate)
    ]


def by_the_twin(gpu: Mapping[str, Any], certificate: Mapping[str, Any]) -> bool:
    """Whether this GPU, as it is, is called healthy on the twin's word."""
    return bool(gpu["accepted"]) and certificate["by_the_twin"].get(gpu["gpu_id"]) == gpu_hash(gpu)


def _claims(document: Mapping[str, Any], certificate: Mapping[str, Any], ground: Ground, own: Placed) -> list[str]:
    """Objective, terms, bounds and gaps of the document that are not what they should be."""
    objective, terms = objective_of(ground.problem, ground.problem.columns_of(own.groups, own.options))
    wrong = []
    for name, said, is_ in (
        ("objective", document["objective"], objective), *((n, document["terms"].get(n), v) for n, v in terms.items())
    ):  # fmt: skip
        if said is None or not abs(said - is_) <= AGREED * max(1.0, abs(is_)):
            wrong.append(f"{name} is {is_:.10g}, not {said!r}")
    lists, bound = certificate["lists"], document["bound"]
    proofs = {name: entry["bound"] for name, entry in lists.items()}
    solver = certificate["solver_bound"]
    best = {
        "bound": max([v for v in (*proofs.values(), solver) if v is not None], default=None),
        "bound_outer": proofs.get("bound_outer"),
    }
    for name, value in best.items():
        said = document[name]
        if said is not None and (value is None or said > value):
            wrong.append(f"{name} is said to be {said!r}; the certificate has {value!r}")
        if said is not None and said > objective + HEALTHY * max(1.0, abs(objective)):
            wrong.append(f"{name} {said!r} is above the objective {objective:.10g}")
    gap = relative_gap(objective, bound)
    if (gap is None) != (document["gap"] is None) or (gap is not None and abs(gap - document["gap"]) > AGREED):
        wrong.append(f"gap is {gap!r}, not {document['gap']!r}")
    parts = document["gap_parts"]
    if parts is not None:
        whole = max(0.0, objective - document["bound_outer"]) / max(abs(objective), 1e-12)
        if abs(sum(parts.values()) - whole) > AGREED or min(parts.values()) < 0:
            wrong.append(f"gap_parts add up to {sum(parts.values()):.10g}, not {whole:.10g}")
    exact = bool(certificate["model"]["linear"]) and gap is not None and gap <= HEALTHY
    if document["termination"] == "optimal" and not exact:
        wrong.append("optimal is said where objective and bound differ, or the bound is not exact")
    total = any(entry["sigma_total"] > 0 for entry in lists.values())
    named = f"fleets of at most {ground.problem.max_gpus} GPUs" in document["bound_rests_on"]
    if total and ground.problem.max_gpus is not None and not named:
        wrong.append("the bound depends on the number of GPUs, which bound_rests_on does not name")
    split = any(n > 1 for n in Counter(ground.problem.item_adapter.tolist()).values())
    if split and lists and not any(text.startswith("even splits") for text in document["bound_rests_on"]):
        wrong.append("the bound depends on how adapters are split, which bound_rests_on does not name")
    return wrong
