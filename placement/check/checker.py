"""All checks of a placement and its certificate, and what they prove."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from placement.check.exact import proven
from placement.check.ground import Ground
from placement.check.rules import Placed, broken, by_the_twin, placed
from placement.check.sample import sampled
from placement.problem.hashes import placement_hash
from placement.verify.verdict import Verification
from twin.errors import InputError
from twin.wording import counted

CERTIFICATE_VERSION = 1


@dataclass
class Report:
    """What a check found.

    Args:
        wrong: broken rules and false claims; empty = all holds.
        proven: what is certain. sampled: what was only looked for and not found.
    """

    wrong: list[str] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)
    sampled: list[str] = field(default_factory=list)


def checked(
    document: Mapping[str, Any], certificate: Mapping[str, Any], ground: Ground, *, columns: int, seed: int = 0
) -> tuple[Report, Placed | None]:
    """Checks every rule of a placement and the price lists of its certificate.

    Args:
        columns: fresh columns that each price list of a model that is not linear is tried on.

    Raises:
        InputError: entries are missing, or have other shapes than they should.
    """
    try:
        return _checked(document, certificate, ground, columns, seed)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise InputError(
            f"an entry is missing or is not what it should be: {error!r}",
            where="placement.json or certificate.json",
            remedy="give files that `python -m placement` wrote",
        ) from error


def _checked(
    document: Mapping[str, Any], certificate: Mapping[str, Any], ground: Ground, columns: int, seed: int
) -> tuple[Report, Placed | None]:
    if certificate["schema_version"] != CERTIFICATE_VERSION:
        raise InputError(f"certificate.schema_version {certificate['schema_version']!r} is not {CERTIFICATE_VERSION}")
    report = Report(wrong=list(ground.wrong))
    model = certificate["model"]
    said = certificate["workload_sha256"], model["calibration_sha256"], model["surrogate"]["hash"]
    for (what, here), there in zip(ground.hashes.items(), said, strict=True):
        if here != there:
            report.wrong.append(f"the certificate is of another {what} (hash)")
    if placement_hash(document) != certificate["placement_sha256"]:
        report.wrong.append("the certificate is of another placement (placement_sha256)")
    if list(certificate["rests_on"]) != list(document["bound_rests_on"]):
        report.wrong.append("placement.json and certificate.json name different restrictions of the bound")
    own, wrong = placed(document, ground)
    report.wrong += wrong
    if own is not None:
        rules = broken(document, certificate, ground, own)
        report.wrong += rules
        if not rules:
            adapters, gpus = (
                counted(len(x), y) for x, y in ((ground.run.workload.adapters, "adapter"), (own.groups, "GPU"))
            )  # fmt: skip
            report.proven.append(
                f"{adapters} on {gpus}, each placed once or in shares that add to 1; pins, ranks, memory and stock are "
                "kept, every GPU is healthy, the objective is as said"
            )
        twins = [gpu["gpu_id"] for gpu in document["gpus"] if by_the_twin(gpu, certificate)]
        if twins:
            report.sampled.append(f"{', '.join(twins)}: healthy on the twin's word only (twin=true asks it again)")
    for name, entry in certificate["lists"].items():
        _check_list(report, name, entry, certificate, ground, own, columns, seed)
    _name_rest(report, document, certificate)
    return report, own


def _check_list(
    report: Report, name: str, entry: Mapping[str, Any], certificate: Mapping[str, Any], ground: Ground,
    own: Placed | None, columns: int, seed: int,
) -> None:  # fmt: skip
    if name not in ("bound", "bound_outer") or entry["margin"] != (name == "bound"):
        raise InputError(f"certificate.lists.{name} is none of bound (with margin) and bound_outer (without)")
    problem = ground.of(bool(entry["margin"]))
    proof = proven(name, entry, certificate["classes"], problem)
    report.wrong += proof.wrong
    margin = "with the safety margin" if entry["margin"] else "without safety margin"
    if problem.model is None:
        if not proof.wrong:
            report.proven.append(f"{name} {entry['bound']:.6g}, {margin}: for every placement, in exact arithmetic")
        return
    if not proof.wrong:
        report.proven.append(
            f"{name} {entry['bound']:.6g}, {margin}: if no GPU is worth more than it costs at the certificate's prices"
        )
    if own is None:
        return
    found = sampled(name, entry, proof, ground, own, columns, seed)
    report.wrong += found.wrong
    rests = f"; the run looked at {entry['columns']:,}" if entry["columns"] else "; the list was made of linear pieces"
    report.sampled.append(
        f"{name}: of {found.healthy:,} healthy among {found.looked:,} fresh columns {found.above:,} are worth more "
        f"than they cost, which leaves {found.bound:.6g}{rests}"
    )


def _name_rest(report: Report, document: Mapping[str, Any], certificate: Mapping[str, Any]) -> None:
    """What the certificate leaves open."""
    listed = [entry["bound"] for entry in certificate["lists"].values()]
    if document["bound"] is not None and document["bound"] > max(listed, default=-math.inf):
        report.sampled.append(f"bound {document['bound']:.6g}: the solver's own, above what the price lists prove")
    report.proven += [f"the bounds speak of {text}" for text in certificate["rests_on"]]


def judge_by_twin(report: Report, document: Mapping[str, Any], verdicts: Verification) -> None:
    """Adds what the twin says of every GPU on seeds of its own."""
    for gpu, verdict in zip(document["gpus"], verdicts.gpus, strict=True):
        if verdict.decision == "refuted":
            report.wrong.append(f"{gpu['gpu_id']}: the twin refutes it: {verdict.reason}")
        else:
            report.sampled.append(f"{gpu['gpu_id']}: {verdict.decision} by the twin, {verdict.hours} hours")
