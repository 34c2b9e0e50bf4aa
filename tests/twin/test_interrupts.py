"""Ctrl-C: noted where an exception would do harm, and raised once where results are to be saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from twin import interrupts
from twin.interrupts import Presses, held, once, saving

ROOT = Path(__file__).resolve().parents[2]


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_held_is_noted_and_not_raised() -> None:
    before = signal.getsignal(signal.SIGINT)
    with held() as pressed:
        assert not pressed()
        press()
        press()
        assert pressed()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_have_no_handler() -> None:
    seen: list[bool] = []

    def work() -> None:
        with held() as pressed, once():
            seen.append(pressed())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_second_press_at_once_raises_nothing() -> None:
    with once() as presses:
        with pytest.raises(KeyboardInterrupt):
            press()
        press()
    assert presses.came


def test_a_press_that_a_solver_noted_is_the_first_one() -> None:
    with once() as presses:
        with held() as pressed:
            press()
            assert pressed()
        press()
    assert presses.came


def test_a_press_much_later_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one may have been lost in code that swallows exceptions."""
    times = iter([0.0, 5.0])
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: next(times))
    presses = Presses()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            presses(signal.SIGINT, None)


def test_nothing_ends_the_saving() -> None:
    with once() as presses:
        saving()
        press()
    assert presses.came
    saving()  # without a run that saves, nothing


def test_a_command_that_is_over_is_left_in_peace() -> None:
    program = (
        "import atexit, os, signal; from twin.interrupts import leave; "
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT)); leave({}, 130)"
    )
    for code in (4, 130):
        done = subprocess.run([sys.executable, "-c", program.format(code)], capture_output=True, cwd=ROOT)
        assert (done.returncode, done.stderr) == (code, b"")
