"""`compiled`: numba's `njit` with a cache on disk that notices a change in any file of a function's folder.

numba compiles what a function calls into it, but its cache looks at the file of the function alone: after a change in a
helper's file it would run the old code. Here the cache lies in a folder named after the hash of all sources next to the
function and of `twin.portable`, so that a change leads to a new folder. A folder (room) is therefore compiled as a
whole: what is compiled must not call compiled functions, or use constants, of another room but `twin.portable`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba as nb

Function = TypeVar("Function", bound=Callable[..., Any])

#: `_nrt=False`: compiled code borrows its caller's arrays. Otherwise it would count references to an array wherever it
#: is named, with an atomic operation each: 17 times the time of a step of the engine. It cannot make arrays, therefore.
OPTIONS: dict[str, Any] = {"nogil": True, "no_cfunc_wrapper": True, "_nrt": False}
INLINED = OPTIONS | {"forceinline": True, "no_cpython_wrapper": True}
#: Caches of former sources that are kept, for the branch that one comes back to; and the age at which others go.
KEPT, KEPT_S = 3, 3600.0
#: What compiled functions of all rooms may call.
SHARED = "portable.py"
_config: Any = nb.config  # numba's settings, `NUMBA_...` in the environment
_lock = threading.Lock()


def compiled(function: Function) -> Function:
    """Compiles a function at its first call; its cache is shared by all processes. It releases the GIL."""
    return _cached(function, OPTIONS)


def allocating(function: Function) -> Function:
    """`compiled` for a function that makes arrays, and counts references to those that it names."""
    return _cached(function, {"nogil": True})


def _cached(function: Function, options: dict[str, Any]) -> Function:
    folder = cache_folder(Path(function.__code__.co_filename).resolve().parent)
    # numba asks for the folder once, while it decorates. The lock is for threads that import two rooms at once.
    with _lock:
        before = _config.CACHE_DIR
        _config.CACHE_DIR = str(folder or "")
        try:
            made: Function = nb.njit(function, cache=folder is not None, **options)
        finally:
            _config.CACHE_DIR = before
    return made


def inlined(function: Function) -> Function:
    """Compiles a part of a compiled function, into which it is copied: a call would hand over all arrays in memory."""
    made: Function = nb.njit(function, **INLINED)
    return made


@cache
def cache_folder(room: Path) -> Path | None:
    """Where the compiled functions of a folder of sources are cached; None where nothing can be written.

    In `NUMBA_CACHE_DIR` if that is set, else next to the sources, else in the user's cache folder.
    """
    sources = hashlib.sha256()
    for path in [*sorted(room.glob("*.py")), *room.parent.glob(SHARED)]:
        sources.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    name = f"{room.name}-{hashlib.sha256(str(room).encode()).hexdigest()[:8]}"
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if _config.CACHE_DIR:
        places = [Path(_config.CACHE_DIR) / name]
    else:
        places = [room / "__pycache__" / "numba", users / "adapter-placement" / "numba" / name]
    for place in places:
        folder = place / sources.hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            _remove_old(place, folder)
            return folder
    return None


def is_compiled(room: Path) -> bool:
    """Whether functions of a folder of sources lie compiled in its cache."""
    folder = cache_folder(room.resolve())
    return folder is not None and any(folder.rglob("*.nbi"))


def _remove_old(place: Path, current: Path) -> None:
    """Removes the caches of sources that were changed since; a process that still runs them has used them lately."""
    used = {}
    for path in place.iterdir():
        try:
            used[path] = path.stat().st_mtime
        except FileNotFoundError:
            continue  # another process removed it
    former = sorted((path for path in used if path != current), key=lambda path: -used[path])
    for path in former[KEPT:]:
        if time.time() - used[path] > KEPT_S:
            shutil.rmtree(path, ignore_errors=True)
