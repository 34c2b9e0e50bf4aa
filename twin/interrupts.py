"""Ctrl-C where an exception in the middle of things would do harm: around solvers, and while results are saved."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Presses within so many seconds are one.
ONE_PRESS_S = 1.0


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Another handler of SIGINT; only the main thread has any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted, not raised: what this yields says whether it came. For code that polls, such as solvers."""
    pressed: list[int] = []
    outer = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        pressed.append(number)
        if isinstance(outer, Presses):
            outer.note()

    with _handled(note):
        yield lambda: bool(pressed)


class Presses:
    """Ctrl-C of a run that saves what it has: the first press ends the search, and none ends the saving.

    Attributes:
        came: whether it was pressed.
        saving: nothing is raised from now on.
    """

    def __init__(self) -> None:
        self.came = False
        self.saving = False
        self._last_s = -math.inf

    def note(self) -> bool:
        """A press; whether it is another one than the last."""
        self.came = True
        now_s = time.monotonic()
        if now_s - self._last_s < ONE_PRESS_S:
            return False
        self._last_s = now_s
        return True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        # Impatience is no second wish; but a press much later means that the first one was lost.
        if self.note() and not self.saving:
            raise KeyboardInterrupt


@contextmanager
def once() -> Iterator[Presses]:
    """`KeyboardInterrupt` for the first press, and nothing for what follows it at once or while results are saved."""
    presses = Presses()
    with _handled(presses):
        yield presses


def saving() -> None:
    """From here on a run under `once` is not interrupted any more: what it found is being saved."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Presses):
        handler.saving = True


def leave(code: int, interrupted: int) -> None:
    """Ends the process, whatever is pressed now; after an interruption at once, for threads may be in compiled code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == interrupted:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
