"""One run from plain configuration to files and exit code; free of Hydra."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from placement.config import load_run
from twin.errors import InfeasibleError, NoSolutionError
from twin.files import write_text

log = logging.getLogger(__name__)

VERIFICATION_FAILED, INTERRUPTED = 4, 130


def run_placement(config: dict[str, Any], directory: Path, *, quiet: bool) -> tuple[int, dict[str, Any]]:
    """Runs the main job and writes its files.

    Args:
        config: plain containers, as composed.
        directory: where the files go.
        quiet: a job of a sweep: no table and no progress.

    Returns:
        Exit code (0, 4 or 130) and a summary for the table of a sweep.

    Raises:
        PlacementError: bad input, infeasible, or nothing found; `placement.json` says so where there is one.
    """
    run = load_run(config)
    # Only now: a wrong option does not pay for solvers and the compiled twin.
    from placement.pipeline import place
    from placement.report.document import document, failure, to_json, write_outputs
    from placement.report.progress import progress
    from placement.report.result import Status
    from placement.report.table import print_report
    from placement.report.words import objective_text

    try:
        result = place(run, progress(quiet))
    except (InfeasibleError, NoSolutionError) as error:
        status: Status = "infeasible" if isinstance(error, InfeasibleError) else "no_solution"
        write_text(directory / "placement.json", to_json(failure(run, status, str(error))))
        raise
    for warning in result.warnings:
        log.debug("warning in the report: %s", warning)
    log.info(
        "%s: %s, %d GPUs, objective %g, bound %s",
        result.status,
        result.termination,
        len(result.gpus),
        result.objective,
        result.bound,
    )
    data = document(run, result)
    files = write_outputs(run, data, directory)
    if not quiet:
        print_report(data, [_shown(f) for f in files[:3]] + ([_shown(files[-1].parent)] if len(files) > 3 else []))
    summary = {
        "status": result.status,
        "gpus": len(result.gpus),
        "objective": objective_text(data),
        "bound": data["bound"],
        "gap": data["gap"],
        "runtime_s": data["runtime_s"],
    }
    if result.termination == "interrupted":
        return INTERRUPTED, summary
    if result.status != "verified" and run.verifier is not None:
        return VERIFICATION_FAILED, summary
    return 0, summary


def _shown(path: Path) -> str:
    """Relative to the working directory where possible."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
