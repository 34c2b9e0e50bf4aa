"""A literal, slow engine: lists of requests, one loop iteration a request, vLLM V1's rules as written down.

It shares no data structure with `twin.kernel`; the tests demand equal schedules from both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from twin.arrivals import Requests


@dataclass
class Request:
    index: int
    arrival_s: float
    adapter: int
    prompt: int
    cached: int
    output: int
    computed: int = 0
    produced: int = 0
    blocks: int = 0
    decoding: bool = False
    first_s: float | None = None
    finish_s: float | None = None

    @property
    def tokens(self) -> int:
        """All tokens so far; those not computed yet are scheduled."""
        return self.prompt + self.produced


@dataclass
class Slots:
    """`LRUCacheLoRAModelManager`: activates the batch's adapters in set order."""

    capacity: int
    order: list[int]
    lru: list[int] = field(default_factory=list)

    def activate(self, batch: set[int]) -> int:
        loads = 0
        for adapter in self.order:
            if adapter not in batch:
                continue
            if adapter in self.lru:
                self.lru.remove(adapter)
            else:
                if len(self.lru) >= self.capacity:
                    self.lru.pop(0)
                loads += 1
            self.lru.append(adapter)
        return loads


@dataclass
class Figures:
    first_s: list[float | None]
    finish_s: list[float | None]
    preemptions: int
    loads: int
    skips: int
    max_adapters: int
    steps: int


def simulate_literally(
    requests: Requests, *, slotless: list[bool], order: list[int], max_loras: int, max_num_seqs: int,
    budget: int, block: int, blocks: int, horizon_s: float, step_ms: tuple[float, float, float], load_ms: float,
) -> Figures:  # fmt: skip
    """Runs the queue with step time `a + b * decodes + c * prompt tokens` ms plus `load_ms` per load."""
    everyone = [
        Request(i, float(requests.arrival_s[i]), int(requests.adapter[i]), int(requests.prompt[i]),
                int(requests.cached[i]), int(requests.output[i]))
        for i in range(len(requests))
    ]  # fmt: skip
    waiting: list[Request] = []
    running: list[Request] = []
    slots = Slots(max_loras, order)
    free, t, upcoming = blocks, 0.0, 0
    preemptions = loads = skips = max_adapters = steps = 0

    def needs(request: Request, tokens: int) -> int:
        return -(-(request.computed + tokens) // block) - request.blocks

    while t < horizon_s:
        while upcoming < len(everyone) and everyone[upcoming].arrival_s <= t:
            waiting.append(everyone[upcoming])
            upcoming += 1
        left = budget
        scheduled: list[tuple[Request, int]] = []
        preempted = False
        index = 0
        while index < len(running) and left > 0:
            request = running[index]
            tokens = min(request.tokens - request.computed, left)
            while needs(request, tokens) > free:
                victim = running.pop()
                free += victim.blocks
                victim.blocks = victim.computed = 0
                victim.decoding = False
                waiting.insert(0, victim)
                preemptions += 1
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
            if not slotless[request.adapter] and request.adapter not in batch and len(batch) >= max_loras:
                skipped.append(request)
                continue
            request.computed = request.cached
            tokens = min(request.tokens - request.computed, left)
            more = needs(request, tokens)
            if more > free:
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
        skips += len(skipped)
        waiting[:0] = skipped
        if not scheduled:
            if not running and not waiting:
                if upcoming == len(everyone):
                    break
                t = max(t, everyone[upcoming].arrival_s)
            continue
        steps += 1
        max_adapters = max(max_adapters, len(batch))
        new_loads = slots.activate(batch)
        loads += new_loads
        decodes = sum(1 for r, _ in scheduled if r.decoding)
        prompts = sum(n for _, n in scheduled) - decodes
        t += (step_ms[0] + step_ms[1] * decodes + step_ms[2] * prompts) / 1000.0 + new_loads * load_ms / 1000.0
        for request, tokens in scheduled:
            request.computed += tokens
            if request.computed == request.tokens:
                request.produced += 1
                request.decoding = True
                if request.first_s is None:
                    request.first_s = t
                if request.produced == request.output:
                    request.finish_s = t
                    free += request.blocks
                    running.remove(request)
    return Figures(
        [r.first_s for r in everyone], [r.finish_s for r in everyone], preemptions, loads, skips, max_adapters, steps
    )
