"""Columns of the tests, and numbers of a state by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from twin.server.calibration import Calibration, load_calibration
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths

LLAMA: Calibration = load_calibration("llama-3.1-8b-h100-64gb")
OPT: Calibration = load_calibration("opt-1.3b-h100-64gb")
SETTING = EngineSetting("h100-64gb", max_loras=64, max_lora_rank=32, max_model_len=16_384)


def adapter(name: str, rate: float = 0.1, **fields: Any) -> Adapter:
    given = {"rank": 16, "prompt_tokens": Lengths(223.0, 1.1), "output_tokens": Lengths(197.0, 1.06)} | fields
    return Adapter(name, rate_req_per_s=rate, **given)


def mix(count: int, seed: int = 0, *, rate: float = 0.1, cv: float | None = None) -> list[Adapter]:
    """Adapters of different rates, lengths, ranks and burstiness."""
    rng = np.random.default_rng(seed)
    return [
        adapter(
            f"a{k}", float(rate * np.exp(rng.normal(0, 1))), rank=int(rng.choice([8, 16, 32])),
            prompt_tokens=Lengths(float(rng.uniform(30, 900)), float(rng.uniform(0, 1.4))),
            output_tokens=Lengths(float(rng.uniform(20, 500)), float(rng.uniform(0, 1.4))),
            arrival_cv=cv or float(rng.choice([0.4, 1.0, 2.5])), cached_prompt_fraction=float(rng.uniform(0, 0.5)),
        )
        for k in range(count)
    ]  # fmt: skip


def scaled(adapters: Sequence[Adapter], factor: float) -> tuple[Adapter, ...]:
    return tuple(a.scaled(factor) for a in adapters)


def with_flags(**flags: Any) -> EngineSetting:
    return replace(SETTING, **flags)
