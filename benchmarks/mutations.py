"""Damaged placements and certificates, and good ones: what `placement.check` says. Used by `benchmarks.trust`.

Small runs of the whole job (pins, replicas, promises, stock; linear planning model and neural one) leave a placement
and its certificate. A *mutation* breaks a rule or a price list: an adapter dropped, doubled, moved, with another share;
slots or rank too small; prices, bounds or the objective improved; a certificate of another placement. Whether a move
breaks a rule is decided by `placement.problem.problem.violations` and the objective, not by the checker; the hash is
computed again, but where it is the hash that is stale. *Good* ones are the same placement in another order, other
placements that keep every rule, and prices that are lower than they could be.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from placement.check.checker import checked
from placement.check.ground import Ground, ground_of
from placement.command import APP
from placement.config import load_run
from placement.pipeline import run_pipeline
from placement.problem.hashes import placement_hash
from placement.problem.problem import GpuAssignment, Placement, evaluate, violations
from placement.problem.solver import relative_gap
from placement.report.progress import progress
from placement.report.result import Result
from twin.config.compose import compose
from twin.errors import InfeasibleError, InputError, NoSolutionError

Document = dict[str, Any]

#: Fresh columns a price list; a certificate that is damaged is mostly rejected by arithmetic.
COLUMNS = 60
#: A mutation that breaks nothing is drawn again so often.
TRIES = 30
SURROGATES = ("analytic", "analytic", "neural", "physics")
OBJECTIVES = ("latency", "gpu_count", "weighted", "tail")


@dataclass(frozen=True)
class Base:
    """A small run: its result, its files as they are read back, and the checker's own view of it."""

    result: Result
    document: Document
    proof: Document
    ground: Ground


@dataclass(frozen=True)
class Tried:
    """One case: what was done to the files, and whether the checker took them."""

    kind: str
    accepted: bool
    said: str


def bases(seeds: range) -> Iterator[Base]:
    """Small runs; a workload that has no placement is left out."""
    for seed in seeds:
        rng = np.random.default_rng([seed, 31])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "adapters.csv"
            path.write_text(_adapters(rng))
            options = [
                f"+objective={OBJECTIVES[seed % len(OBJECTIVES)]}", "workload=file", f"workload.path={path}",
                f"surrogate={SURROGATES[(seed // len(OBJECTIVES)) % len(SURROGATES)]}", "engine.max_loras=[8,16]",
                "engine.max_lora_rank=[16,32]", "solver=greedy", "verify=none", "time_limit_s=20",
            ]  # fmt: skip
            if rng.random() < 0.3:
                options.append(f"hardware.count={int(rng.integers(2, 5))}")
            run = load_run(compose(APP, options))
            try:
                result = run_pipeline(run, progress(quiet=True))
            except (InfeasibleError, NoSolutionError):
                continue
            document = json.loads(json.dumps(result.to_dict()))
            proof = json.loads(json.dumps(result.certificate(document)))
            yield Base(result, document, proof, ground_of(proof))


def _adapters(rng: np.random.Generator) -> str:
    lines = ["adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens,pinned_gpu,slo_ttft_p99_s"]
    for i in range(int(rng.integers(6, 20))):
        rate, hot = float(rng.lognormal(-0.5, 1.0)), rng.random() < 0.08
        pin = str(rng.choice(["x", "y"])) if rng.random() < 0.15 and not hot else ""
        slo = f"{rng.uniform(2.0, 8.0):.2f}" if rng.random() < 0.2 else ""
        rate = 45.0 if hot else min(rate, 4.0)
        lines.append(
            f"a{i},{rng.choice([8, 16, 16, 32])},{rate:.4f},{rng.integers(80, 400)},{rng.integers(40, 300)},{pin},{slo}"
        )
    lines.append("base,0,1.5,220,200,,")
    return "\n".join(lines) + "\n"


def tried(base: Base, kind: str, rng: np.random.Generator) -> Tried | None:
    """One mutation (`MUTATIONS`) or good variant (`GOOD`); None where the base has none of the kind."""
    for _ in range(TRIES):
        document, proof = copy.deepcopy(base.document), copy.deepcopy(base.proof)
        if not {**MUTATIONS, **GOOD}[kind](base, document, proof, rng):
            continue
        if kind != "stale hash":
            proof["placement_sha256"] = placement_hash(document)
        try:
            report, _ = checked(document, proof, base.ground, columns=COLUMNS, seed=int(rng.integers(10_000)))
        except InputError as error:
            return Tried(kind, False, str(error))
        return Tried(kind, not report.wrong, "; ".join(report.wrong[:2]))
    return None


