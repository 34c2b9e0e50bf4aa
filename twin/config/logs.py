"""Logging of every command: a logger per module, shown on stderr by `-v` (what is done) and `-vv` (details)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
FORMAT = "%(levelname)s %(name)s: %(message)s"


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is at that moment, so that a stream replaced later is found."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def show_logs(verbosity: int, packages: Sequence[str]) -> None:
    """Shows warnings of all modules, and of these packages as much as was asked for."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _Stderr)]:
        root.removeHandler(handler)
    handler = _Stderr()
    handler.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for package in packages:
        logging.getLogger(package).setLevel(LEVELS[min(verbosity, len(LEVELS) - 1)])
