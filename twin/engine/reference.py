"""A literal, slow engine: lists of requests, one loop iteration a request, vLLM V1's rules as written down.

It shares no data structure with `twin.engine.kernel`; the tests demand equal schedules from both. Async scheduling is
told the way vLLM tells it: a step's output is processed after the next step has been scheduled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from twin.server.rules import EngineRules
from twin.workload.requests import Requests


@dataclass(eq=False)
class Request:
    index: int
    arrival_s: float
    adapter: int
    prompt: int
    cached: int
    output: int
    computed: int = 0
    produced: int = 0
    in_flight: int = 0
    blocks: int = 0
    decoding: bool = False
    first_s: float | None = None
    finish_s: float | None = None

    @property
    def tokens(self) -> int:
        """All tokens so far, with those that the step in flight will produce; those not computed are scheduled."""
        return self.prompt + self.produced + self.in_flight

    @property
    def done(self) -> bool:
        return self.produced + self.in_flight >= self.output


@dataclass
class Slots:
    """Two LRU caches, slots and host memory, touched together in set order."""

    slots: int
    host: int
    order: list[int]
    cascade: bool
    lru: list[int] = field(default_factory=list)
    host_lru: list[int] = field(default_factory=list)
    log: list[tuple[str, int]] = field(default_factory=list)

    def _oldest(self, lru: list[int], batch: set[int]) -> int:
        return lru[0] if self.cascade else next(a for a in lru if a not in batch)

    def activate(self, batch: set[int]) -> tuple[int, int]:
        loads = disk_loads = 0
        for adapter in self.order:
            if adapter not in batch:
                continue
            if adapter in self.host_lru:
                self.host_lru.remove(adapter)
            else:
                if len(self.host_lru) >= self.host:
                    victim = self._oldest(self.host_lru, batch)
                    self.host_lru.remove(victim)
                    self.log.append(("host-evict", victim))
                    if victim in self.lru:
                        self.lru.remove(victim)
                        self.log.append(("evict", victim))
                disk_loads += 1
                self.log.append(("disk", adapter))
            self.host_lru.append(adapter)
            if adapter in self.lru:
                self.lru.remove(adapter)
            else:
                if len(self.lru) >= self.slots:
                    victim = self._oldest(self.lru, batch)
                    self.lru.remove(victim)
                    self.log.append(("evict", victim))
                loads += 1
                self.log.append(("load", adapter))
            self.lru.append(adapter)
        return loads, disk_loads


@dataclass
class Figures:
    first_s: list[float | None]
    finish_s: list[float | None]
    preemptions: int = 0
    loads: int = 0
    disk_loads: int = 0
    skips: int = 0
    max_adapters: int = 0
    steps: int = 0
    schedule: list[tuple[int, int, int]] = field(default_factory=list)
    """(step, request, tokens) in the order of the batch."""
    adapter_log: list[tuple[str, int]] = field(default_factory=list)


def simulate_literally(
    requests: Requests, *, slotless: list[bool], order: list[int], max_loras: int, max_num_seqs: int,
    budget: int, block: int, blocks: int, horizon_s: float, step_ms: tuple[float, float, float], load_ms: float,
    disk_ms: float, host: int, rules: EngineRules,
) -> Figures:  # fmt: skip
    """Runs the queue; step time `a + b * decodes + c * prompt tokens` ms plus the loads' (host cache cold)."""
    everyone = [
        Request(i, float(requests.arrival_s[i]), int(requests.adapter[i]), int(requests.prompt[i]),
                int(requests.cached[i]), int(requests.output[i]))
        for i in range(len(requests))
    ]  # fmt: skip
    waiting: list[Request] = []
    running: list[Request] = []
    slots = Slots(max_loras, host, order, rules.reload_cascade)
    figures = Figures([], [])
    free, now, gpu_end, upcoming = blocks, 0.0, 0.0, 0
    in_flight: list[tuple[Request, bool]] | None = None

    def needs(request: Request, tokens: int) -> int:
        return -(-(request.computed + tokens) // block) - request.blocks

    def process(batch: list[tuple[Request, bool]], end_s: float) -> None:
        """Hands out the tokens of a step; `True` = the request was computed to its last token."""
        nonlocal free
        for request, samples in batch:
            if not samples:
                continue
            request.in_flight -= 1
            request.produced += 1
            if request.first_s is None:
                request.first_s = end_s
            if request.produced == request.output:
                request.finish_s = end_s
                free += request.blocks
                request.blocks = 0
                (running if request in running else waiting).remove(request)

    while now < horizon_s:
        while upcoming < len(everyone) and everyone[upcoming].arrival_s <= now:
            waiting.append(everyone[upcoming])
            upcoming += 1
        left = budget
        scheduled: list[tuple[Request, int]] = []
        preempted = False
        index = 0
        while index < len(running) and left > 0:
            request = running[index]
            if request.done:
                index += 1  # its last token is in flight
                continue
            tokens = min(request.tokens - request.computed, left)
            while needs(request, tokens) > free:
                victim = running.pop()
                free += victim.blocks
                victim.blocks = victim.computed = 0
                victim.decoding = False
                waiting.insert(0, victim)
                figures.preemptions += 1
                preempted = True
                if victim is request:
                    break
            if request in waiting:
                break
            more = needs(request, tokens)
            free -= more
            request.blocks += more
            scheduled.append((request, tokens))
            left -= tokens
            index += 1
        batch = {r.adapter for r, _ in scheduled if not slotless[r.adapter]}
        skipped: list[Request] = []
        while not preempted and waiting and left > 0 and len(running) < max_num_seqs:
            request = waiting.pop(0)
            gated = not slotless[request.adapter] and request.adapter not in batch and len(batch) >= max_loras
            if gated and not rules.skip_past:
                waiting.insert(0, request)
                break
            if gated or request.in_flight:
                skipped.append(request)
                continue
            request.computed = request.cached
            tokens = min(request.tokens - request.computed, left)
            more = needs(request, tokens)
            if (needs(request, request.tokens - request.computed) if rules.whole_sequence_must_fit else more) > free:
                request.computed = 0
                if not running and free == blocks:
                    continue  # can never fit
                waiting.insert(0, request)
                break
            free -= more
            request.blocks += more
            running.append(request)
            scheduled.append((request, tokens))
            left -= tokens
            if not slotless[request.adapter]:
                batch.add(request.adapter)
        figures.skips += len(skipped)
        waiting[:0] = skipped

        decodes = prompts = 0
        launched: list[tuple[Request, bool]] = []
        for request, tokens in scheduled:
            figures.schedule.append((figures.steps + 1, request.index, tokens))
            decodes += request.decoding
            prompts += 0 if request.decoding else tokens
            request.computed += tokens
            samples = request.computed == request.tokens
            launched.append((request, samples))
        before, before_end = in_flight, gpu_end
        if scheduled:
            figures.steps += 1
            figures.max_adapters = max(figures.max_adapters, len(batch))
            loads, disk_loads = slots.activate(batch)
            figures.loads += loads
            figures.disk_loads += disk_loads
            seconds = (step_ms[0] + step_ms[1] * decodes + step_ms[2] * prompts) / 1000.0
            seconds += (loads * load_ms + disk_loads * disk_ms) / 1000.0
            gpu_end = max(now, gpu_end) + seconds
        if before is not None:
            process(before, before_end)
        for request, samples in launched:
            request.in_flight += samples
            request.decoding = samples
        if scheduled and rules.async_scheduling:
            in_flight = launched
            if before is not None:
                now = max(now, before_end)
        elif scheduled:
            process(launched, gpu_end)
            now = gpu_end
        else:
            in_flight = None
            if before is not None:
                now = max(now, before_end)
            elif not running and not waiting:
                if upcoming == len(everyone):
                    break
                now = max(now, everyone[upcoming].arrival_s)
    figures.first_s = [r.first_s for r in everyone]
    figures.finish_s = [r.finish_s for r in everyone]
    figures.adapter_log = slots.log
    return figures
