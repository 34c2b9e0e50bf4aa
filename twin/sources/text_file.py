"""Opening text files so that whatever is wrong with one is said in a sentence."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from twin.errors import InputError


@contextmanager
def open_text(path: str | Path, *, what: str) -> Iterator[tuple[Path, Iterator[str]]]:
    """Opens a UTF-8 text file, unpacking `.gz`; errors of opening *and reading* become `InputError`."""
    if not str(path or "").strip():
        raise InputError(f"no {what} is given", where="option workload.path", remedy="name the file")
    file = Path(str(path)).expanduser()
    try:
        if file.is_dir():
            raise InputError(
                f"{str(path)!r} is a folder, not a {what}", where=str(path), remedy="name the file inside it"
            )
        with file.open("rb") as raw:
            # Told by its first bytes, so that a renamed file is read as well.
            binary: Any = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
            with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
                yield file, _without_nul(text, file, what)
    except UnicodeDecodeError as error:
        raise InputError(
            f"the {what} is not UTF-8 text: {error.reason} at byte {error.start}",
            where=str(path),
            remedy="save it as CSV with UTF-8 encoding (a spreadsheet or Parquet file must be exported first)",
        ) from error
    except FileNotFoundError as error:
        near = f"; the folder {file.parent} does not exist either" if not file.parent.is_dir() else ""
        raise InputError(
            f"the {what} {str(path)!r} does not exist{near}",
            where=str(file.absolute()),
            remedy="check the path; relative paths start at the folder the command runs in",
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"the {what} is not a whole gzip file: {error}", where=str(path), remedy="copy or download it again"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"the {what} cannot be read: {error}", where=str(path), remedy="check its path and permissions"
        ) from error


def _without_nul(text: IO[str], file: Path, what: str) -> Iterator[str]:
    for number, line in enumerate(text, start=1):
        if "\0" in line:
            raise InputError(
                f"the {what} is not text: it holds zero bytes",
                where=f"{file}, line {number}",
                remedy="save it as CSV with UTF-8 encoding",
            )
        yield line