def _gpu(document: Document, rng: np.random.Generator) -> Document:
    gpus: list[Document] = document["gpus"]
    return gpus[int(rng.integers(len(gpus)))]


def _entry(document: Document, rng: np.random.Generator) -> tuple[Document, Document]:
    gpu = _gpu(document, rng)
    return gpu, gpu["adapters"][int(rng.integers(len(gpu["adapters"])))]


def dropped(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    gpu, entry = _entry(document, rng)
    gpu["adapters"].remove(entry)
    return True


def doubled(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    _gpu(document, rng)["adapters"].append(copy.deepcopy(_entry(document, rng)[1]))
    return True


def share(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    entry = _entry(document, rng)[1]
    entry["share"] *= float(rng.choice([0.5, 0.999, 1.001, 2.0]))
    return True


def renamed(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    _entry(document, rng)[1]["adapter_id"] += "x"
    return True


def moved(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """To another GPU: only where that breaks a rule or the objective is no longer what is said."""
    source, entry = _entry(document, rng)
    target = _gpu(document, rng)
    if source is target or len(source["adapters"]) < 2:
        return False
    source["adapters"].remove(entry)
    target["adapters"].append(entry)
    placement = _placement(base, document)
    objective = evaluate(base.result.original, placement)[0]
    changed = abs(objective - document["objective"]) > 1e-6 * abs(objective)
    return changed or bool(violations(base.result.original, placement))


def too_small(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """Ranks, or slots on the host, below what the GPU's adapters need; slots that the run did not offer."""
    gpu = _gpu(document, rng)
    ranks = [a["rank"] for a in gpu["adapters"] if a["rank"]]
    flag = str(rng.choice(["max_lora_rank", "max_cpu_loras", "max_loras", "max_num_seqs"]))
    if flag == "max_lora_rank" and (not ranks or max(ranks) <= 8):
        return False
    gpu["setting"][flag] = {"max_lora_rank": 8, "max_loras": 1, "max_num_seqs": 1}.get(flag, gpu["setting"][flag] - 1)
    return True


def better_objective(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    document["objective"] *= 1 - 1e-6
    document["gap"] = relative_gap(document["objective"], document["bound"])
    return True


def price_raised(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """A class is said to be worth more, and the bound with it."""
    for entry in proof["lists"].values():
        k = int(rng.integers(len(entry["prices"])))
        more = abs(entry["prices"][k]) * float(rng.choice([1e-6, 1e-3, 0.1])) + 1e-9
        entry["prices"][k] += more
        entry["worth"] += more * proof["classes"]["items"][k] * 0.99
    return bool(proof["lists"])


def gpus_cheaper(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """GPUs are said to have no price, which the bound gains."""
    gained = False
    for entry in proof["lists"].values():
        paid = sum(entry["sigma"]) + entry["sigma_total"]
        gained |= paid > 1e-6
        entry["sigma"], entry["sigma_total"] = [0.0] * len(entry["sigma"]), 0.0
        entry["worth"] += paid
    return gained


def bound_raised(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """In both files, up to the objective."""
    if document["bound"] is None or document["bound"] >= document["objective"] * (1 - 1e-6):
        return False
    for name, entry in proof["lists"].items():
        entry["worth"] = entry["bound"] = document[name] = document["objective"]
    document["gap"], document["gap_parts"] = relative_gap(document["objective"], document["bound"]), None
    return True


def gpus_doubled(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """Two GPUs have one name, or a GPU is repeated without adapters."""
    if len(document["gpus"]) > 1 and rng.random() < 0.5:
        document["gpus"][0]["gpu_id"] = document["gpus"][1]["gpu_id"]
    else:
        document["gpus"].append({**copy.deepcopy(document["gpus"][0]), "gpu_id": "gpu999", "adapters": []})
    return True


def stale_hash(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """A GPU has another name; the certificate is of the placement before."""
    gpu = _gpu(document, rng)
    gpu["gpu_id"] += "b"
    return True


def other_workload(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    name = str(rng.choice(["workload_sha256", "calibration_sha256"]))
    target = proof if name in proof else proof["model"]
    target[name] = "0" * 64
    return True


def reordered(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """GPUs and adapters in another order."""
    rng.shuffle(document["gpus"])
    for gpu in document["gpus"]:
        rng.shuffle(gpu["adapters"])
    return True


def exchanged(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """Another placement that keeps every rule, with its own objective."""
    source, entry = _entry(document, rng)
    target = _gpu(document, rng)
    if source is target or len(source["adapters"]) < 2:
        return False
    source["adapters"].remove(entry)
    target["adapters"].append(entry)
    _host_slots(target)
    _host_slots(source)
    placement = _placement(base, document)
    if violations(base.result.original, placement):
        return False
    document["objective"], document["terms"] = evaluate(base.result.original, placement)
    document["gap"], document["gap_parts"] = relative_gap(document["objective"], document["bound"]), None
    document["termination"] = "gap"
    return document["bound"] is None or document["bound"] <= document["objective"]


def cheaper(base: Base, document: Document, proof: Document, rng: np.random.Generator) -> bool:
    """Prices lower than they could be, and the bound that they prove."""
    if document["bound"] is None:
        return False
    for name, entry in proof["lists"].items():
        less = rng.uniform(0.0, 0.02, len(entry["prices"])) * np.abs(entry["prices"])
        entry["prices"] = (np.array(entry["prices"]) - less).tolist()
        lost = float(less @ np.array(proof["classes"]["items"]))
        entry["worth"] -= lost * (1 + 1e-9) + 1e-9 * abs(entry["worth"])
        if proof["fleet"]["gpu_price"] is None:
            entry["bound"] = entry["worth"]
        else:
            unit = proof["fleet"]["gpu_price"]
            entry["bound"] = float(np.ceil(entry["worth"] / unit - 1e-6) * unit)
        document[name] = entry["bound"]
    document["gap"], document["gap_parts"] = relative_gap(document["objective"], document["bound"]), None
    document["termination"] = "gap"
    return bool(proof["lists"]) and proof["solver_bound"] is None


def _host_slots(gpu: Document) -> None:
    loras = sum(a["rank"] > 0 for a in gpu["adapters"])
    gpu["setting"]["max_cpu_loras"] = max(gpu["setting"]["max_loras"], loras)


def _placement(base: Base, document: Document) -> Placement:
    """A document's placement, by indices of the run's problem; GPUs keep their settings."""
    problem = base.result.original
    left: dict[str, list[int]] = {}
    for i, owner in enumerate(problem.item_adapter.tolist()):
        left.setdefault(base.result.run.workload.adapters[owner].adapter_id, []).append(i)
    options = [gpu.option for gpu in base.result.gpus]
    gpus = [
        GpuAssignment(o, tuple(left[entry["adapter_id"]].pop() for entry in gpu["adapters"]))
        for o, gpu in zip(options, document["gpus"], strict=True)
    ]
    return Placement(tuple(gpus))


Change = Callable[[Base, Document, Document, np.random.Generator], bool]
MUTATIONS: dict[str, Change] = {
    "dropped": dropped, "doubled": doubled, "moved": moved, "share": share, "renamed": renamed, "too small": too_small,
    "better objective": better_objective, "price raised": price_raised, "GPUs cheaper": gpus_cheaper,
    "bound raised": bound_raised, "GPUs doubled": gpus_doubled, "stale hash": stale_hash,
    "other workload": other_workload,
}  # fmt: skip
GOOD: dict[str, Change] = {"reordered": reordered, "exchanged": exchanged, "cheaper": cheaper}


def mutations(count: int, seed: int, runs: int) -> Iterator[tuple[Tried, bool]]:
    """So many damaged cases and as many good ones, from so many small runs; and whether each is a good one."""
    made = list(bases(range(seed, seed + runs)))
    rng = np.random.default_rng([seed, 37])
    for kinds, good in ((MUTATIONS, False), (GOOD, True)):
        names, done, turn = list(kinds), 0, 0
        while done < count:
            found = tried(made[turn % len(made)], names[(turn // len(made)) % len(names)], rng)
            turn += 1
            if found is not None:
                done += 1
                yield found, good
