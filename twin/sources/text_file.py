"""Opening text files so that whatever is wrong with one is said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from twin.sources.tables.files import sources


@contextmanager
def open_text(path: str | Path, *, what: str) -> Iterator[tuple[Path, IO[str]]]:
    """Opens a UTF-8 text file, packed or not; errors of opening *and reading* become `InputError`."""
    source = sources(path, what=what)[0]
    with source.text() as text:
        yield source.path, text
