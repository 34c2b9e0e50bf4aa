"""Progress of anything longer than a second, on stderr; silent where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Silent:
    """No progress: not a terminal, or a sweep."""

    @contextmanager
    def stage(self, text: str) -> Iterator[Advanced]:
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
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(text, total=None)

            class Bar(Advanced):
                def __call__(self, done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total)

            yield Bar()


def progress(quiet: bool) -> Silent:
    """Live on a terminal, silent otherwise."""
    return Live() if sys.stderr.isatty() and not quiet else Silent()
