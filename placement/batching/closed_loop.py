"""A saturated server by a calibration's law: N requests that are all there at the start, at most B running.

This is the publication's experiment (`--request-rate inf`), step by step where prompts are prefilled and in closed
form between two completions. Prompts are prefilled either in chunks that share steps with decodes under a token
budget, or in steps of their own that stall all decodes (vLLM V0's default).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from placement.batching.step_times import StepTimes

Prefill = Literal["chunked", "separate"]
#: KV tokens that a request holds on average beyond its own, in the last block.
BLOCK_TOKENS = 16
#: vLLM V0 keeps this share of its blocks free when it admits a request.
WATERMARK = 0.01


@dataclass(frozen=True, slots=True)
class LoopResult:
    """One run of a closed loop; of one server where several share the GPU.

    Args:
        duration_s: until the last request is done.
        itl_ms: mean gap between two tokens of a request, over all tokens (a client's mean ITL).
        tpot_ms: mean over requests of their mean gap.
        step_ms: time per decode iteration while requests wait, prefill included; NaN if none ever waited.
        running_mean: requests in the batch while requests wait.
        kv_peak_tokens: most KV tokens held at once, in whole blocks.
        preempting: the KV cache ran over; the other figures end there and are not to be used.
        busy_share: share of the time in which the GPU runs kernels of any of its servers.
    """

    requests: int
    duration_s: float
    itl_ms: float
    tpot_ms: float
    step_ms: float
    running_mean: float
    running_max: int
    kv_peak_tokens: int
    preempting: bool
    busy_share: float

    @property
    def throughput_req_per_s(self) -> float:
        return self.requests / self.duration_s


class _Loop:
    """State of one run. Decoding requests advance together: their ends are known when they start."""

    def __init__(self, kv_capacity_tokens: float) -> None:
        self.capacity = kv_capacity_tokens
        self.now_ms = self.busy_ms = self.token_gap_ms = 0.0
        self.step = 0
        self.decoding: list[tuple[int, int]] = []  # heap of (last step, request)
        self.kv = 0.0  # tokens of decoding and prefilling requests
        self.kv_peak = 0.0
        self.running_max = 0
        self.loaded_ms = self.loaded_steps = self.loaded_running = 0.0

    def spend(self, ms: float, busy_ms: float, *, decoding: int, running: int, steps: int, waiting: bool) -> None:
        """Lets the time of `steps` decode iterations (0 for a prefill step) pass."""
        self.now_ms += ms
        self.busy_ms += busy_ms
        self.token_gap_ms += ms * decoding
        if waiting:
            self.loaded_ms += ms
            self.loaded_steps += steps
            self.loaded_running += steps * running

    def hold(self, running: int) -> bool:
        """Notes the KV cache's use; whether it still fits."""
        used = self.kv + running * BLOCK_TOKENS / 2
        self.kv_peak = max(self.kv_peak, used)
        self.running_max = max(self.running_max, running)
        return used <= self.capacity


def closed_loop(
    prompt: Sequence[int],
    output: Sequence[int],
    *,
    batch: int,
    times: StepTimes,
    prefill: Prefill,
    token_budget: int,
    kv_capacity_tokens: float,
) -> LoopResult:
    """Runs N requests, in order, through one server.

    Args:
        prompt, output: tokens of each request, (N,).
        batch: `max_num_seqs`.
        token_budget: `max_num_batched_tokens`.
        kv_capacity_tokens: of this server.
    """
    n = len(prompt)
    loop = _Loop(kv_capacity_tokens)
    waiting = deque(range(n))
    partial: deque[list[int]] = deque()  # [request, prompt tokens left], chunked prefill only
    first_ms, finish_ms = [0.0] * n, [0.0] * n
    fits = True
    while fits and (waiting or partial or loop.decoding):
        running = len(loop.decoding) + len(partial)
        started: list[int] = []
        if prefill == "separate" and waiting and running < batch:
            started = _admit(waiting, prompt, batch - running, token_budget, loop)
        if started:
            tokens = sum(prompt[r] for r in started)
            ms, busy_ms = times.prefill_step(tokens, running)
            loop.spend(ms, busy_ms, decoding=running, running=running, steps=0, waiting=bool(waiting))
            _begin(started, prompt, output, loop, first_ms, finish_ms)
            fits = loop.hold(len(loop.decoding))
            continue
        if prefill == "chunked":
            room = token_budget - len(loop.decoding)
            chunk = _chunk(partial, waiting, prompt, batch - running, room, loop)
            if chunk:
                fits = _mixed_step(loop, times, chunk, partial, waiting, prompt, output, first_ms, finish_ms)
                continue
        if not loop.decoding:
            fits = False  # one request alone does not fit
            break
        fits = _decode_until_completion(loop, times, waiting, prompt, output, finish_ms)
    tokens = sum(output) - n
    gaps = [(finish_ms[r] - first_ms[r]) / (output[r] - 1) for r in range(n) if output[r] > 1]
    return LoopResult(
        requests=n,
        duration_s=loop.now_ms / 1000.0,
        itl_ms=loop.token_gap_ms / max(tokens, 1),
        tpot_ms=sum(gaps) / max(len(gaps), 1),
        step_ms=loop.loaded_ms / loop.loaded_steps if loop.loaded_steps else float("nan"),
        running_mean=loop.loaded_running / loop.loaded_steps if loop.loaded_steps else float("nan"),
        running_max=loop.running_max,
        kv_peak_tokens=int(loop.kv_peak),
        preempting=not fits,
        busy_share=loop.busy_ms / loop.now_ms if loop.now_ms else 0.0,
    )


def _admissible(loop: _Loop, prompt_tokens: int) -> bool:
    return loop.kv + prompt_tokens <= (1 - WATERMARK) * loop.capacity


def _admit(waiting: deque[int], prompt: Sequence[int], seats: int, budget: int, loop: _Loop) -> list[int]:
    """Requests of one prefill step, whole prompts in order."""
    started: list[int] = []
    while waiting and len(started) < seats and _admissible(loop, prompt[waiting[0]]):
        tokens = prompt[waiting[0]]
        if started and tokens > budget:
            break
        budget -= tokens
        loop.kv += tokens
        started.append(waiting.popleft())
    return started


def _begin(
    started: Sequence[int], prompt: Sequence[int], output: Sequence[int], loop: _Loop,
    first_ms: list[float], finish_ms: list[float],
) -> None:  # fmt: skip
    """The prefill gives each request its first token."""
    for r in started:
        first_ms[r] = finish_ms[r] = loop.now_ms
        if output[r] > 1:
            loop.kv += 1
            heapq.heappush(loop.decoding, (loop.step + output[r] - 1, r))
        else:
            loop.kv -= prompt[r]


def _chunk(
    partial: deque[list[int]], waiting: deque[int], prompt: Sequence[int], seats: int, room: int, loop: _Loop
) -> list[tuple[list[int], int]]:
    """(entry of `partial`, tokens) of this step: prefills under way first, then new ones."""
    taken: list[tuple[list[int], int]] = []
    for entry in partial:
        if room <= 0:
            return taken
        tokens = min(room, entry[1])
        taken.append((entry, tokens))
        room -= tokens
    while waiting and seats > 0 and room > 0 and _admissible(loop, prompt[waiting[0]]):
        r = waiting.popleft()
        entry = [r, prompt[r]]
        partial.append(entry)
        loop.kv += prompt[r]
        tokens = min(room, prompt[r])
        taken.append((entry, tokens))
        room, seats = room - tokens, seats - 1
    return taken


def _mixed_step(
    loop: _Loop, times: StepTimes, chunk: list[tuple[list[int], int]], partial: deque[list[int]],
    waiting: deque[int], prompt: Sequence[int], output: Sequence[int], first_ms: list[float], finish_ms: list[float],
) -> bool:  # fmt: skip
    """One step of decodes and prefill chunks; whether the KV cache still fits."""
    decodes, running = len(loop.decoding), len(loop.decoding) + len(partial)
    fits = loop.hold(running)
    ms, busy_ms = times.step(running, loop.kv, sum(tokens for _, tokens in chunk))
    loop.spend(ms, busy_ms, decoding=decodes, running=running, steps=1, waiting=bool(waiting))
    loop.step += 1
    loop.kv += decodes
    _finish(loop, prompt, output, finish_ms)
    done = []
    for entry, tokens in chunk:
        entry[1] -= tokens
        if entry[1] == 0:
            partial.popleft()
            done.append(entry[0])
    _begin(done, prompt, output, loop, first_ms, finish_ms)
    return fits


def _decode_until_completion(
    loop: _Loop, times: StepTimes, waiting: deque[int], prompt: Sequence[int], output: Sequence[int],
    finish_ms: list[float],
) -> bool:  # fmt: skip
    """All steps up to the next completion at once; the step time is affine in the KV tokens between."""
    running = len(loop.decoding)
    steps = loop.decoding[0][0] - loop.step
    growth = running * (steps - 1)
    ms, busy_ms = times.step(running, loop.kv + growth / 2, 0)
    loop.spend(steps * ms, steps * busy_ms, decoding=running, running=running, steps=steps, waiting=bool(waiting))
    loop.kv += growth
    fits = loop.hold(running)
    loop.kv += running
    loop.step += steps
    _finish(loop, prompt, output, finish_ms)
    return fits


def _finish(loop: _Loop, prompt: Sequence[int], output: Sequence[int], finish_ms: list[float]) -> None:
    """Takes out the requests whose last step this was."""
    while loop.decoding and loop.decoding[0][0] <= loop.step:
        _, r = heapq.heappop(loop.decoding)
        finish_ms[r] = loop.now_ms
        loop.kv -= prompt[r] + output[r]
