"""What promises are up against at best: every request alone on an idle GPU, under every setting.

Bounds on the safe side of what the twin draws and plays (`twin.server.alone`, `twin.traffic.lengths.length_classes`):
lengths are rounded down, adapters count as loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.figures.promises import limit_of
from twin.server.alone import least_itl_s, least_ttft_s
from twin.server.calibration import Calibration
from twin.server.memory import max_model_len
from twin.server.settings import EngineSetting
from twin.traffic.lengths import length_classes
from twin.workload.adapter import Adapter, Slo

Array = NDArray[np.float64]

#: A time must exceed its promise by this share to break it for certain: room for what `twin.server.alone` leaves out.
SLACK = 1e-3
#: Share of requests beyond a "p99".
P99 = 0.01
#: At most this share of any distribution lies so many standard deviations above its mean (Cantelli): 1 / (1 + k^2).
P99_DEVIATIONS = math.sqrt(1 / P99 - 1)


@dataclass(frozen=True, slots=True)
class Asked:
    """Promises to n adapters, and S settings to keep them under.

    Args:
        calibrations: of each GPU type by name.
        slo: promises to adapters without their own.
    """

    adapters: Sequence[Adapter]
    settings: Sequence[EngineSetting]
    calibrations: Mapping[str, Calibration]
    slo: Slo

    def calibration_of(self, setting: EngineSetting) -> Calibration:
        return self.calibrations[setting.gpu_type]

    def limits(self, promise: str) -> Array:
        """In the unit of the promise, (n,); inf = none."""
        return limit_of(promise, self.adapters, self.slo)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of n adapters in 400 classes each, (n, 400): least and most tokens, least cached ones, probability."""

    low: Array
    high: Array
    cached: Array
    weight: Array
    in_slot: NDArray[np.bool_]

    def times_s(self, setting: EngineSetting, calibration: Calibration) -> Array:
        """Least TTFT of each class, (n, 400)."""
        in_slot = self.in_slot[:, None]
        return least_ttft_s(self.low, setting, calibration, cached_tokens=self.cached, in_slot=in_slot)


def prompts(adapters: Sequence[Adapter], longest: int) -> Prompts:
    """The prompts of some adapters, of at most so many tokens."""
    classes = [length_classes(a.prompt_tokens, longest) for a in adapters]
    low, high, weight = (np.stack(part) for part in zip(*classes, strict=True))
    share = np.array([[a.cached_prompt_fraction] for a in adapters])
    in_slot = np.array([a.rank > 0 for a in adapters])
    # The last token is always computed.
    return Prompts(low, high, np.minimum(np.floor(low * share), low - 1), weight, in_slot)


def late_shares(asked: Asked) -> Array:
    """Least share of each adapter's requests that is later than its TTFT promise, (n, S); 0 where it is at most 1 %."""
    limit = asked.limits("ttft_p99_s")
    in_slot = np.array([a.rank > 0 for a in asked.adapters])
    # A bound of the p99 of any distribution with this mean and spread.
    long = [math.ceil(a.prompt_tokens.mean * (1 + P99_DEVIATIONS * a.prompt_tokens.cv)) + 2 for a in asked.adapters]
    longest = [max_model_len(s, asked.calibration_of(s)) - 1 for s in asked.settings]
    fine = [
        least_ttft_s(np.minimum(long, most), setting, asked.calibration_of(setting), in_slot=in_slot) <= limit
        for setting, most in zip(asked.settings, longest, strict=True)
    ]
    found = np.zeros((len(asked.adapters), len(asked.settings)))
    open_ = np.flatnonzero(~np.all(fine, axis=0))
    if not len(open_):
        return found
    by_length = {most: prompts([asked.adapters[n] for n in open_.tolist()], most) for most in set(longest)}
    for s, (setting, most) in enumerate(zip(asked.settings, longest, strict=True)):
        classes = by_length[most]
        late = classes.times_s(setting, asked.calibration_of(setting)) * (1 - SLACK) > limit[open_, None]
        found[open_, s] = (classes.weight * late).sum(axis=1)
    return np.where(found > P99, found, 0.0)


def least_means(promise: str, asked: Asked) -> Array:
    """Least mean of a figure in its unit, (n, S); 0 where nothing is promised."""
    found = np.zeros((len(asked.adapters), len(asked.settings)))
    open_ = np.flatnonzero(np.isfinite(asked.limits(promise)))
    if not len(open_):
        return found
    who = [asked.adapters[n] for n in open_.tolist()]
    by_length: dict[int, tuple[Prompts, Array]] = {}
    for s, setting in enumerate(asked.settings):
        longest = max_model_len(setting, asked.calibration_of(setting))
        if longest not in by_length:
            classes = prompts(who, longest - 1)
            by_length[longest] = (classes, _least_decodes(who, classes, longest))
        classes, decodes = by_length[longest]
        # With the shortest prompt: the KV cache only grows from there.
        itl_s = least_itl_s(classes.low[:, 0], setting, asked.calibration_of(setting), in_slot=classes.in_slot)
        if promise == "e2e_mean_s":
            ttft_s = (classes.weight * classes.times_s(setting, asked.calibration_of(setting))).sum(axis=1)
            found[open_, s] = ttft_s + decodes * itl_s
        else:
            found[open_, s] = np.where([a.output_tokens.mean > 1 for a in who], 1000 * itl_s, 0.0)
    return found


def _least_decodes(adapters: Sequence[Adapter], classes: Prompts, longest: int) -> Array:
    """Least mean of the tokens after the first, (n,).

    An output is cut where prompt and output exceed `longest`: by at most what either exceeds half of it.
    """
    half = longest // 2
    outputs = [length_classes(a.output_tokens, half) for a in adapters]
    output = np.array([(weight * low).sum() for low, _, weight in outputs])
    cut = (classes.weight * np.maximum(classes.high - half, 0.0)).sum(axis=1)
    least: Array = np.maximum(output - 1 - cut, 0.0)
    return least


def ttft_p99_s(adapter: Adapter, settings: Sequence[EngineSetting], calibrations: Mapping[str, Calibration]) -> float:
    """What 99 % of an adapter's prompts take alone at most, under the fastest of these settings, seconds."""
    least = math.inf
    for setting in settings:
        calibration = calibrations[setting.gpu_type]
        _, high, weight = length_classes(adapter.prompt_tokens, max_model_len(setting, calibration) - 1)
        prompt = high[int(np.searchsorted(np.cumsum(weight), 1 - P99))]
        least = min(least, float(least_ttft_s(prompt, setting, calibration, in_slot=adapter.rank > 0)))
    return least
