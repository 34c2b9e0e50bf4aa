"""`python -m placement.check placement=placement.json [workload=adapters.csv] [twin=true]`

Checks a placement and the certificate beside it without any solver: every rule of the placement, the objective, the
bounds' price lists in exact arithmetic, and, where the planning model is not linear, fresh columns. Says what is proven
and what was only sampled (docs/proofs.md). twin=true simulates every GPU again, on seeds of its own.

Exit codes: 0 all holds, 1 something is wrong (each broken rule is named), 2 bad input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from twin.config.entry import run_app
from twin.config.program import command
from twin.config.ranges import Range
from twin.errors import InputError


@dataclass(frozen=True, slots=True)
class Options:
    """`key=value` arguments.

    Args:
        placement: file; its certificate is `certificate.json` in the same folder, or `certificate`.
        workload: CSV file of the adapters; empty = as the run's configuration names it.
        columns: fresh columns that each price list is tried on. seed: of these, and of the twin.
        twin: simulate every GPU again.
        table: CSV file that the price list is written to, for a spreadsheet; empty = none.
        allow_modules: whose callables the run's configuration may name.
    """

    placement: str
    certificate: str = ""
    workload: str = ""
    columns: Annotated[int, Range(0, 1_000_000)] = 2000
    twin: bool = False
    table: str = ""
    seed: Annotated[int, Range(0, 9_999)] = 0
    allow_modules: tuple[str, ...] = ()


def run(options: Options) -> int:
    """Checks, prints, and returns the exit code."""
    placement = Path(options.placement)
    document = read_json(placement, "placement")
    if document.get("status") in ("infeasible", "no_solution"):
        raise InputError(
            f"{placement} has no placement: {document['status']}", where="placement", remedy="give that of another run"
        )
    proof = Path(options.certificate) if options.certificate else placement.with_name("certificate.json")
    certificate = read_json(proof, "certificate")
    # Only now: a wrong file name should not wait for the planning model.
    from placement.check.checker import checked, judge_by_twin
    from placement.check.ground import ground_of

    missing = {"config", "model", "settings", "splits", "fleet", "workload_sha256"} - certificate.keys()
    if missing:
        raise InputError(f"{proof} has no {', '.join(sorted(missing))}", remedy="give a file of `python -m placement`")
    ground = ground_of(certificate, options.workload, options.allow_modules)
    report, own = checked(document, certificate, ground, columns=options.columns, seed=options.seed)
    if options.twin and own is not None:
        from placement.check.again import simulated

        judge_by_twin(report, document, simulated(ground, own, options.seed))
    if options.table:
        from placement.check.table import write_table

        write_table(Path(options.table), certificate, ground)
        print(f"wrote {options.table}")
    for title, lines in (("proven", report.proven), ("by sample", report.sampled), ("WRONG", report.wrong)):
        for line in lines:
            print(f"{title}: {line}")
    print("something is wrong" if report.wrong else "all holds")
    return 1 if report.wrong else 0


def read_json(path: Path, where: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: no such file, no JSON, or no object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "give the placement.json of a run, with its certificate.json in the same folder"
        raise InputError(f"{path} cannot be read: {error.strerror}", where=where, remedy=remedy) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", where=where) from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no JSON object", where=where)
    return data


APP = command("placement.check", Options, run, about=__doc__)


def main(arguments: Sequence[str]) -> int:
    """Runs the check; returns the exit code."""
    return run_app(APP, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
