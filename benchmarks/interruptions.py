"""Ctrl-C at random moments after the first placement: what it leaves behind (`benchmarks.trust part=interrupts`)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np

from benchmarks.workloads import workload_overrides

#: Workloads of each suite; those of traces are left out where there is no data.
WORKLOADS = {
    "quick": ("default", "power_law_1000_60"),
    "full": ("default", "power_law_1000_60", "published_3000", "servegen_40"),
}
INTERRUPTS = {"quick": 10, "full": 50}
#: Every third time it is pressed twice, so many seconds apart at most.
TWICE, APART_S = 3, 0.5
#: A command that has not ended so many seconds after Ctrl-C hangs; and the longest that is waited for anything.
HANGS_S, PATIENCE_S = 10.0, 300.0
#: A command that ends so soon after Ctrl-C as if nothing had happened was at its end anyway.
DONE_S = 1.0
FIRST = re.compile(r"first placement: \d+ GPUs after")
#: What must not be on the terminal.
NOISE = re.compile(r"Traceback|Exception ignored|terminate called|Fatal Python|internal error|ERROR|Aborted|CRITICAL")


@dataclass(frozen=True, slots=True)
class Interruption:
    """One interrupted run.

    Args:
        after_s: seconds between the first placement and Ctrl-C.
        presses: 1 or 2.
        exit_code: None = it hung and was killed.
        took_s: from Ctrl-C to the end.
        readable: `placement.json` could be read and holds a placement.
        noise: the first line on the terminal that should not be there.
    """

    workload: str
    after_s: float
    presses: int
    exit_code: int | None
    took_s: float
    readable: bool
    noise: str


def interruptions(suite: str, data: str, seed: int, time_limit_s: float) -> Iterator[Interruption]:
    """Runs that are interrupted; an undisturbed one of each workload says how long there is to wait."""
    rng = np.random.default_rng(seed)
    names = [name for name in WORKLOADS[suite] if data or name != "servegen_40"]
    for k, name in enumerate(names):
        options = [*workload_overrides(name, data), "+objective=latency", f"time_limit_s={time_limit_s:g}"]
        count = INTERRUPTS[suite] * (k + 1) // len(names) - INTERRUPTS[suite] * k // len(names)
        run = _Run(options)
        run.first_placement()
        began = time.perf_counter()
        run.ended(PATIENCE_S)
        span_s = time.perf_counter() - began
        done = 0
        while done < count:
            found = interrupted(name, options, float(rng.random()) * span_s, 1 + (done % TWICE == TWICE - 1), rng)
            if found is None:
                span_s *= 0.9  # it had ended before
                continue
            done += 1
            yield found


def interrupted(
    workload: str, options: Sequence[str], after_s: float, presses: int, rng: np.random.Generator
) -> Interruption | None:
    """One run that is interrupted; None if it had ended before."""
    run = _Run(options)
    run.first_placement()
    time.sleep(after_s)
    if run.process.poll() is not None:
        return None
    began = time.perf_counter()
    for press in range(presses):
        if press:
            time.sleep(float(rng.random()) * APART_S)
        if run.process.poll() is None:
            os.kill(run.process.pid, signal.SIGINT)
    ended = run.ended(HANGS_S)
    took_s = time.perf_counter() - began
    if ended in (0, 4) and took_s < DONE_S:
        return None
    noise = next((line for line in run.lines if NOISE.search(line)), "")
    return Interruption(workload, after_s, presses, ended, took_s, run.readable(), noise)


class _Run:
    """The command in a process of its own, with what it writes to the terminal."""

    def __init__(self, options: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "placement", "-v", *options, f"hydra.run.dir={self._folder.name}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def first_placement(self) -> None:
        """Waits for it, or for the end."""
        limit = time.perf_counter() + PATIENCE_S
        while time.perf_counter() < limit and self.process.poll() is None:
            if any(FIRST.search(line) for line in list(self.lines)):
                return
            time.sleep(0.02)

    def ended(self, patience_s: float) -> int | None:
        """Exit code; None if the command had to be killed."""
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        self._reader.join()
        return code

    def readable(self) -> bool:
        try:
            found = json.loads((Path(self._folder.name) / "placement.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(found["gpus"])
