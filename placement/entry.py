"""The main job as a Hydra command; `twin.config.entry` drives Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twin.config.entry import App, Outcome, run_app


def _run(config: dict[str, Any], directory: Path, quiet: bool) -> tuple[int, dict[str, Any] | None]:
    from placement.command import run_placement

    return run_placement(config, directory, quiet=quiet)


def _print_sweep(outcomes: Sequence[Outcome]) -> None:
    from placement.report.table import sweep_table

    sweep_table([(o.overrides, o.exit_code, o.directory, o.summary) for o in outcomes])


APP = App("placement", "config", _run, _print_sweep, optional=("objective",), hidden=("commands",))


def run(arguments: Sequence[str]) -> int:
    """Runs the main job and returns the exit code."""
    return run_app(APP, arguments)
