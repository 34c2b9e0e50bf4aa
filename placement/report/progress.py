"""Progress of anything longer than a second, on stderr; silent where nobody watches."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def _logged(text: str) -> Iterator[None]:
    began = time.perf_counter()
    log.info("%s ...", text)
    yield
    log.info("%s: %.1f s", text, time.perf_counter() - began)


class Silent:
    """No progress: not a terminal, or a sweep."""

    @contextmanager
    def stage(self, text: str) -> Iterator[Advanced]:
        with _logged(text):
            yield Advanced()


class Advanced:
    """Ignores how far a stage is."""

    def __call__(self, done: int, total: int) -> None:
        del done, total


class Live(Silent):
    """A spinner with the stage, elapsed time and, where known, done / total."""

    @contextmanager
    def stage(self, text: str) -> Iterator[Advanced]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeElapsedColumn(),
        )  # fmt: skip
        with _logged(text), Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(text, total=None)

            class Bar(Advanced):
                def __call__(self, done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total)

            yield Bar()


def progress(quiet: bool) -> Silent:
    """Live on a terminal, silent otherwise."""
    return Live() if sys.stderr.isatty() and not quiet else Silent()
