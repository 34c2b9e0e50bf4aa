"""A price list as a table for a spreadsheet: what a class of adapters is worth, and how (docs/proofs.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from placement.check.ground import Ground
from twin.errors import InputError
from twin.files import write_text


def write_table(path: Path, certificate: Mapping[str, Any], ground: Ground) -> None:
    """Writes one list: features and prices of each class, prices per feature of each setting, the fleet, the bound.

    The list of `bound_outer`, or that of `bound` where there is no other.

    Raises:
        InputError: the certificate has no list, or one whose prices are not linear in the features alone.
    """
    lists = certificate["lists"]
    name = next((n for n in ("bound_outer", "bound") if n in lists), None)
    if name is None or lists[name]["nu"]:
        raise InputError("the certificate has no list of prices per feature", where="table", remedy="leave table out")
    entry, problem = lists[name], ground.of(name == "bound")
    first = {a.adapter_id: i for i, a in reversed(list(enumerate(problem.items)))}
    features = [f"f{d + 1}" for d in range(problem.phi.shape[1])] + ["slot"]
    labels = [s.label for s in ground.settings]
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["class of", "items", *features, "price", *labels])
    for adapter, items, price in zip(
        certificate["classes"]["first"], certificate["classes"]["items"], entry["prices"], strict=True
    ):
        i = first[adapter]
        psi = np.append(problem.phi[i], float(problem.items[i].rank > 0)).tolist()
        allowed = problem.allowed[i].tolist()
        worth = (np.array(entry["beta"]) @ psi).tolist()
        prices = [repr(w) if ok else "" for w, ok in zip(worth, allowed, strict=True)]
        out.writerow([adapter, items, *map(repr, psi), repr(price), *prices])
    out.writerow([])
    out.writerow(["setting", "", *features, "a GPU beyond its items"])
    for label, beta, gamma in zip(labels, entry["beta"], entry["gamma"], strict=True):
        out.writerow([label, "", *map(repr, beta), repr(gamma)])
    out.writerow([])
    stock, gpus = _fleet(ground)
    out.writerow(["GPUs that exist", stock, "price of one", repr(entry["sigma"][0])])
    out.writerow(["GPUs at most", gpus, "price of one", repr(entry["sigma_total"])])
    out.writerow([name, repr(entry["worth"]), "rounded to whole GPUs", repr(entry["bound"])])
    write_text(path, text.getvalue())


def _fleet(ground: Ground) -> tuple[int, int]:
    """S and G: never more GPUs than items."""
    problem = ground.problem
    stock = min(int(problem.stock[0]), len(problem.items))
    return stock, stock if problem.max_gpus is None else min(stock, problem.max_gpus)
