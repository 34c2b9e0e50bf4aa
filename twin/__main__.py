"""`python -m twin`: simulate a workload on one server, or a placement; arguments are Hydra overrides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twin.config.entry import Outcome

#: Groups of other commands.
HIDDEN = ("commands", "experiment", "export", "objective", "solver", "surrogate", "verify")


def normalised(arguments: Sequence[str]) -> list[str]:
    """`adapters=100` as `adapters.take=100`, `adapters=[a,b]` as `adapters.ids=[a,b]`."""
    words = []
    for word in arguments:
        key, equals, value = word.partition("=")
        if key == "adapters" and equals:
            key = "adapters.ids" if value.startswith("[") else "adapters.take"
        words.append(f"{key}{equals}{value}")
    return words


def run(config: dict[str, Any], directory: Path, quiet: bool) -> tuple[int, dict[str, Any] | None]:
    """One job."""
    from twin.command.run import run_command

    return run_command(config, directory, quiet=quiet)


def show_sweep(outcomes: Sequence[Outcome]) -> None:
    """The table after a sweep."""
    from twin.command.summary import print_sweep

    print_sweep(outcomes)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit code."""
    from twin.config.entry import App, run_app

    app = App("twin", "twin", run, show_sweep, hidden=HIDDEN, makes=("calibration",))
    return run_app(app, normalised(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
