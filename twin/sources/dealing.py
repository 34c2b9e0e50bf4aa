"""How synthetic workloads and traces without adapters hand out popularity and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.config.arguments import number, sequence, whole_number
from twin.errors import InputError


def power_law_shares(count: int, exponent: float) -> NDArray[np.float64]:
    """Shares of `count` adapters, proportional to popularity rank ** -exponent, most popular first; shape (count,)."""
    from twin import portable  # compiled code: only where it is asked for

    weights = portable.powers(np.arange(1, count + 1), -exponent)
    return np.asarray(weights / weights.sum())


def apportion(count: int, weights: Sequence[float]) -> NDArray[np.int64]:
    """Splits `count` things in proportion to `weights` (largest remainders), shape (len(weights),)."""
    exact: NDArray[np.float64] = count * np.asarray(weights, np.float64) / np.sum(weights)
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(whole - exact, kind="stable")
    whole[by_remainder[: count - int(whole.sum())]] += 1
    return whole


def lora_ranks(ranks: Any) -> list[int]:
    """Checks a list of LoRA ranks from a configuration."""
    return [whole_number(r, "workload.ranks", low=1) for r in sequence(ranks, "workload.ranks", example="[8, 16, 32]")]


def deal_ranks(count: int, ranks: Any, weights: Any, rng: np.random.Generator) -> NDArray[np.int64]:
    """LoRA ranks of `count` adapters: the mix of `weights` (None = equal) as exactly as it goes, in random order.

    Args:
        ranks: the LoRA ranks to deal, each >= 1.
        weights: relative frequency of each rank.

    Raises:
        InputError: a rank or weight is wrong, or their numbers differ.
    """
    values = lora_ranks(ranks)
    if weights is None:
        shares = [1.0] * len(values)
    else:
        option = "workload.rank_weights"
        shares = [number(w, option, low=0.0) for w in sequence(weights, option, example="[0.5, 0.3, 0.2]")]
        if len(shares) != len(values) or sum(shares) <= 0:
            raise InputError(
                f"{len(shares)} rank weights {shares} for {len(values)} ranks {values}",
                where=f"option {option}",
                remedy="give one weight a rank, at least one of them above 0",
            )
    return rng.permutation(np.repeat(values, apportion(count, shares)))


def adapter_names(count: int, prefix: str = "adapter") -> list[str]:
    """`adapter-001` ... `adapter-300`: as many digits as needed, so that names sort."""
    digits = max(3, len(str(count)))
    return [f"{prefix}-{i:0{digits}d}" for i in range(1, count + 1)]
