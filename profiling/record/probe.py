"""Runs inside vLLM: writes down every step of the scheduler and every load of an adapter.

vLLM loads it through two of its supported hooks (entry points that `profiling.record.server` puts on the path):
`vllm.stat_logger_plugins` tells version, memory and flags when the engine is ready; `vllm.general_plugins` wraps
`Scheduler.schedule`, `Scheduler.update_from_output` and the two methods that load adapters. The wrapped methods are
internals of vLLM 0.32: under another version nothing is wrapped, and the recorder says so. Without the environment
variable `ADAPTER_RECORD` (a folder) it does nothing. It needs the standard library and vLLM only.

One line of JSON a step, times from CLOCK_MONOTONIC: [scheduled, ended, busy, decodes, prompt_tokens, kv_tokens,
adapters, running, waiting, skipped, kv_usage, preempted]; a load: [began, ended, 0 = into a slot or 1 = from disk,
rank].
"""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

VERSION = "0.32"
FOLDER = "ADAPTER_RECORD"
FLUSH_S = 0.25


class _Lines:
    """A file of this process; lines are kept back for some time, because a step must not wait for a disk.

    Args:
        every_s: how long at most while lines come.
    """

    def __init__(self, kind: str, every_s: float) -> None:
        self.kind, self.every_s, self.flushed = kind, every_s, 0.0
        self.kept: list[str] = []

    def write(self, values: list[Any]) -> None:
        self.kept.append(json.dumps(values) + "\n")
        now = time.monotonic()
        if now - self.flushed >= self.every_s:
            self.flush()
            self.flushed = now

    def flush(self) -> None:
        path = Path(os.environ[FOLDER]) / f"{self.kind}-{os.getpid()}.jsonl"
        with path.open("a") as file:
            file.writelines(self.kept)
        self.kept.clear()


def install() -> None:
    """Entry point of `vllm.general_plugins`; called in every process of vLLM, possibly several times."""
    if FOLDER not in os.environ:
        return
    import vllm

    if not vllm.__version__.startswith(VERSION + "."):
        (Path(os.environ[FOLDER]) / "refused.json").write_text(json.dumps({"version": vllm.__version__}))
        return
    from vllm.lora.model_manager import LRUCacheLoRAModelManager
    from vllm.lora.worker_manager import WorkerLoRAManager
    from vllm.v1.core.sched.scheduler import Scheduler

    if getattr(Scheduler, "_adapter_record", False):
        return
    Scheduler._adapter_record = True
    _wrap_scheduler(Scheduler)
    _wrap_loads(LRUCacheLoRAModelManager, WorkerLoRAManager)


def _wrap_scheduler(scheduler_class: Any) -> None:
    lines = _Lines("steps", FLUSH_S)
    schedule, update = scheduler_class.schedule, scheduler_class.update_from_output
    open_steps: dict[int, list[Any]] = {}
    state = {"ended": 0.0, "busy": False}

    @functools.wraps(schedule)
    def recorded_schedule(self: Any, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        output = schedule(self, *args, **kwargs)
        if output.total_num_scheduled_tokens:
            open_steps[id(output)] = [began, *_facts(self, output)]
        return output

    @functools.wraps(update)
    def recorded_update(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        result = update(self, scheduler_output, *args, **kwargs)
        facts = open_steps.pop(id(scheduler_output), None)
        now = time.monotonic()
        if facts is not None:
            # While requests are left the next step follows at once: its time counts from the end of this one.
            start = state["ended"] if state["busy"] else facts[0]
            lines.write([round(start, 6), round(now, 6), int(state["busy"]), *facts[1:]])
        state["ended"], state["busy"] = now, self.get_num_unfinished_requests() > 0
        if not state["busy"]:
            lines.flush()
        return result

    scheduler_class.schedule, scheduler_class.update_from_output = recorded_schedule, recorded_update


def _facts(scheduler: Any, output: Any) -> list[Any]:
    """What the step-time law asks of a step."""
    decodes = prompt = kv_tokens = 0
    adapters = set()
    for name, tokens in output.num_scheduled_tokens.items():
        request = scheduler.requests[name]
        computed = request.num_computed_tokens - tokens
        if tokens == 1 and computed >= request.num_prompt_tokens:
            decodes += 1
            kv_tokens += computed
        else:
            prompt += tokens
        if request.lora_request is not None:
            adapters.add(request.lora_request.lora_int_id)
    running, waiting = scheduler.get_request_counts()
    return [
        decodes, prompt, kv_tokens, len(adapters), running, waiting, len(scheduler.deferred_waiting),
        round(scheduler.get_kv_cache_usage(), 5), len(output.preempted_req_ids or ()),
    ]  # fmt: skip


def _wrap_loads(slots: Any, worker: Any) -> None:
    lines = _Lines("loads", 0.0)
    activate, read = slots.activate_adapter, worker._load_adapter

    @functools.wraps(activate)
    def recorded_activate(self: Any, lora_id: int, *args: Any, **kwargs: Any) -> Any:
        if lora_id in self._active_adapters:
            return activate(self, lora_id, *args, **kwargs)
        began = time.monotonic()
        result = activate(self, lora_id, *args, **kwargs)
        lora = self._registered_adapters.get(lora_id)
        lines.write([round(began, 6), round(time.monotonic(), 6), 0, int(getattr(lora, "rank", 0))])
        return result

    @functools.wraps(read)
    def recorded_read(self: Any, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        result = read(self, *args, **kwargs)
        lines.write([round(began, 6), round(time.monotonic(), 6), 1, int(getattr(result, "rank", 0))])
        return result

    slots.activate_adapter, worker._load_adapter = recorded_activate, recorded_read


def __getattr__(name: str) -> Any:
    """`EngineFacts`, the entry point of `vllm.stat_logger_plugins`: its base class is vLLM's, loaded on demand."""
    if name != "EngineFacts":
        raise AttributeError(name)
    from vllm.v1.metrics.loggers import StatLoggerBase

    class EngineFacts(StatLoggerBase):  # type: ignore[misc] # vllm is untyped where it is not installed
        """Writes `engine.json` when the engine is ready."""

        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            self.config = vllm_config

        def record(self, *args: Any, **kwargs: Any) -> None:
            """Steps are recorded where they are scheduled."""

        def log_engine_initialized(self) -> None:
            if FOLDER in os.environ:
                (Path(os.environ[FOLDER]) / "engine.json").write_text(json.dumps(_engine(self.config)))

    return EngineFacts


def _engine(config: Any) -> dict[str, Any]:
    """Version, memory and flags of the engine as it runs."""
    import vllm
    from vllm.platforms import current_platform

    cache, scheduler, lora = config.cache_config, config.scheduler_config, config.lora_config
    return {
        "version": vllm.__version__,
        "device": str(current_platform.get_device_name()),
        "memory_bytes": int(current_platform.get_device_total_memory()),
        "kv_cache_tokens": int(cache.num_gpu_blocks * cache.block_size),
        "block_size": int(cache.block_size),
        "max_model_len": int(config.model_config.max_model_len),
        "max_num_seqs": int(scheduler.max_num_seqs),
        "max_num_batched_tokens": int(scheduler.max_num_batched_tokens),
        "async_scheduling": bool(scheduler.async_scheduling),
        "max_loras": int(lora.max_loras) if lora else 0,
        "max_lora_rank": int(lora.max_lora_rank) if lora else 0,
        "max_cpu_loras": int(lora.max_cpu_loras or 0) if lora else 0,
        "tensor_parallel_size": int(config.parallel_config.tensor_parallel_size),
    }
