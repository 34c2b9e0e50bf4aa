"""Replays a simulation's event log by counting, request by request, and says what the engine must have done.

Nothing of the kernel is used but its log: tokens computed and produced, KV blocks held, adapters in the batch, in
slots and in host memory follow from who was scheduled, preempted and finished, and what was loaded and evicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from twin.engine.state import EVICTED, FINISHED, HOST, LOADED, PREEMPTED, SCHEDULED, SKIPPED
from twin.workload.requests import Requests


@dataclass
class Step:
    """One step as the log tells it."""

    number: int
    tokens: int = 0
    decodes: int = 0
    prefilled: int = 0
    produced: int = 0
    preempted: int = 0
    skipped: int = 0
    loads: int = 0
    adapters: set[int] = field(default_factory=set)
    running: int = 0
    blocks: int = 0
    leaving_blocks: int = 0
    """Of `blocks`, those of requests that finished in the step before (async: their output is not processed yet)."""


@dataclass
class Replay:
    """State while the log is read; arrays over requests."""

    requests: Requests
    slotless: NDArray[np.bool_]
    block: int
    in_slots: set[int] = field(default_factory=set)
    in_host: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        n = len(self.requests)
        self.computed, self.produced = [0] * n, [0] * n
        self.prefilled, self.preemptions = [0] * n, [0] * n
        self.running: set[int] = set()
        self.finished: set[int] = set()
        self.leaving: set[int] = set()

    def _blocks(self, r: int) -> int:
        return -(-self.computed[r] // self.block)

    def _schedule(self, r: int, tokens: int, step: Step) -> None:
        assert tokens > 0 and r not in self.finished
        prompt, output = int(self.requests.prompt[r]), int(self.requests.output[r])
        if r not in self.running:
            self.running.add(r)
            self.computed[r] = int(self.requests.cached[r])
        known = prompt + self.produced[r]
        decode = self.computed[r] == known - 1 and self.produced[r] > 0 and tokens == 1
        self.computed[r] += tokens
        assert self.computed[r] <= known, "computed beyond what is known"
        if not (decode and self.computed[r] == known):
            self.prefilled[r] += tokens
        step.tokens += tokens
        if self.computed[r] == known:
            self.produced[r] += 1
            step.produced += 1
            assert self.produced[r] <= output
        a = int(self.requests.adapter[r])
        if not self.slotless[a]:
            step.adapters.add(a)

    def _adapter_moved(self, kind: int, a: int, value: int) -> None:
        held = self.in_host if value == HOST else self.in_slots
        assert not self.slotless[a], "the base model has no adapter to load"
        if kind == LOADED:
            assert a not in held, "loaded twice"
            held.add(a)
        else:
            assert a in held, "evicted without being there"
            held.discard(a)

    def steps(self, events: NDArray[np.int64]) -> Iterator[Step]:
        """Every step of the log, in order; the state is that after its schedule when it is handed out."""
        previous = 0
        for number, rows in groupby(events.tolist(), key=lambda row: row[0]):
            assert number > previous, "the log is in order of steps"
            previous = number
            step = Step(number)
            ended = []
            for _, kind, index, value in rows:
                if kind == PREEMPTED:
                    step.preempted += 1
                    self.preemptions[index] += 1
                    assert index in self.running or index in self.leaving, "only a running request is preempted"
                    self.running.discard(index)
                    self.leaving.discard(index)
                    self.computed[index] = 0
                elif kind == SCHEDULED:
                    self._schedule(index, value, step)
                elif kind == SKIPPED:
                    step.skipped += 1
                    assert index not in self.running and index not in self.finished
                elif kind in (LOADED, EVICTED):
                    step.loads += kind == LOADED and value != HOST
                    self._adapter_moved(kind, index, value)
                elif kind == FINISHED:
                    assert self.produced[index] == self.requests.output[index], "finished without its tokens"
                    ended.append(index)
            step.running = len(self.running)
            step.leaving_blocks = sum(self._blocks(r) for r in self.leaving)
            step.blocks = sum(self._blocks(r) for r in self.running) + step.leaving_blocks
            yield step
            self.leaving = set(ended)
            self.finished.update(ended)
            self.running.difference_update(ended)
