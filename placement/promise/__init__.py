"""Promise check: the plan's own traffic sent to its running deployment, compared with what the plan promised."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """`python -m placement promise ...`, the same as `python -m placement.promise ...`."""
    from placement.promise.__main__ import main as run

    return run(argv)
