"""vLLM's own scheduler without a model: its queues, LoRA gate, KV blocks and preemption under a simulated clock.

`vllm_log` runs a scenario through vLLM's `Scheduler` or `AsyncScheduler` with made-up model outputs. The loop around
it is `EngineCore.step` (sync) or `EngineCore.step_with_batch_queue` with two batches in flight (async); a step takes
the scenario's step time plus its adapter loads, a batch starts when the one before it has ended. Imports vLLM 0.32.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from profiling.vllm.config import DEFAULT_OPTIONS, MAX_MODEL_LEN, VllmOptions, base_config, engine_config

# vllm reads the environment that vllm_config has set.
# isort: split
import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import FCFSRequestQueue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from profiling.vllm.adapters import RecordingAdapters, lora_request
from profiling.vllm.log import ScheduleLog
from profiling.vllm.scenario import Scenario
from twin.engine.state import FINISHED, HOST, LOADED, PREEMPTED, SCHEDULED, SKIPPED
from twin.errors import InputError

EOS, TOKEN = 2, 5


class _RecordingQueue(FCFSRequestQueue):  # type: ignore[misc] # vllm is untyped where it is not installed
    """The waiting queue; vLLM puts preempted requests at its front one by one, skipped ones all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.preempted: list[int] = []
        self.skipped: list[int] = []

    def prepend_request(self, request: Any) -> None:
        self.preempted.append(int(request.request_id))
        super().prepend_request(request)

    def prepend_requests(self, requests: Any) -> None:
        self.skipped.extend(int(request.request_id) for request in reversed(requests))
        super().prepend_requests(requests)


def _scheduler(scenario: Scenario, config: Any, options: VllmOptions) -> Any:
    spec = FullAttentionSpec(block_size=scenario.block, num_kv_heads=1, head_size=1, dtype=torch.float32)
    scheduler = (AsyncScheduler if scenario.async_scheduling else Scheduler)(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=scenario.blocks + 1, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
        ),
        structured_output_manager=_grammars(),
        block_size=scenario.block,
        log_stats=False,
    )
    scheduler.waiting = _RecordingQueue()
    scheduler.use_v2_model_runner = options.runner_v2
    return scheduler


@functools.cache
def _grammars() -> StructuredOutputManager:
    return StructuredOutputManager(base_config())


@functools.cache
def _hasher(block: int) -> Callable[[Request], Any]:
    init_none_hash(sha256)
    hasher: Callable[[Request], Any] = get_request_block_hasher(block, sha256)
    return hasher


def _requests(scenario: Scenario, options: VllmOptions) -> list[Request]:
    made = []
    for r, (adapter, prompt, output) in enumerate(
        zip(*(x.tolist() for x in (scenario.requests.adapter, scenario.requests.prompt, scenario.requests.output)),
            strict=True)
    ):  # fmt: skip
        limit = output + 64 if options.stop_by_eos else output
        sampling = SamplingParams(max_tokens=limit, temperature=0.0, ignore_eos=not options.stop_by_eos)
        if options.stop_by_eos:
            sampling.update_from_generation_config({}, EOS)
        made.append(
            Request(
                request_id=str(r),
                # The first token differs, so that no two requests share a prefix.
                prompt_token_ids=[1000 + r] + [TOKEN] * (prompt - 1),
                sampling_params=sampling,
                pooling_params=None,
                arrival_time=float(scenario.requests.arrival_s[r]),
                lora_request=None if scenario.slotless[adapter] else lora_request(adapter, scenario.seed),
                block_hasher=_hasher(scenario.block) if options.prefix_caching else None,
            )
        )
    return made


@dataclass(slots=True)
class _Batch:
    """A scheduled step and what the model will answer."""

    step: int
    output: Any
    samples: dict[str, bool]
    """Whether a request gets a token: not from a chunk that does not end its prefill."""
    end_s: float


