"""`python -m placement`: a first bare word is a subcommand, the rest are Hydra overrides."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence

from twin.config.entry import INTERRUPTED
from twin.config.words import chosen
from twin.errors import InputError
from twin.interrupts import leave

#: Subcommand -> module with `main(argv) -> int`. Those whose module is not installed do not exist.
SUBCOMMANDS = {"check": "placement.check", "batching": "placement.batching", "promise": "placement.promise"}


def available() -> list[str]:
    """Subcommands that are installed."""
    return [name for name, module in SUBCOMMANDS.items() if importlib.util.find_spec(module) is not None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the main job or a subcommand and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        name, rest = chosen(
            arguments, available(), program="python -m placement", otherwise=", or an override like workload=file"
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if name is not None:
        return int(importlib.import_module(SUBCOMMANDS[name]).main(rest))
    from placement.command import run

    return run(arguments)


if __name__ == "__main__":
    leave(main(), INTERRUPTED)
