"""Checks a placement and its certificate without any solver: rules, prices in exact arithmetic, columns by sample."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """`python -m placement check ...`, the same as `python -m placement.check ...`."""
    from placement.check.__main__ import main as run

    return run(argv)
