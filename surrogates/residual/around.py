"""Random calibrations around a shipped one: other GPUs and models, as far as the twin's laws can express them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from twin.server.calibration import Calibration

#: Factors on the times of a step, on the KV cache's capacity, and on what adapters cost, drawn log-uniformly.
STEP_FACTORS, KV_FACTORS, LORA_FACTORS = (0.3, 5.0), (0.2, 4.0), (0.3, 3.0)
#: Each coefficient of the step differs from the common factor by up to this one, within the range of factors.
OWN_FACTOR = 1.5
#: Coefficients of the step that adapters cause; the others are the model's.
LORA_COEFFICIENTS = (
    "lora", "adapter", "adapter_rank", "slot", "slot_token", "lora_token", "adapter_token", "adapter_small",
    "adapter_large", "slot_square", "lora_rank",
)  # fmt: skip
MODEL_COEFFICIENTS = (
    "base", "seq", "prompt", "kv", "cliff", "past_graph", "skipped", "queue", "skipped_seq", "plain_large",
)  # fmt: skip


def random_calibration(base: Calibration, seed: int, number: int) -> Calibration:
    """A calibration drawn around `base`; depends on the arguments alone.

    Steps take 0.3-5 times as long, the KV cache holds 0.2-4 times as many tokens, adapters (in steps and in loads)
    cost 0.3-3 times as much. Where the KV cache shrinks the longest request does as well, so that the settings that
    can hold it stay about the same.
    """
    rng = np.random.default_rng([seed, number, *base.name.encode()])

    def factor(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    def coefficients(names: tuple[str, ...], low: float, high: float) -> dict[str, float]:
        common = factor(low, high)
        own = {name: common * factor(1.0 / OWN_FACTOR, OWN_FACTOR) for name in names}
        return {name: getattr(base.step, name) * min(max(x, low), high) for name, x in own.items()}

    step = replace(
        base.step, **coefficients(MODEL_COEFFICIENTS, *STEP_FACTORS), **coefficients(LORA_COEFFICIENTS, *LORA_FACTORS)
    )
    loads = factor(*LORA_FACTORS)
    load = replace(base.load, **{name: loads * getattr(base.load, name) for name in type(base.load).__slots__})
    capacity = factor(*KV_FACTORS)
    model = replace(
        base.model,
        name=f"{base.model.name}-around-{number}",
        kv_bytes_per_token=max(1, round(base.model.kv_bytes_per_token / capacity)),
        max_model_len=max(1, int(base.model.max_model_len * min(1.0, capacity))),
    )
    stamp = replace(base.stamp, model=model.name, source=f"drawn around {base.name}, seed {seed}", points={})
    kv = replace(base.kv, **{name: capacity * getattr(base.kv, name) for name in _KV_TOKENS})
    return replace(
        base, name=f"{base.name}-around-{number}", stamp=stamp, model=model, step=step, load=load, kv=kv, batching=None
    )


#: Fields of the straight line that gives the KV capacity where no model shape is known.
_KV_TOKENS = ("base_tokens", "tokens_per_slot_rank", "tokens_per_slot")


def base_name(name: str) -> str:
    """The shipped calibration that one was drawn around; its own name for a shipped one."""
    return re.sub(r"-around-\d+$", "", name)
