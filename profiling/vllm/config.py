# ruff: noqa: E402 - vllm reads its environment when it is imported
"""vLLM's configuration of an engine without a model, for its scheduler and adapter caches. Imports vLLM 0.32."""

from __future__ import annotations

import copy
import functools
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before vllm is imported: nothing is fetched, nothing is printed.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
logging.getLogger("vllm").setLevel(logging.ERROR)

from vllm.config import CacheConfig, LoRAConfig, ModelConfig, SchedulerConfig, VllmConfig

from profiling.vllm.scenario import Scenario

MAX_MODEL_LEN = 4096


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Behaviour of vLLM that the twin leaves out; the defaults switch it off.

    Args:
        prefix_caching: blocks are kept and found again; prompts share no prefix, so that only a preempted request
            finds its own.
        stop_by_eos: requests end by an end-of-sequence token instead of `max_tokens`.
        set_order: adapters are walked in the order of a Python set, as in the model runner, not in the scenario's.
        watermark: share of the blocks that admission leaves free.
        long_prefill_token_threshold: most prompt tokens of a request in a step; 0 = no limit.
        runner_v2: tell the scheduler that model runner 2 executes its batches.
    """

    prefix_caching: bool = False
    stop_by_eos: bool = False
    set_order: bool = False
    watermark: float = 0.0
    long_prefill_token_threshold: int = 0
    runner_v2: bool = False


DEFAULT_OPTIONS = VllmOptions()


@functools.cache
def base_config() -> VllmConfig:
    """A real configuration of a tiny Llama, of which every scenario changes the parts that schedule."""
    model = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 1, "vocab_size": 128,
        "max_position_embeddings": MAX_MODEL_LEN, "rms_norm_eps": 1e-5, "torch_dtype": "float32",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(model), encoding="utf-8")
        return VllmConfig(
            model_config=ModelConfig(
                model=folder, skip_tokenizer_init=True, max_model_len=MAX_MODEL_LEN, dtype="float32"
            ),
            cache_config=CacheConfig(block_size=32, enable_prefix_caching=False),
            scheduler_config=_scheduler_config(1, 1),
            lora_config=LoRAConfig(max_loras=1, max_lora_rank=16, max_cpu_loras=1),
        )


def _scheduler_config(max_num_seqs: int, token_budget: int, **options: Any) -> SchedulerConfig:
    return SchedulerConfig(
        max_num_seqs=max_num_seqs, max_num_batched_tokens=token_budget, max_model_len=MAX_MODEL_LEN,
        is_encoder_decoder=False, enable_chunked_prefill=True, **options,
    )  # fmt: skip


def engine_config(scenario: Scenario, options: VllmOptions) -> VllmConfig:
    """The configuration that a scenario's flags and the options make."""
    config = copy.copy(base_config())
    config.scheduler_config = _scheduler_config(
        scenario.max_num_seqs, scenario.token_budget, async_scheduling=scenario.async_scheduling,
        scheduler_reserve_full_isl=scenario.reserve_full_sequence, watermark=options.watermark,
        long_prefill_token_threshold=options.long_prefill_token_threshold,
    )  # fmt: skip
    config.cache_config = copy.copy(config.cache_config)
    config.cache_config.block_size = scenario.block
    config.cache_config.enable_prefix_caching = options.prefix_caching
    config.cache_config.num_gpu_blocks = scenario.blocks + 1  # one is the null block
    config.lora_config = LoRAConfig(
        max_loras=scenario.max_loras, max_lora_rank=16, max_cpu_loras=scenario.max_cpu_loras
    )
    return config
