"""The files behind a path: one, several, a pattern, or standard input; packed or not.

What is wrong with a file is said in a sentence. Packing is told by the first bytes, so that a renamed file is read too.
"""

from __future__ import annotations

import atexit
import bz2
import codecs
import glob
import gzip
import io
import lzma
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from twin.errors import InputError

#: What a path may be: a file, a pattern such as `log-*.csv.gz`, `-` for standard input, or several of these.
Paths = str | Path | Sequence[str | Path]

STDIN = "-"
GZIP, BZIP2, XZ, ZSTD, LZ4 = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
ZIP, PARQUET = b"PK\x03\x04", b"PAR1"
#: Byte-order marks and what they stand for; without one: UTF-8.
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a table; what a pipe gave is kept in a file, and has a title."""

    path: Path
    what: str
    title: str = ""

    def __str__(self) -> str:
        return self.title or str(self.path)

    @contextmanager
    def binary(self) -> Iterator[IO[bytes]]:
        """The unpacked bytes; errors of opening *and reading* become `InputError`."""
        try:
            if self.path.is_dir():
                raise InputError(
                    f"{str(self.path)!r} is a folder, not a {self.what}",
                    where=str(self.path),
                    remedy=f"name the file inside it, or a pattern such as '{self.path / '*.csv'}'",
                )
            with self.path.open("rb") as raw:
                yield self._unpacked(raw)
        except UnicodeDecodeError as error:
            raise InputError(
                f"the {self.what} is not UTF-8 text: {error.reason} at byte {error.start}",
                where=str(self),
                remedy="save it with UTF-8 encoding",
            ) from error
        except FileNotFoundError as error:
            folder = self.path.parent
            near = f"; the folder {folder} does not exist either" if not folder.is_dir() else ""
            raise InputError(
                f"the {self.what} {str(self.path)!r} does not exist{near}",
                where=str(self.path.absolute()),
                remedy="check the path; relative paths start at the folder the command runs in",
            ) from error
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise InputError(
                f"the {self.what} is not a whole packed file: {error}",
                where=str(self),
                remedy="copy or download it again",
            ) from error
        except OSError as error:
            raise InputError(
                f"the {self.what} cannot be read: {error}", where=str(self), remedy="check its path and permissions"
            ) from error

    def _unpacked(self, raw: IO[bytes]) -> IO[bytes]:
        head = raw.read(8)
        raw.seek(0)
        stream: Any = raw
        if head.startswith(GZIP):
            stream = gzip.GzipFile(fileobj=raw)
        elif head.startswith(BZIP2):
            stream = bz2.BZ2File(raw)
        elif head.startswith(XZ):
            stream = lzma.LZMAFile(raw)  # noqa: SIM115  closed by the caller, with `raw`
        elif head.startswith((ZSTD, LZ4)):
            stream = self._by_pyarrow(raw, "zstd" if head.startswith(ZSTD) else "lz4")
        elif head.startswith(ZIP):
            stream = self._member(raw)
        return stream  # type: ignore[no-any-return]

    def _by_pyarrow(self, raw: IO[bytes], codec: str) -> Any:
        pyarrow = imported_pyarrow(self, f"unpacking {codec}")
        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), codec))

    def _member(self, raw: IO[bytes]) -> IO[bytes]:
        archive = zipfile.ZipFile(raw)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if "[Content_Types].xml" in names:
            raise InputError(
                f"the {self.what} is an Excel workbook",
                where=str(self),
                remedy="save the sheet as CSV (UTF-8), times as ISO 8601 text such as 2026-11-23T18:00:00",
            )
        if len(names) != 1:
            raise InputError(
                f"the {self.what} is an archive of {len(names)} files", where=str(self), remedy="unpack it, name one"
            )
        return archive.open(names[0])

    @contextmanager
    def text(self) -> Iterator[IO[str]]:
        """The lines, with `\\n` at their ends."""
        with self.binary() as binary:
            buffered = binary if hasattr(binary, "peek") else io.BufferedReader(binary)  # type: ignore[type-var]
            head = bytes(buffered.peek(4096)[:4096])
            encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8")
            if encoding != "utf-16" and b"\0" in head:
                raise InputError(
                    f"the {self.what} is not text: it holds zero bytes",
                    where=str(self),
                    remedy="give CSV, JSON lines or Parquet, with UTF-8 encoding",
                )
            text = io.TextIOWrapper(buffered, encoding=encoding)
            yield text
            text.detach()

    def is_parquet(self) -> bool:
        with self.binary() as binary:
            return binary.read(4) == PARQUET


def imported_pyarrow(source: Source, need: str) -> Any:
    """The module, or an error that says how to get it."""
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(
            f"{need} needs pyarrow, which is not installed",
            where=str(source),
            remedy="install it: python -m pip install 'adapter-placement[tables]'",
        ) from error
    return pyarrow


def sources(path: Paths, *, what: str, option: str = "workload.path") -> tuple[Source, ...]:
    """The files of a path, in the order of their names where it is a pattern.

    Raises:
        InputError: nothing is given, or a pattern matches nothing. Whether a file exists is seen when it is opened.
    """
    given = list(path) if isinstance(path, (list, tuple)) else [path]
    found: list[Source] = []
    for one in given:
        text = str(one or "").strip()
        if not text:
            raise InputError(f"no {what} is given", where=f"option {option}", remedy="name the file")
        if text == STDIN:
            found.append(Source(_kept(sys.stdin.buffer), what, "standard input"))
            continue
        if "\0" in text:
            raise InputError(f"{text!r} is no path", where=f"option {option}", remedy="name the file")
        file = Path(text).expanduser()
        if file.is_fifo() or file.is_char_device():  # <(zcat log.gz), /dev/stdin
            with file.open("rb") as pipe:
                found.append(Source(_kept(pipe), what, text))
            continue
        if not glob.has_magic(text) or file.exists():
            found.append(Source(file, what))
            continue
        root = Path(file.anchor)
        matches = sorted(map(str, root.glob(str(file.relative_to(root)))), key=_natural)
        if not matches:
            raise InputError(
                f"no {what} matches {text!r}", where=f"option {option}", remedy="check the folder and the pattern"
            )
        found += [Source(Path(match), what) for match in matches if Path(match).is_file()]
    if not found:
        raise InputError(f"no {what} is given", where=f"option {option}", remedy="name the file")
    return tuple(found)


def _natural(name: str) -> list[Any]:
    """`log.2` before `log.10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _kept(pipe: IO[bytes]) -> Path:
    """A file that holds what comes out of a pipe, as long as the process lives: a table is read more than once."""
    with tempfile.NamedTemporaryFile(prefix="stdin-", delete=False) as kept:
        shutil.copyfileobj(pipe, kept)
    path = Path(kept.name)
    atexit.register(path.unlink, missing_ok=True)
    return path
