"""`python -m placement.promise placement=... workload=... [url=...]`: Hydra overrides, as in the main job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twin.config.entry import App, Outcome, run_app


def _run(config: dict[str, Any], directory: Path, quiet: bool) -> tuple[int, dict[str, Any] | None]:
    from placement.promise.run import run_promise

    return run_promise(config, directory, quiet=quiet), None


def _no_table(outcomes: Sequence[Outcome]) -> None:
    """Each job has printed its own result."""


HIDDEN = (
    "commands", "model", "hardware", "calibration", "engine", "surrogate", "constraint", "solver", "verify", "export",
    "experiment", "objective",
)  # fmt: skip
APP = App("placement.promise", "promise", _run, _no_table, hidden=HIDDEN)


def main(argv: Sequence[str] | None = None) -> int:
    """Loads the deployment and returns the exit code."""
    return run_app(APP, list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
