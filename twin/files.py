"""Atomic writes: a reader sees the old file or the new one, never half of it; and what stops a write, in words."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from pathlib import Path

from twin.errors import InputError

log = logging.getLogger(__name__)


def write_text(path: Path, text: str, *, executable: bool = False) -> None:
    """Writes UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode(), executable=executable)


def write_bytes(path: Path, data: bytes, *, executable: bool = False) -> None:
    """Writes through a temporary file in the same folder, flushed to disk before it takes the name.

    Raises:
        InputError: the place cannot be written to, or is full.
    """
    try:
        _write(path, data, executable=executable)
    except OSError as error:
        raise unusable_place(error, path) from error


def unusable_place(error: OSError, path: object) -> InputError:
    """An error of the file system, with what to do."""
    remedies = {
        errno.ENOSPC: "free some space, or name another folder with hydra.run.dir=...",
        errno.EDQUOT: "free some space, or name another folder with hydra.run.dir=...",
        errno.ENAMETOOLONG: "use a shorter name",
    }
    remedy = remedies.get(error.errno or 0, "name a file or folder that exists and may be used, e.g. hydra.run.dir=...")
    return InputError(f"{str(path)!r}: {error.strerror or error}", where=str(path), remedy=remedy)


def _write(path: Path, data: bytes, *, executable: bool) -> None:
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
