"""`python -m placement`: a first bare word is a subcommand, the rest are Hydra overrides."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence

#: Subcommand -> module with `main(argv) -> int`. Those whose module is not installed do not exist.
SUBCOMMANDS = {"check": "placement.check", "batching": "placement.batching"}


def available() -> list[str]:
    """Subcommands that are installed."""
    return [name for name, module in SUBCOMMANDS.items() if importlib.util.find_spec(module) is not None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the main job or a subcommand and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else ""
    if first and first.replace("_", "").isalnum():
        if first in available():
            return int(importlib.import_module(SUBCOMMANDS[first]).main(arguments[1:]))
        print(f"error: unknown subcommand {first!r}", file=sys.stderr)
        print(
            f"  remedy: use one of {', '.join(available()) or '(none installed)'}, or an override like "
            f"workload=file (see --help)",
            file=sys.stderr,
        )
        return 2
    from placement.command import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
