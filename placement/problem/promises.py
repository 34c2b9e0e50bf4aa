"""Promises that no GPU can keep, said before anything is solved.

A request that is alone on an idle server is served as fast as it can be. A promise that even such requests break is
broken whatever is placed where: then the constraint would refuse every GPU with that adapter under that setting, and
the setting is not offered to it. An adapter without a setting left makes the workload infeasible, and so do prompts
that alone make more requests late than the constraint tolerates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.problem.alone import P99, SLACK, Array, Asked, late_shares, least_means, ttft_p99_s
from twin.errors import InfeasibleError
from twin.figures.adapter_sums import MEANS
from twin.figures.health import MAX_ADAPTER_LATE_SHARE, MAX_LATE_SHARE, Constraint
from twin.server.alone import least_ttft_s
from twin.server.calibration import Calibration
from twin.server.settings import EngineSetting, labels_of
from twin.wording import counted, percent
from twin.workload.adapter import PROMISES, Adapter

#: Adapters and settings that a message names.
MOST_NAMED = 4
#: What else than a weaker promise helps.
_HELPS = {
    "ttft_p99_s": "shorten its prompts",
    "e2e_mean_s": "shorten its prompts and answers",
    "itl_mean_ms": "use a faster GPU or a smaller model",
    "tpot_mean_ms": "use a faster GPU or a smaller model",
}


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
    adapters: Sequence[Adapter],
    settings: Sequence[EngineSetting],
    calibrations: Mapping[str, Calibration],
    constraint: Constraint,
) -> Keepable:
    """Leaves out settings under which requests alone break what their adapter is promised.

    Args:
        calibrations: of each GPU type by name.

    Raises:
        InfeasibleError: an adapter is left without a setting, or more requests are late than the constraint tolerates;
            names adapters, promise, what is possible, and the smallest promise that is.
    """
    fits = np.array([[a.rank <= s.max_lora_rank for s in settings] for a in adapters])
    if constraint.rule != "stable":
        return Keepable(tuple(settings), fits, [])
    asked = Asked(adapters, settings, calibrations, constraint.slo)
    share = float(getattr(constraint, "adapter_late_share", MAX_ADAPTER_LATE_SHARE))
    late, means = late_shares(asked), {name: least_means(name, asked) for name in MEANS}
    allowed = fits & ~(late > share)
    for name, least in means.items():
        allowed &= ~(least * (1 - SLACK) > asked.limits(name)[:, None])
    hopeless = np.flatnonzero(fits.any(axis=1) & ~allowed.any(axis=1))
    if len(hopeless):
        raise _unkeepable(asked, hopeless, fits, late, means, share)
    fastest = np.where(fits, late, np.inf).argmin(axis=1)
    best = np.take_along_axis(late, fastest[:, None], axis=1)[:, 0]
    _check_total(asked, best, float(getattr(constraint, "late_share", MAX_LATE_SHARE)))
    notes = []
    if (best > P99).any():
        n = int(np.argmax(best))
        notes.append(
            f"the TTFT promise of {counted(int((best > P99).sum()), 'adapter')} cannot be kept for 99 % of requests: "
            f"adapter {adapters[n].adapter_id!r} is {_late_reason(asked, n, int(fastest[n]), float(best[n]))}; the "
            f"constraint lets {percent(share)} of an adapter's requests be late"
        )
    usable = np.flatnonzero(allowed.any(axis=0)).tolist()
    # Those whose rank is too low for every adapter are left out as well; that is no matter of promises.
    too_slow = np.flatnonzero(fits.any(axis=0) & ~allowed.any(axis=0)).tolist()
    if too_slow:
        labels = labels_of([settings[s] for s in too_slow])
        notes.append(f"{counted(len(labels), 'setting')} left out, no promise could be kept there: {_listed(labels)}")
    return Keepable(tuple(settings[s] for s in usable), allowed[:, usable], notes)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


def _check_total(asked: Asked, best: Array, tolerated: float) -> None:
    """Raises where prompts alone make more of all requests late than the constraint tolerates on any GPU."""
    requests = np.array([a.mean_rate_req_per_s for a in asked.adapters])
    total = float((requests * best).sum() / requests.sum())
    if total <= tolerated:
        return
    culprits = [n for n in np.argsort(-requests * best, kind="stable").tolist() if best[n] > tolerated]
    who = asked.adapters[culprits[0]]
    usable = [s for s in asked.settings if who.rank <= s.max_lora_rank]
    raise InfeasibleError(
        f"at least {percent(total)} of all requests break their TTFT promise even alone on an idle GPU, because their "
        f"prompts take longer; the constraint tolerates {percent(tolerated)}",
        where=_where(asked, culprits, ["ttft_p99_s"]),
        remedy=f"{_promise_at_least(who, 'ttft_p99_s', ttft_p99_s(who, usable, asked.calibrations))}; "
        "shorten its prompts, or leave the adapters out",
    )


def _unkeepable(
    asked: Asked,
    hopeless: NDArray[np.int64],
    fits: NDArray[np.bool_],
    late: Array,
    means: dict[str, Array],
    share: float,
) -> InfeasibleError:
    """Names the adapters without a setting, the promise that stands in the way, and what it would have to be."""
    n = int(hopeless[0])
    who, usable = asked.adapters[n], np.flatnonzero(fits[n]).tolist()
    reasons, least = [], {}
    for name, found in means.items():
        limit, best = float(asked.limits(name)[n]), float(found[n, usable].min())
        if best * (1 - SLACK) > limit:
            unit, least[name] = _unit(name), best
            reasons.append(
                f"promised a {PROMISES[name]} of {limit:g} {unit}, but requests alone on an idle GPU have at least "
                f"{best:.3g} {unit}"
            )
    fastest = usable[int(np.argmin(late[n, usable]))]
    if late[n, fastest] > share:
        reasons.append(_late_reason(asked, n, fastest, float(late[n, fastest])))
        least["ttft_p99_s"] = ttft_p99_s(who, [asked.settings[s] for s in usable], asked.calibrations)
    others = f" (and {len(hopeless) - 1} more)" if len(hopeless) > 1 else ""
    changes = [_promise_at_least(who, name, value) for name, value in least.items()]
    if not reasons:  # each promise can be kept, but under different settings
        reasons, changes = ["promised more than any one setting can keep"], ["promise it less"]
    helps = dict.fromkeys(_HELPS[name] for name in least)
    return InfeasibleError(
        f"adapter {who.adapter_id!r}{others} is {' and '.join(reasons)}",
        where=_where(asked, hopeless.tolist(), list(least)),
        remedy="; ".join([*changes, *helps]) + ", or leave the adapters out",
    )


def _promise_at_least(adapter: Adapter, promise: str, value: float) -> str:
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    rounded_up = float(f"{math.ceil(value / scale) * scale:.2g}")
    return f"promise {adapter.adapter_id!r} a {PROMISES[promise]} of at least {rounded_up:g} {_unit(promise)}"


def _unit(promise: str) -> str:
    return promise.rsplit("_", 1)[1]


def _late_reason(asked: Asked, n: int, setting: int, share: float) -> str:
    adapter, under = asked.adapters[n], asked.settings[setting]
    mean = adapter.prompt_tokens.mean
    cached, in_slot = mean * adapter.cached_prompt_fraction, adapter.rank > 0
    alone_s = float(least_ttft_s(mean, under, asked.calibration_of(under), cached_tokens=cached, in_slot=in_slot))
    return (
        f"promised the first token within {asked.limits('ttft_p99_s')[n]:g} s for 99 % of requests, but "
        f"{percent(share)} of its prompts take longer alone on an idle GPU (one of {mean:g} tokens, the mean, "
        f"{alone_s:.3g} s under {under.label})"
    )


def _where(asked: Asked, culprits: Sequence[int], promises: Sequence[str]) -> str:
    """Where the promises stand, with the adapter or in the constraint, and whose they are."""
    slo = asked.adapters[culprits[0]].slo
    own = [slo is not None and getattr(slo, name) is not None for name in promises]
    places = [("slo_" if here else "constraint.slo.") + name for here, name in zip(own, promises, strict=True)]
    return f"{', '.join(places) or 'slo'}: {_listed([repr(asked.adapters[n].adapter_id) for n in culprits])}"
