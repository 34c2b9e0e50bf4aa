"""Traffic that no mix of the training data resembles: which quantity is outside, and what would bring it inside.

A trained range is one of ratios of a workload's summed features (`surrogates.training.assemble`). Each ratio is a mean
over requests or output tokens, so a workload is inside if each of its adapters is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surrogates.model.features import INDEX, adapter_features
from twin.wording import counted, number, rounded_down
from twin.workload.adapter import Adapter


@dataclass(frozen=True, slots=True)
class Outside:
    """One quantity of a workload outside the trained range.

    Args:
        problem: its value, the range, and the adapter that takes it there.
        change: what would bring it inside, after "bring"; empty where more of something would be needed.
    """

    problem: str
    change: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """A ratio of features in the words of a workload file.

    Args:
        name: what the ratio is called.
        rule: what each adapter's numbers must satisfy, before "at most".
        of: the ratio of one adapter alone.
        root: shown as a square root.
    """

    name: str
    rule: str
    of: Callable[[Adapter], float]
    root: bool = False

    def shown(self, value: float) -> float:
        return math.sqrt(value) if self.root else value


def _correlated(a: Adapter) -> float:
    """E[prompt * output] / E[output], tokens."""
    return a.in_out_moment / a.output_tokens.mean


def _weighted(a: Adapter) -> float:
    """E[output^2] / E[output], tokens."""
    return a.output_tokens.second_moment / a.output_tokens.mean


#: By the numerator of the ratio.
QUANTITIES: Mapping[tuple[str, ...], Quantity] = {
    ("computed_prompt_rate", "cached_prompt_rate"): Quantity(
        "the mean prompt, in tokens,", "prompt_tokens", lambda a: a.prompt_tokens.mean
    ),
    ("output_rate",): Quantity("the mean output, in tokens,", "output_tokens", lambda a: a.output_tokens.mean),
    ("output_square_rate",): Quantity(
        "the mean output that a token belongs to, in tokens,", "output_tokens x (1 + output_cv^2)", _weighted
    ),
    ("kv_rate",): Quantity(
        "the mean prompt per output token, in tokens,",
        "prompt_tokens x (1 + length_correlation x prompt_cv x output_cv)",
        _correlated,
    ),
    ("burst_rate",): Quantity(
        "arrival_cv (root mean square)", "arrival_cv", lambda a: a.arrival_cv * a.arrival_cv, root=True
    ),
}


def outside_ranges(adapters: Sequence[Adapter], ratios: Sequence[Mapping[str, Any]]) -> list[Outside]:
    """Names the ratios of a workload that no mix of the training data had.

    GPUs share the workload, so one of them has at least the ratio of the whole.

    Args:
        ratios: `numerator` (features that are added), `denominator`, `low` and `high` (None = no limit).
    """
    phi = adapter_features(adapters)
    found = []
    for ratio in ratios:
        quantity = QUANTITIES[tuple(ratio["numerator"])]
        top = phi[:, [INDEX[name] for name in ratio["numerator"]]].sum(axis=1)
        below = phi[:, INDEX[ratio["denominator"]]]
        value, low, high = float(top.sum() / below.sum()), ratio["low"] or 0.0, ratio["high"]
        if low <= value <= high:
            continue
        too_high = value > high
        excess = top - high * below if too_high else low * below - top
        worst = adapters[int(np.argmax(excess))]
        mean, least, most, alone = (number(quantity.shown(x)) for x in (value, low, high, quantity.of(worst)))
        found.append(
            Outside(
                f"{quantity.name} is {mean} over all requests, trained range {least} to {most}; adapter "
                f"{worst.adapter_id!r} has {alone}",
                _change(quantity, int((excess > 0).sum()), high) if too_high else "",
            )
        )
    return found


def _change(quantity: Quantity, adapters: int, high: float) -> str:
    """Enough whatever the rates are: a mean lies between the values that it is taken over."""
    return f"{quantity.rule} of {counted(adapters, 'adapter')} to at most {rounded_down(quantity.shown(high)):g}"
