"""The clock that searches look at, and whether it cut one short.

A search that ends for its own reasons (no gain, enough work) is the same on every machine. One that the clock ends is
not, and everything that asks the time asks here, so that it is known.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger(__name__)

_cuts: ContextVar[dict[str, None] | None] = ContextVar("cuts", default=None)


def now() -> float:
    """Seconds of a clock that only runs forward."""
    return time.perf_counter()


def cut(what: str) -> None:
    """Remembers that time, and nothing else, ended something."""
    found = _cuts.get()
    if found is not None and what not in found:
        found[what] = None
        log.debug("ended by the clock: %s", what)


def up(deadline: float, what: str) -> bool:
    """Whether a deadline, a value of `now`, has passed; then `what` was cut short."""
    late = now() >= deadline
    if late:
        cut(what)
    return late


@contextmanager
def cuts() -> Iterator[dict[str, None]]:
    """Collects what the clock cuts short inside."""
    found: dict[str, None] = {}
    token = _cuts.set(found)
    try:
        yield found
    finally:
        _cuts.reset(token)
        for what in found:
            cut(what)
