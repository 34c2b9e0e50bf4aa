"""`python -m surrogates optimum|tree|rays|residual key=value ...`: the best slots of a GPU; the residual's making."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from surrogates import optimum, tree
from surrogates.optimum import OptimumCommand, run_optimum
from surrogates.residual.command import RaysCommand, ResidualCommand, run_rays, run_residual
from surrogates.tree import TreeCommand, run_tree
from twin.config.program import command, run_subcommand

COMMANDS = {
    "optimum": command("surrogates optimum", OptimumCommand, run_optimum, about=optimum.__doc__),
    "tree": command("surrogates tree", TreeCommand, run_tree, about=tree.__doc__),
    "rays": command("surrogates rays", RaysCommand, run_rays, about=run_rays.__doc__, config_name="rays"),
    "residual": command(
        "surrogates residual", ResidualCommand, run_residual, about=run_residual.__doc__, config_name="residual"
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    return run_subcommand(
        "python -m surrogates", COMMANDS, sys.argv[1:] if arguments is None else arguments, about=__doc__
    )


if __name__ == "__main__":
    sys.exit(main())
