"""`python -m placement.batching [model=...] [slo=strict] [key=value ...]`: Hydra overrides, as in the main job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twin.config.entry import App, Outcome, run_app


def _run(config: dict[str, Any], directory: Path, quiet: bool) -> tuple[int, dict[str, Any] | None]:
    from placement.batching.run import run_batching

    return run_batching(config, directory, quiet=quiet)


def _print_sweep(outcomes: Sequence[Outcome]) -> None:
    from placement.batching.table import sweep_table

    sweep_table([(o.overrides, o.exit_code, o.directory, o.summary) for o in outcomes])


HIDDEN = (
    "commands", "workload", "engine", "surrogate", "constraint", "solver", "verify", "export", "experiment",
    "objective",
)  # fmt: skip
APP = App("placement.batching", "batching", _run, _print_sweep, hidden=HIDDEN)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the advisor and returns the exit code."""
    return run_app(APP, list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
