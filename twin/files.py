"""Atomic writes: a reader sees the old file or the new one, never half of it."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)


def write_text(path: Path, text: str, *, executable: bool = False) -> None:
    """Writes UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode(), executable=executable)


def write_bytes(path: Path, data: bytes, *, executable: bool = False) -> None:
    """Writes through a temporary file in the same folder, flushed to disk before it takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod((0o777 if executable else 0o666) & ~umask)
        Path(temporary).replace(path)
        log.info("wrote %s (%d bytes)", path, len(data))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
