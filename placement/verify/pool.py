"""Threads for simulations, which Ctrl-C does not wait for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def impatient(threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool that an exception, Ctrl-C among them, leaves at once: what has not begun is dropped.

    Args:
        threads: None = processors.
    """
    pool = ThreadPoolExecutor(max_workers=threads or os.cpu_count() or 1)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
