"""The specification: vLLM V1's scheduler, KV cache and adapter slots in plain Python. Read this file first.

An engine has a list of waiting and a list of running requests, KV blocks to give away, and two caches of adapters.
`ReferenceEngine.run` goes step by step; each step has the same phases, in the same order and with the same names, as in
`twin.engine.engine`, which does the same some hundred times faster and shares no data structure with this file. The
tests demand equal schedules from both, whatever the workload. The rules are those of docs/twin.md; left out here is
only `Limits.client_ports`, which is no part of an engine.

Async scheduling is told the way vLLM tells it: two steps are in flight, and the output of a step is processed after the
next one has been scheduled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from twin.engine.state import Limits
from twin.server.laws import StepTimeLaw, step_terms
from twin.workload.requests import Requests


@dataclass(eq=False, slots=True)
class Request:
    """A request; lengths in tokens, times in seconds."""

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
    first_token_s: float | None = None
    finish_s: float | None = None

    @property
    def tokens(self) -> int:
        """All tokens so far, with those that the step in flight will produce; those not computed are scheduled."""
        return self.prompt + self.produced + self.in_flight

    @property
    def done(self) -> bool:
        """It has its last token, or will have it when the step in flight ends."""
        return self.produced + self.in_flight >= self.output


@dataclass(slots=True)
class AdapterCaches:
    """Slots and host memory: adapters, the least recently touched first. One in a slot is in host memory too.

    Args:
        reload_cascade: the least recently touched adapter is evicted even where the batch needs it.
        log: (`load`, `evict`, `disk` or `host-evict`; adapter), as it happened.
    """

    max_loras: int
    max_cpu_loras: int
    reload_cascade: bool
    in_slots: list[int]
    in_host: list[int]
    log: list[tuple[str, int]] = field(default_factory=list)

    def touch(self, adapter: int, batch: set[int]) -> tuple[bool, bool]:
        """Makes an adapter the most recently touched one; whether it was loaded into a slot, and from disk."""
        from_disk, into_slot = adapter not in self.in_host, adapter not in self.in_slots
        if from_disk:
            if len(self.in_host) >= self.max_cpu_loras:
                victim = self._oldest(self.in_host, batch)
                self.in_host.remove(victim)
                self.log.append(("host-evict", victim))
                if victim in self.in_slots:
                    self._evict_from_slot(victim)
            self.log.append(("disk", adapter))
        else:
            self.in_host.remove(adapter)
        self.in_host.append(adapter)
        if into_slot:
            if len(self.in_slots) >= self.max_loras:
                self._evict_from_slot(self._oldest(self.in_slots, batch))
            self.log.append(("load", adapter))
        else:
            self.in_slots.remove(adapter)
        self.in_slots.append(adapter)
        return into_slot, from_disk

    def _oldest(self, cache: list[int], batch: set[int]) -> int:
        return cache[0] if self.reload_cascade else next(a for a in cache if a not in batch)

    def _evict_from_slot(self, adapter: int) -> None:
        self.in_slots.remove(adapter)
        self.log.append(("evict", adapter))


class ReferenceEngine:
    """An engine with the requests that it will be sent.

    Args:
        base_model: whether an adapter is the base model, which needs no slot, (A,).
        walk: set order of the adapters: the order in which those of a batch are loaded, (A,).
        load_s, disk_s: seconds to copy each adapter into a slot and from disk, (A,).
        hosted: adapters were loaded in order at the start, as far as there is room; False = none.
    """

    def __init__(
        self, requests: Requests, limits: Limits, *, base_model: Sequence[bool], walk: Sequence[int],
        load_s: Sequence[float], disk_s: Sequence[float], law: StepTimeLaw, hosted: bool = True,
    ) -> None:  # fmt: skip
        self.limits, self.law = limits, law
        self.base_model, self.walk, self.load_s, self.disk_s = base_model, walk, load_s, disk_s
        columns = (requests.arrival_s, requests.adapter, requests.prompt, requests.cached, requests.output)
        self.requests = [
            Request(i, float(arrival_s), int(adapter), int(prompt), int(cached), int(output))
            for i, (arrival_s, adapter, prompt, cached, output) in enumerate(zip(*columns, strict=True))
        ]
        loaded = [a for a in range(len(walk)) if not base_model[a]] if hosted else []
        self.caches = AdapterCaches(
            limits.max_loras, limits.max_cpu_loras, limits.reload_cascade,
            in_slots=loaded[-limits.max_loras :], in_host=loaded[-limits.max_cpu_loras :],
        )  # fmt: skip
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.free_blocks = limits.total_blocks
        self.upcoming, self.now_s, self.gpu_end_s = 0, 0.0, 0.0
        # Of this step: requests and their tokens in the order of the batch, adapters, tokens left of the budget.
        self.batch: list[tuple[Request, int]] = []
        self.adapters: set[int] = set()
        self.budget, self.preempted, self.skipped, self.loading_s = 0, 0, 0, 0.0
        # Of the step that runs while the next one is scheduled (async): requests, and whether each gets a token.
        self.in_flight: list[tuple[Request, bool]] | None = None
        # Figures.
        self.steps = self.preemptions = self.skips = self.loads = self.disk_loads = self.max_adapters = 0
        self.features: Counter[str] = Counter()
        self.schedule: list[tuple[int, int, int]] = []

    def run(self, until_s: float) -> None:
        """Runs until the next step would be scheduled at `until_s` or later, or nothing is left to do."""
        while self.now_s < until_s:
            self.add_arrivals()
            self.schedule_running()
            self.schedule_waiting()
            self.update_from_step_before()
            if self.batch:
                self.load_adapters()
                self.run_step()
                self.update_from_output()
            elif not self.wait_for_work():
                break

    def add_arrivals(self) -> None:
        """Requests that have arrived by now join the end of the queue."""
        while self.upcoming < len(self.requests) and self.requests[self.upcoming].arrival_s <= self.now_s:
            self.waiting.append(self.requests[self.upcoming])
            self.upcoming += 1

    def schedule_running(self) -> None:
        """Running requests first, in list order, each as many tokens as are left to compute or left of the budget.

        Where KV blocks run out, the last running request is preempted, until there are enough or it is the request
        itself: it gives up its blocks, returns to the front of the queue and is computed again later.
        """
        self.batch, self.budget, self.preempted = [], self.limits.max_num_batched_tokens, 0
        index = 0
        while index < len(self.running) and self.budget > 0:
            request = self.running[index]
            index += 1
            if request.done:
                continue  # its last token is in flight
            tokens = min(request.tokens - request.computed, self.budget)
            while self.blocks_for(request, tokens) > self.free_blocks and request in self.running:
                self.preempt(self.running[-1])
            if request in self.running:
                self.schedule_tokens(request, tokens)
        self.adapters = {r.adapter for r, _ in self.batch if not self.base_model[r.adapter]}

    def preempt(self, victim: Request) -> None:
        self.running.remove(victim)
        self.free_blocks += victim.blocks
        victim.blocks = victim.computed = 0
        victim.decoding = False
        self.waiting.insert(0, victim)
        self.preempted += 1
        self.preemptions += 1

    def schedule_waiting(self) -> None:
        """Then the waiting requests, first come, first served; nobody in a step that preempted.

        A request whose adapter finds no slot is skipped and the scan goes on behind it; skipped requests keep their
        places. One whose KV blocks cannot be had ends the scan.
        """
        limits, skipped = self.limits, []
        while self.waiting and not self.preempted and self.budget > 0 and len(self.running) < limits.max_num_seqs:
            request = self.waiting.pop(0)
            gated = (
                not self.base_model[request.adapter]
                and request.adapter not in self.adapters
                and len(self.adapters) >= limits.max_loras
            )
            if gated and not limits.skip_past:
                self.waiting.insert(0, request)
                break
            if gated or request.in_flight:
                skipped.append(request)
                continue
            missing = request.tokens - request.cached
            tokens = min(missing, self.budget)
            must_fit = missing if limits.whole_sequence_must_fit else tokens
            if self.blocks_for(request, request.cached + must_fit) > self.free_blocks:
                if not self.running and self.free_blocks == limits.total_blocks:
                    continue  # it can never fit and is rejected: vLLM would wait for ever
                self.waiting.insert(0, request)
                break
            request.computed = request.cached
            self.running.append(request)
            self.schedule_tokens(request, tokens)
            if not self.base_model[request.adapter]:
                self.adapters.add(request.adapter)
        self.waiting[:0] = skipped
        self.skipped = len(skipped)
        self.skips += self.skipped

    def blocks_for(self, request: Request, tokens: int) -> int:
        """KV blocks that a request lacks for so many tokens more."""
        return -(-(request.computed + tokens) // self.limits.block_size) - request.blocks

    def schedule_tokens(self, request: Request, tokens: int) -> None:
        """Puts tokens of a request into the batch, with blocks to hold them."""
        wanted = self.blocks_for(request, tokens)
        self.free_blocks -= wanted
        request.blocks += wanted
        self.budget -= tokens
        self.batch.append((request, tokens))

    def update_from_step_before(self) -> None:
        """Async: only now is the output of the step in flight processed."""
        if self.in_flight is not None:
            self.hand_out_tokens(self.in_flight)

    def load_adapters(self) -> None:
        """The batch's adapters are touched in set order, and loaded where they are missing; loads block the step."""
        self.max_adapters = max(self.max_adapters, len(self.adapters))
        self.loading_s = 0.0
        for adapter in self.walk:
            if adapter in self.adapters:
                into_slot, from_disk = self.caches.touch(adapter, self.adapters)
                self.loads += into_slot
                self.disk_loads += from_disk
                self.loading_s += into_slot * self.load_s[adapter] + from_disk * self.disk_s[adapter]

    def run_step(self) -> None:
        """The step starts when it is scheduled and the one before it has ended; it takes the law's time and its loads'.

        Async: the next one is scheduled when the one before this has been processed.
        """
        self.steps += 1
        self.schedule += [(self.steps, request.index, tokens) for request, tokens in self.batch]
        prompt = sum(tokens for request, tokens in self.batch if not request.decoding)
        terms = step_terms(
            decodes=sum(request.decoding for request, _ in self.batch),
            prompt=prompt,
            kv_tokens=prompt + sum(request.computed for request in self.running if not request.done),
            adapters=len(self.adapters),
            slots=self.limits.max_loras,
            rank=self.limits.max_lora_rank,
            skipped=self.skipped,
            waiting=len(self.waiting),
            graph_tokens=self.law.graph_tokens,
        )
        self.features.update(terms)
        ms = sum(getattr(self.law, name) * value for name, value in terms.items())
        ended_before_s = self.gpu_end_s
        self.gpu_end_s = max(self.now_s, ended_before_s) + self.limits.time_scale * (ms / 1000.0 + self.loading_s)
        if not self.limits.async_scheduling:
            self.now_s = self.gpu_end_s
        elif self.in_flight is not None:
            self.now_s = max(self.now_s, ended_before_s)

    def update_from_output(self) -> None:
        """A request gets a token where all of its tokens were computed; async: when the step has ended."""
        launched = []
        for request, tokens in self.batch:
            request.computed += tokens
            request.decoding = request.computed == request.tokens
            request.in_flight += request.decoding
            launched.append((request, request.decoding))
        if self.limits.async_scheduling:
            self.in_flight = launched
        else:
            self.hand_out_tokens(launched)

    def hand_out_tokens(self, launched: list[tuple[Request, bool]]) -> None:
        """Tokens of a step that has ended. Who has the last one leaves, even from the queue after a preemption."""
        for request, gets_token in launched:
            if not gets_token:
                continue
            request.in_flight -= 1
            request.produced += 1
            if request.first_token_s is None:
                request.first_token_s = self.gpu_end_s
            if request.produced == request.output:
                request.finish_s = self.gpu_end_s
                self.free_blocks += request.blocks
                request.blocks = 0
                (self.running if request in self.running else self.waiting).remove(request)

    def wait_for_work(self) -> bool:
        """Nothing could be scheduled: wait for the step in flight, else for a request; False = none will come."""
        if self.in_flight is not None:
            self.now_s, self.in_flight = max(self.now_s, self.gpu_end_s), None
        elif not self.running and not self.waiting:
            if self.upcoming == len(self.requests):
                return False
            self.now_s = max(self.now_s, self.requests[self.upcoming].arrival_s)
        return True
