"""Compiled code is cached on disk, for all processes, and never older than any file of its folder.

No clock is looked at: numba counts what it found in its cache and what it had to compile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twin.compiled import KEPT, KEPT_S, cache_folder
from twin.engine.engine import advance

LOOP = """
from twin.compiled import compiled
from {room}.helper import step

@compiled
def run(values):
    return step(values) + 1.0
"""
HELPER = """
from twin.compiled import inlined

@inlined
def step(values):
    return values[0] * {factor}
"""
CALL = """
import numpy as np
from {room}.loop import run
print(run(np.ones(2)), sum(run.stats.cache_hits.values()), sum(run.stats.cache_misses.values()), run.stats.cache_path)
"""
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A folder of two files: a compiled loop, and a helper in another file."""
    folder = tmp_path / "small_room"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "loop.py").write_text(LOOP.format(room=folder.name))
    (folder / "helper.py").write_text(HELPER.format(factor=2.0))
    return folder


def call(room: Path, **environment: str) -> tuple[float, int, int, Path]:
    """A process of its own: result, functions found in the cache, functions compiled, folder of the cache."""
    inherited = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    path = os.pathsep.join((str(ROOT), str(room.parent)))
    ran = subprocess.run(
        [sys.executable, "-c", CALL.format(room=room.name)], capture_output=True, text=True, check=True,
        env={**inherited, "PYTHONPATH": path, **environment},
    )  # fmt: skip
    result, hits, misses, folder = ran.stdout.split()
    return float(result), int(hits), int(misses), Path(folder)


def test_a_second_process_compiles_nothing_and_a_changed_helper_is_noticed(room: Path) -> None:
    result, hits, misses, folder = call(room)
    assert (result, hits, misses) == (3.0, 0, 1)
    assert (room / "__pycache__") in folder.parents, "next to the sources, as Python's own cache"
    assert call(room) == (3.0, 1, 0, folder)
    # numba alone looks at loop.py only, and would answer 3.0 here.
    (room / "helper.py").write_text(HELPER.format(factor=5.0))
    result, hits, misses, other = call(room)
    assert (result, hits, misses) == (6.0, 0, 1) and other != folder
    (room / "helper.py").write_text(HELPER.format(factor=2.0))
    assert call(room) == (3.0, 1, 0, folder), "back to the former sources, back to their cache"


def test_the_cache_goes_where_numba_is_told(room: Path, tmp_path: Path) -> None:
    folder = call(room, NUMBA_CACHE_DIR=str(tmp_path / "elsewhere"))[3]
    assert (tmp_path / "elsewhere") in folder.parents
    assert not (room / "__pycache__" / "numba").exists()


def test_where_sources_cannot_be_written_the_cache_is_the_users(room: Path, tmp_path: Path) -> None:
    # A file in its place: unlike permissions, it stops the superuser too.
    (room / "__pycache__").write_text("in the way")
    result, _, misses, folder = call(room, XDG_CACHE_HOME=str(tmp_path / "user"))
    assert (result, misses) == (3.0, 1) and (tmp_path / "user") in folder.parents
    (tmp_path / "user file").touch()
    assert call(room, XDG_CACHE_HOME=str(tmp_path / "user file"))[:2] == (3.0, 0), "compiled anew, without a cache"


def test_caches_of_former_sources_do_not_pile_up(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twin.compiled._config.CACHE_DIR", "")
    folders = []
    for i in range(KEPT + 4):
        (room / "helper.py").write_text(HELPER.format(factor=float(i)))
        cache_folder.cache_clear()
        folder = cache_folder(room)
        assert folder is not None and folder not in folders
        # Used `KEPT_S` ago and earlier, the first one the longest time ago.
        past = folder.stat().st_mtime - KEPT_S - 100 + i
        os.utime(folder, (past, past))
        folders.append(folder)
    assert [f for f in folders if f.exists()] == folders[-KEPT - 1 :]
    cache_folder.cache_clear()


def test_the_engine_is_cached_by_the_hash_of_its_sources() -> None:
    folder = cache_folder(ROOT / "twin" / "engine")
    assert folder is not None and folder in Path(advance.stats.cache_path).parents  # type: ignore[attr-defined]


def test_functions_that_all_rooms_may_call_are_part_of_the_hash(room: Path) -> None:
    cache_folder.cache_clear()
    before = cache_folder(room)
    (room.parent / "portable.py").write_text("HALF = 0.5\n")
    cache_folder.cache_clear()
    assert before is not None
    assert cache_folder(room) != before
