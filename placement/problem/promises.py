"""Promises that no GPU can keep, said before anything is solved; and what the planning model does not know of them.

A request that is alone on an idle server is served as fast as it can be (`twin.server.alone`). A promise that even such
requests break is broken whatever is placed where: then the constraint would refuse every GPU with that adapter under
that setting, and the setting is not offered to it. An adapter without a setting left makes the workload infeasible.
Everything here is a bound on the safe side: lengths are rounded down, adapters count as loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.errors import InfeasibleError
from twin.figures.health import MAX_ADAPTER_LATE_SHARE, MAX_LATE_SHARE, Constraint
from twin.figures.promises import limit_of
from twin.server.alone import least_itl_s, least_ttft_s
from twin.server.calibration import Calibration
from twin.server.memory import max_model_len
from twin.server.settings import EngineSetting
from twin.traffic.lengths import length_classes
from twin.wording import counted, percent
from twin.workload.adapter import PROMISES, Adapter, Slo

Array = NDArray[np.float64]

#: A time must exceed its promise by this share to break it for certain: room for what `twin.server.alone` leaves out.
SLACK = 1e-3
#: Share of requests of "p99".
P99 = 0.01
#: At most this share of any distribution lies so many standard deviations above its mean (Cantelli): 1 / (1 + k^2).
P99_DEVIATIONS = math.sqrt(1 / P99 - 1)
#: Adapters that a message names.
MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Keepable:
    """Which adapter can keep its promises where.

    Args:
        settings: those that are left, S'.
        allowed: adapter n may run under setting s, (n, S').
        notes: what was left out, and promises that are broken for a share of requests that the constraint tolerates.
    """

    settings: tuple[EngineSetting, ...]
    allowed: NDArray[np.bool_]
    notes: list[str]


def keepable(
    adapters: Sequence[Adapter], settings: Sequence[EngineSetting], calibration: Calibration, constraint: Constraint
) -> Keepable:
    """Leaves out settings under which a request alone breaks what its adapter is promised.

    Raises:
        InfeasibleError: an adapter is left without a setting, or more requests are late than the constraint tolerates;
            names adapters, promise, what is possible, and the smallest promise that is.
    """
    fits = np.array([[a.rank <= s.max_lora_rank for s in settings] for a in adapters])
    if constraint.rule != "stable":
        return Keepable(tuple(settings), fits, [])
    share, slo = float(getattr(constraint, "adapter_late_share", MAX_ADAPTER_LATE_SHARE)), constraint.slo
    late = late_shares(adapters, settings, calibration, slo)
    means = {name: least_means(name, adapters, settings, calibration, slo) for name in PROMISES if name != "ttft_p99_s"}
    allowed = fits & ~(late > share)
    for name, least in means.items():
        allowed &= ~(least * (1 - SLACK) > limit_of(name, adapters, slo)[:, None])
    hopeless = np.flatnonzero(fits.any(axis=1) & ~allowed.any(axis=1))
    if len(hopeless):
        raise _unkeepable(adapters, settings, calibration, slo, hopeless, fits, late, means, share)
    at = np.where(fits, late, np.inf).argmin(axis=1)
    best = np.take_along_axis(late, at[:, None], axis=1)[:, 0]
    rates = np.array([a.mean_rate_req_per_s for a in adapters])
    overall, tolerated = (
        float((rates * best).sum() / rates.sum()),
        float(getattr(constraint, "late_share", MAX_LATE_SHARE)),
    )
    if overall > tolerated:
        culprits = np.argsort(-rates * best)[: max(1, int((best > tolerated).sum()))]
        raise _too_late(adapters, settings, calibration, slo, culprits, overall, tolerated)
    notes = _tolerated(adapters, best, [settings[s] for s in at.tolist()], calibration, share, slo)
    usable = np.flatnonzero(allowed.any(axis=0))
    if len(usable) < len(settings):
        labels = [settings[s].label for s in np.flatnonzero(~allowed.any(axis=0)).tolist()]
        notes.append(
            f"{counted(len(labels), 'setting')} left out ({', '.join(labels[:MOST_NAMED])}"
            f"{', ...' if len(labels) > MOST_NAMED else ''}): no adapter could keep its promise there"
        )
    return Keepable(tuple(settings[s] for s in usable.tolist()), allowed[:, usable], notes)


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
        return least_ttft_s(self.low, setting, calibration, cached_tokens=self.cached, in_slot=self.in_slot[:, None])


def prompts(adapters: Sequence[Adapter], longest: int) -> Prompts:
    """The prompts of some adapters, of at most so many tokens."""
    classes = [length_classes(a.prompt_tokens, longest) for a in adapters]
    low, high, weight = (np.stack(part) for part in zip(*classes, strict=True))
    share = np.array([[a.cached_prompt_fraction] for a in adapters])
    # More is never cached: the last token is always computed.
    return Prompts(
        low, high, np.minimum(np.floor(high * share), low - 1), weight, np.array([a.rank > 0 for a in adapters])
    )


def late_shares(
    adapters: Sequence[Adapter], settings: Sequence[EngineSetting], calibration: Calibration, slo: Slo
) -> Array:
    """Least share of each adapter's requests that is later than its TTFT promise, (n, S); 0 where it is at most 1 %."""
    limit = limit_of("ttft_p99_s", adapters, slo)
    in_slot = np.array([a.rank > 0 for a in adapters])
    # A bound of the p99 of any distribution with this mean and spread.
    long = np.array([a.prompt_tokens.mean * (1 + P99_DEVIATIONS * a.prompt_tokens.cv) + 2 for a in adapters])
    longest = [max_model_len(s, calibration) - 1 for s in settings]
    fine = np.stack(
        [
            least_ttft_s(np.minimum(np.ceil(long), most), s, calibration, in_slot=in_slot) <= limit
            for s, most in zip(settings, longest, strict=True)
        ],
        axis=1,
    )
    found = np.zeros(fine.shape)
    asked = np.flatnonzero(~fine.all(axis=1))
    if not len(asked):
        return found
    by_length = {most: prompts([adapters[n] for n in asked.tolist()], most) for most in set(longest)}
    for s, (setting, most) in enumerate(zip(settings, longest, strict=True)):
        classes = by_length[most]
        late = classes.times_s(setting, calibration) * (1 - SLACK) > limit[asked, None]
        found[asked, s] = (classes.weight * late).sum(axis=1)
    return np.where(found > P99, found, 0.0)


def least_means(
    name: str, adapters: Sequence[Adapter], settings: Sequence[EngineSetting], calibration: Calibration, slo: Slo
) -> Array:
    """Least mean of a figure in its unit, (n, S); 0 where nothing is promised."""
    found = np.zeros((len(adapters), len(settings)))
    asked = np.flatnonzero(np.isfinite(limit_of(name, adapters, slo)))
    if not len(asked):
        return found
    who = [adapters[n] for n in asked.tolist()]
    by_length: dict[int, tuple[Prompts, Array]] = {}
    for s, setting in enumerate(settings):
        longest = max_model_len(setting, calibration)
        if longest not in by_length:
            classes = prompts(who, longest - 1)
            by_length[longest] = (classes, _least_decodes(who, classes, longest))
        classes, decodes = by_length[longest]
        itl_s = least_itl_s(classes.low[:, 0], setting, calibration, in_slot=classes.in_slot)
        if name == "e2e_mean_s":
            ttft_s = (classes.weight * classes.times_s(setting, calibration)).sum(axis=1)
            found[asked, s] = ttft_s + decodes * itl_s
        else:
            found[asked, s] = np.where([a.output_tokens.mean > 1 for a in who], 1000 * itl_s, 0.0)
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


def _unkeepable(
    adapters: Sequence[Adapter],
    settings: Sequence[EngineSetting],
    calibration: Calibration,
    slo: Slo,
    hopeless: NDArray[np.int64],
    fits: NDArray[np.bool_],
    late: Array,
    means: dict[str, Array],
    share: float,
) -> InfeasibleError:
    """Names the adapters without a setting, the promise that stands in the way, and what it would have to be."""
    n = int(hopeless[0])
    who, usable = adapters[n], np.flatnonzero(fits[n])
    reasons, wanted = [], []
    for name, least in means.items():
        limit, best = who.promised(name, getattr(slo, name)), float(least[n, usable].min())
        if best * (1 - SLACK) > limit:
            unit = name.rsplit("_", 1)[1]
            reasons.append(
                f"promised a {PROMISES[name]} of {limit:g} {unit}, but requests alone on an idle GPU have at least "
                f"{best:.3g} {unit}"
            )
            wanted.append((name, _rounded_up(best)))
    if late[n, usable].min() > share:
        fastest = settings[int(usable[np.argmin(late[n, usable])])]
        reasons.append(_late_reason(who, slo, float(late[n, usable].min()), fastest, calibration))
        wanted.append(("ttft_p99_s", _least_ttft_p99(who, [settings[s] for s in usable.tolist()], calibration)))
    if not reasons:
        reasons = ["promised more than one setting can keep at a time"]
    others = f" (and {len(hopeless) - 1} more)" if len(hopeless) > 1 else ""
    names = ", ".join(repr(adapters[i].adapter_id) for i in hopeless[:MOST_NAMED].tolist())
    return InfeasibleError(
        f"adapter {who.adapter_id!r}{others} is {' and '.join(reasons)}",
        where=f"{', '.join(dict.fromkeys(_source(who, name) for name, _ in wanted))}: {names}"
        + (", ..." if len(hopeless) > MOST_NAMED else ""),
        remedy="; ".join(
            f"promise {who.adapter_id!r} a {PROMISES[name]} of at least {least:g} {name.rsplit('_', 1)[1]}"
            for name, least in wanted
        )
        + ("; shorter prompts, or leave the adapters out" if wanted else "leave the adapters out"),
    )


def _late_reason(adapter: Adapter, slo: Slo, share: float, setting: EngineSetting, calibration: Calibration) -> str:
    promised, mean = adapter.promised("ttft_p99_s", slo.ttft_p99_s), adapter.prompt_tokens.mean
    computed = mean * (1 - adapter.cached_prompt_fraction)
    alone_s = float(least_ttft_s(mean, setting, calibration, cached_tokens=mean - computed, in_slot=adapter.rank > 0))
    return (
        f"promised the first token within {promised:g} s for 99 % of requests, but {percent(share)} of its prompts take "
        f"longer alone on an idle GPU (one of {mean:g} tokens, the mean, {alone_s:.3g} s under {setting.label})"
    )


def _too_late(
    adapters: Sequence[Adapter],
    settings: Sequence[EngineSetting],
    calibration: Calibration,
    slo: Slo,
    culprits: NDArray[np.int64],
    overall: float,
    tolerated: float,
) -> InfeasibleError:
    who = adapters[int(culprits[0])]
    usable = [s for s in settings if who.rank <= s.max_lora_rank]
    names = ", ".join(repr(adapters[i].adapter_id) for i in culprits[:MOST_NAMED].tolist())
    return InfeasibleError(
        f"at least {percent(overall)} of all requests break their TTFT promise even alone on an idle GPU, because "
        f"their prompts take longer; the constraint tolerates {percent(tolerated)}",
        where=f"{_source(who, 'ttft_p99_s')}: {names}" + (", ..." if len(culprits) > MOST_NAMED else ""),
        remedy=f"promise {who.adapter_id!r} a TTFT p99 of at least {_least_ttft_p99(who, usable, calibration):g} s; "
        "shorter prompts, or leave the adapters out",
    )


def _source(adapter: Adapter, name: str) -> str:
    """Where the promise stands: with the adapter, or in the constraint."""
    own = adapter.slo is not None and getattr(adapter.slo, name) is not None
    return f"slo_{name}" if own else f"constraint.slo.{name}"


def _least_ttft_p99(adapter: Adapter, settings: Sequence[EngineSetting], calibration: Calibration) -> float:
    """What 99 % of the adapter's prompts take alone under the fastest of these settings, seconds, rounded up."""
    least = math.inf
    for setting in settings:
        longest = max_model_len(setting, calibration) - 1
        _, high, weight = length_classes(adapter.prompt_tokens, longest)
        prompt = high[int(np.searchsorted(np.cumsum(weight), 1 - P99))]
        least = min(least, float(least_ttft_s(prompt, setting, calibration, in_slot=adapter.rank > 0)))
    return _rounded_up(least)


def _rounded_up(value: float) -> float:
    """To two digits."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / scale) * scale:.2g}")


def _tolerated(
    adapters: Sequence[Adapter],
    best: Array,
    fastest: Sequence[EngineSetting],
    calibration: Calibration,
    share: float,
    slo: Slo,
) -> list[str]:
    """Promises that prompts alone break for more than 1 % of requests, but not for more than the rule lets pass."""
    over = np.flatnonzero(best > P99)
    if not len(over):
        return []
    n = int(over[np.argmax(best[over])])
    reason = _late_reason(adapters[n], slo, float(best[n]), fastest[n], calibration)
    return [
        f"the TTFT promise of {counted(len(over), 'adapter')} cannot be kept for 99 % of requests: adapter "
        f"{adapters[n].adapter_id!r} is {reason}; the constraint lets {percent(share)} of an adapter's requests be late"
    ]