@dataclass(slots=True)
class _Run:
    """One scenario in vLLM."""

    scenario: Scenario
    options: VllmOptions
    scheduler: Any
    adapters: RecordingAdapters
    requests: list[Request]
    gpu_end_s: float = 0.0
    steps: int = 0
    decoding: set[str] = field(default_factory=set)
    events: list[tuple[int, int, int, int]] = field(default_factory=list)
    state: list[tuple[float, ...]] = field(default_factory=list)

    def schedule(self, now_s: float) -> _Batch:
        """Calls vLLM's scheduler; logs what it did and puts the batch behind the one in flight."""
        scheduler = self.scheduler
        queue = scheduler.waiting
        queue.preempted, queue.skipped = [], []
        output = scheduler.schedule()
        # A schedule that comes out empty is no step; what it preempted counts for the next one.
        step = self.steps + 1
        self.events += [(step, PREEMPTED, r, 0) for r in queue.preempted]
        self.decoding.difference_update(str(r) for r in queue.preempted)
        scheduled = output.num_scheduled_tokens
        if not scheduled:
            assert not queue.skipped, "vLLM skipped a request in a schedule without any"
            return _Batch(step, output, {}, now_s)
        self.steps = step
        self.events += [(step, SCHEDULED, int(r), tokens) for r, tokens in scheduled.items()]
        self.events += [(step, SKIPPED, r, 0) for r in queue.skipped]
        load_s = self._load(step, scheduled)
        decodes = len(scheduled.keys() & self.decoding)
        prompts = output.total_num_scheduled_tokens - decodes
        a, b, c = self.scenario.step_ms
        duration_s = (a + b * float(decodes) + c * float(prompts)) / 1000.0 + load_s
        start_s = max(now_s, self.gpu_end_s)
        self.gpu_end_s = start_s + duration_s
        free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        self.state.append((start_s, duration_s, decodes, prompts, len(scheduler.running), free))
        samples = {r: not scheduler.requests[r].is_prefill_chunk for r in scheduled}
        self.decoding.update(r for r, sampled in samples.items() if sampled)
        return _Batch(step, output, samples, self.gpu_end_s)

    def _load(self, step: int, scheduled: dict[str, int]) -> float:
        """Activates the batch's adapters; returns the seconds that loading takes."""
        batch = dict.fromkeys(int(self.scenario.requests.adapter[int(r)]) for r in scheduled)
        wanted = [a for a in (batch if self.options.set_order else self.scenario.walk) if a in batch]
        loras = [lora_request(a, self.scenario.seed) for a in wanted if not self.scenario.slotless[a]]
        changes = self.adapters.activate(set(loras) if self.options.set_order else loras)
        self.events += [(step, *change) for change in changes]
        slot_s = disk_s = 0.0
        for kind, adapter, value in changes:
            if kind == LOADED and value == HOST:
                disk_s += self.scenario.disk_ms[adapter] / 1000.0
            elif kind == LOADED:
                slot_s += self.scenario.load_ms[adapter] / 1000.0
        return slot_s + disk_s

    def process(self, batch: _Batch, first_s: Any, finish_s: Any) -> None:
        """Hands a batch's tokens to the scheduler."""
        ids = list(batch.samples)
        tokens = [[self._token(r)] if sampled else [] for r, sampled in batch.samples.items()]
        answer = ModelRunnerOutput(
            req_ids=ids, req_id_to_index={r: i for i, r in enumerate(ids)}, sampled_token_ids=tokens
        )
        for outputs in self.scheduler.update_from_output(batch.output, answer).values():
            for out in outputs.outputs:
                r = int(out.request_id)
                if out.new_token_ids and np.isnan(first_s[r]):
                    first_s[r] = batch.end_s
                if out.finish_reason is not None:
                    finish_s[r] = batch.end_s
                    self.events.append((batch.step, FINISHED, r, 0))

    def _token(self, request_id: str) -> int:
        request = self.requests[int(request_id)]
        last = request.num_output_tokens + 1 == int(self.scenario.requests.output[int(request_id)])
        return EOS if self.options.stop_by_eos and last else TOKEN


def vllm_log(scenario: Scenario, options: VllmOptions = DEFAULT_OPTIONS) -> ScheduleLog:
    """Runs a scenario in vLLM's scheduler, from an idle engine, until all is served.

    Raises:
        InputError: a request does not fit the KV cache or the model length: vLLM would wait for ever.
    """
    total = scenario.requests.prompt + scenario.requests.output
    if total.max() > min(scenario.blocks * scenario.block, MAX_MODEL_LEN - 1):
        raise InputError(
            f"a request of {total.max()} tokens fits neither {scenario.blocks} blocks of {scenario.block} nor "
            f"{MAX_MODEL_LEN} tokens"
        )
    config = engine_config(scenario, options)
    run = _Run(
        scenario, options, _scheduler(scenario, config, options), RecordingAdapters(config),
        _requests(scenario, options),
    )  # fmt: skip
    if scenario.preloaded:
        for adapter, slotless in enumerate(scenario.slotless):
            if not slotless:
                run.adapters.add_adapter(lora_request(adapter, scenario.seed))
    scheduler, arrival_s, n = run.scheduler, scenario.requests.arrival_s, len(total)
    first_s, finish_s = np.full(n, np.nan), np.full(n, np.nan)
    depth = 2 if scenario.async_scheduling else 1
    in_flight: deque[_Batch] = deque()
    now_s, upcoming = 0.0, 0
    while True:
        while upcoming < n and arrival_s[upcoming] <= now_s:
            scheduler.add_request(run.requests[upcoming])
            upcoming += 1
        if scheduler.has_requests():
            batch = run.schedule(now_s)
            in_flight.append(batch)
            if len(in_flight) < depth and (batch.samples or scheduler.has_requests()):
                continue
        elif not in_flight:
            if upcoming == n:
                break
            now_s = float(arrival_s[upcoming])
            continue
        batch = in_flight.popleft()
        now_s = max(now_s, batch.end_s)
        run.process(batch, first_s, finish_s)
    return ScheduleLog(
        np.array(run.events, np.int64).reshape(-1, 4), np.array(run.state).reshape(-1, 6), first_s, finish_s
    )
