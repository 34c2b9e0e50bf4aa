"""The main job as a command, `python -m placement`, and as a function, `placement.place`.

Both compose one configuration in the same way and run `placement.pipeline`; the command also writes files.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from placement.config import load_run
from twin.config.compose import compose
from twin.config.entry import App, Outcome, run_app, show_error
from twin.config.together import side_by_side
from twin.errors import InfeasibleError, InputError, NoSolutionError
from twin.interrupts import once
from twin.sources.adapter_file import read_frame
from twin.sources.table import is_frame

if TYPE_CHECKING:
    from placement.config import ObjectiveLike, Run, SolverLike, VerifierLike, WorkloadLike
    from placement.report.progress import Silent
    from placement.report.result import Result
log = logging.getLogger(__name__)

VERIFICATION_FAILED, INTERRUPTED = 4, 130


def _run(config: dict[str, Any], directory: Path, quiet: bool) -> tuple[int, dict[str, Any] | None]:
    return run_placement(config, directory, quiet=quiet)


def _print_sweep(outcomes: Sequence[Outcome]) -> None:
    from placement.report.sweep import write_sweep
    from placement.report.table import sweep_table

    if not outcomes:
        return
    jobs = [(o.overrides, o.exit_code, o.directory, o.summary) for o in outcomes]
    files, note = write_sweep(jobs)
    sweep_table(jobs, [_shown(f) for f in files], note)


APP = App(
    "placement",
    "config",
    _run,
    _print_sweep,
    optional=("objective",),
    hidden=("commands", "export/common"),
    makes=("calibration",),
)


def run(arguments: Sequence[str]) -> int:
    """Runs the command and returns the exit code."""
    try:
        words = normalised(arguments)
    except InputError as error:
        show_error(error)
        return error.exit_code
    return run_app(APP, words)


def normalised(arguments: Sequence[str]) -> list[str]:
    """`objective=latency` as `+objective=latency`, and `hardware=[a,b]` as two types of GPU side by side.

    Hydra adds a group that has no default with `+` only, and `objective` has none so that `+objective=...` works.
    """
    added = [f"+{a}" if a.startswith("objective=") else a for a in arguments]
    return side_by_side(added, "hardware", {"calibration": "${model}-{option}"})


def place(
    workload: WorkloadLike = None,
    objective: ObjectiveLike = "latency",
    *,
    solver: SolverLike = "milp",
    model: str | None = None,
    hardware: str | Sequence[str] | None = None,
    verify: VerifierLike = "quick",
    overrides: Sequence[str] = (),
    progress: bool = False,
) -> Result:
    """Places adapters on GPUs: computes, certifies and verifies a placement, as `python -m placement` does.

    >>> result = place("adapters.csv", "latency", hardware="h100-64gb", overrides=["hardware.count=8"])
    >>> result.objective, result.bound, len(result.gpus)
    >>> result.write("out")

    Args:
        workload: a workload, a pandas DataFrame of adapters or the path of such a CSV file (`workload=file`). None =
            what the configuration says: other sources are overrides, such as `workload=servegen`.
        objective: name of an option of `conf/objective`, an objective, or a single term. None = GPU count.
        solver, verify: name of an option in `conf/`, or an object.
        model, hardware: name of an option in `conf/`, of `hardware` also several names; None = the default of the
            configuration.
        overrides: anything else as on the command line, e.g. `engine.max_num_seqs=512`. They come last and win.
        progress: show progress on a terminal.

    Returns:
        The placement with objective, bound and verdicts. `status` is `unverified` where nothing was simulated, or
        where the twin did not accept every GPU: then `warnings` says why.

    Raises:
        InputError: a value, file or option is wrong, or the solver does not support the problem.
        InfeasibleError: proven that no placement exists.
        NoSolutionError: none was found within the time limit.
    """
    if is_frame(workload):
        workload = read_frame(workload)
    _check_arguments(workload, solver, model, hardware, overrides)
    if hardware is not None and not isinstance(hardware, str):
        hardware = f"[{','.join(hardware)}]"
    named = {o.lstrip("+~").partition("=")[0] for o in overrides}
    chosen: list[str] = []
    given: dict[str, Any] = {}
    arguments = {
        "workload": workload, "objective": objective, "solver": solver, "model": model, "hardware": hardware,
        "verify": verify,
    }  # fmt: skip
    for group, value in arguments.items():
        if value is None or (isinstance(value, (str, Path)) and group in named):
            continue
        if not isinstance(value, (str, Path)):
            if group in named:
                raise InputError(f"{group} is given twice", where="overrides", remedy=f"leave {group}=... out")
            unused = next((name for name in named if name.startswith(f"{group}.")), None)
            if unused is not None:
                raise InputError(
                    f"{unused} says nothing of a {group} that is given as an object",
                    where="overrides",
                    remedy=f"leave it out, or set it where the {group} is made",
                )
            given[group] = value
        elif group == "workload":
            chosen += ["workload=file", f"workload.path={_quoted(value)}"]
        else:
            chosen.append(f"{group}={value}")
    run = load_run(compose(APP, normalised([*chosen, *overrides])), given)
    from placement.report.progress import progress as shown

    return _computed(run, shown(quiet=not progress))


def _computed(run: Run, progress: Silent) -> Result:
    # Only now: a wrong option does not pay for solvers and the compiled twin.
    from placement.pipeline import run_pipeline

    result = run_pipeline(run, progress)
    if run.report.what_if and result.termination != "interrupted":
        from placement.pipeline.what_if import what_if

        with progress.stage("what if") as advanced:
            result.what_if = what_if(run, result, advanced)
    return result


def _check_arguments(workload: Any, solver: Any, model: Any, hardware: Any, overrides: Any) -> None:
    """Raises `InputError` for what cannot be a workload, a solver, a name or a list of overrides."""
    if not (workload is None or isinstance(workload, (str, Path)) or hasattr(workload, "adapters")):
        raise InputError(
            f"{type(workload).__name__} is not a workload",
            where="workload",
            remedy="give a twin.Workload, a DataFrame or a path",
        )
    if not (isinstance(solver, str) or hasattr(solver, "solve")):
        raise InputError(f"{solver!r} is not a solver", where="solver", remedy="give a name, e.g. 'milp', or a solver")
    for name, value in (("model", model), ("hardware", hardware)):
        several = name == "hardware" and isinstance(value, (list, tuple)) and value
        if not all(isinstance(v, str) for v in (value if several else [value or ""])):
            raise InputError(f"{value!r} is not a name", where=name, remedy=f"give an option of conf/{name}")
    if isinstance(overrides, str):
        raise InputError(f"{overrides!r} is one text", where="overrides", remedy=f"give a list: [{overrides!r}]")


def _quoted(path: str | Path) -> str:
    """A path as Hydra reads it: quotes are escaped, and a backslash only where a quote follows it."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), str(path)) + "'"


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
    from placement.report.document import Status, write_failure, write_outputs
    from placement.report.progress import progress
    from placement.report.table import print_report
    from placement.report.words import mean_over_requests, objective_text

    with once() as presses:
        try:
            result = _computed(run, progress(quiet))
        except (InfeasibleError, NoSolutionError) as error:
            status: Status = "infeasible" if isinstance(error, InfeasibleError) else "no_solution"
            write_failure(run, status, str(error), directory)
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
        data = result.to_dict()
        details = result.report_details(data)
        files = write_outputs(run, data, directory, details, result.certificate(data))
    if not quiet:
        # Of the deployment files, their folder.
        own = [f for f in files if f.parent == directory]
        deployed = sorted({directory / f.relative_to(directory).parts[0] for f in files if f.parent != directory})
        print_report(data, [_shown(f) for f in [*own, *deployed]])
    summary = {
        "status": result.status,
        "gpus": len(result.gpus),
        "cost_per_hour": details.cost_per_hour,
        "objective": objective_text(data),
        "bound": data["bound"],
        "gap": data["gap"],
        "e2e_mean_s": mean_over_requests(data, "predicted", "e2e_mean_s"),
        "itl_mean_ms": mean_over_requests(data, "predicted", "itl_mean_ms"),
        "simulated_e2e_mean_s": mean_over_requests(data, "simulated", "e2e_mean_s"),
        "runtime_s": data["runtime_s"],
    }
    if result.termination == "interrupted" or presses.came:
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
