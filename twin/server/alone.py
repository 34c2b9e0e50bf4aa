"""How fast a request is on a server that does nothing else: no schedule makes it faster.

Every term of the step-time law grows with what else is in the step, but two: `adapter_small` ends at `SMALL_TOKENS`
tokens, and `plain_large` where an adapter joins. So a step takes at least what it takes alone, or, where that is less,
what it would take filled up to `SMALL_TOKENS` with the cheapest tokens. Adapters count as loaded. A prompt alone needs
the fewest steps, `ceil(computed tokens / max_num_batched_tokens)`; other requests can only take tokens of its chunks
away. (That a smaller chunk reads less KV cache is outweighed by the tokens that took its place.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.server.calibration import Calibration
from twin.server.laws import StepTimeLaw
from twin.server.settings import EngineSetting

Array = NDArray[np.float64]

#: Tokens from which on a step has no `adapter_small` (`twin.server.laws.StepTimeLaw`).
SMALL_TOKENS = 128
#: Tokens beyond which a step without adapters has `plain_large`.
PLAIN_TOKENS = 256


def least_step_ms(
    setting: EngineSetting,
    calibration: Calibration,
    *,
    decodes: ArrayLike = 0.0,
    prompt: ArrayLike = 0.0,
    kv_tokens: ArrayLike = 0.0,
    in_slot: ArrayLike = True,
) -> Array:
    """Least milliseconds of a step with these tokens of one request in it; arguments broadcast.

    Args:
        decodes, prompt: its tokens in the step.
        kv_tokens: its tokens in the KV cache; of a prompt, with those that the step computes.
        in_slot: it has an adapter, and does not go to the base model.
    """
    law = calibration.step
    decodes, prompt, kv = (np.asarray(v, dtype=np.float64) for v in (decodes, prompt, kv_tokens))
    lora = np.asarray(in_slot, dtype=np.float64)
    tokens = decodes + prompt
    own = law.base + law.seq * decodes + law.prompt * prompt + law.kv * kv / 1000
    large = np.where(tokens > law.graph_tokens, law.cliff + law.past_graph * (tokens - law.graph_tokens), 0.0)
    rank16, slots = setting.max_lora_rank / 16, setting.max_loras
    per_token = _lora_token_ms(law, slots)
    fixed = law.lora + law.adapter + (law.adapter_rank + law.lora_rank) * rank16
    adapter = fixed + slots * (law.slot + law.slot_square * slots / 1000) + per_token * tokens
    adapter = adapter + np.where(tokens > law.graph_tokens, law.adapter_large, 0.0)
    filled = np.maximum(0.0, SMALL_TOKENS - tokens) * (min(law.seq, law.prompt) + per_token)
    adapter = adapter + np.where(tokens < SMALL_TOKENS, np.minimum(law.adapter_small, filled), 0.0)
    # Without adapters a large step costs extra, unless one with an adapter beside it is cheaper.
    plain = np.where(tokens > PLAIN_TOKENS, np.minimum(law.plain_large, adapter), 0.0)
    return np.asarray(own + large + lora * adapter + (1.0 - lora) * plain)


def _lora_token_ms(law: StepTimeLaw, slots: int) -> float:
    """What a token costs more in a step with one adapter."""
    return (slots * law.slot_token + law.adapter_token) / 1000 + law.lora_token


def least_ttft_s(
    prompt_tokens: ArrayLike,
    setting: EngineSetting,
    calibration: Calibration,
    *,
    cached_tokens: ArrayLike = 0.0,
    in_slot: ArrayLike = True,
) -> Array:
    """Least seconds to the first token of prompts, in chunks of `max_num_batched_tokens`; arguments broadcast.

    Args:
        prompt_tokens: whole prompts, >= 1.
        cached_tokens: of these found in the prefix cache, below them.
    """
    chunk = float(setting.max_num_batched_tokens)
    prompt, cached = (np.asarray(v, dtype=np.float64) for v in (prompt_tokens, cached_tokens))
    whole = np.ceil((prompt - cached) / chunk) - 1  # steps with a full chunk, before the last one
    # Their KV tokens are cached + chunk, cached + 2 chunks, ...: in the mean cached + chunk (whole + 1) / 2.
    full = least_step_ms(
        setting, calibration, prompt=chunk, kv_tokens=cached + chunk * (whole + 1) / 2, in_slot=in_slot
    )
    last = least_step_ms(
        setting, calibration, prompt=prompt - cached - whole * chunk, kv_tokens=prompt, in_slot=in_slot
    )
    return np.asarray((whole * full + last) / 1000)


def least_itl_s(
    context_tokens: ArrayLike, setting: EngineSetting, calibration: Calibration, *, in_slot: ArrayLike = True
) -> Array:
    """Least seconds from one token to the next, with so many tokens in the KV cache."""
    step = least_step_ms(setting, calibration, decodes=1.0, kv_tokens=context_tokens, in_slot=in_slot)
    return np.asarray(step / 1000)
