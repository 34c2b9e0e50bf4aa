"""Batching advisor: the batch limit that keeps nearly all the throughput, and replicas in the memory it frees."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """`python -m placement batching ...`, the same as `python -m placement.batching ...`."""
    from placement.batching.__main__ import main as run

    return run(argv)
