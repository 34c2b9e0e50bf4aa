"""The next setting worth trying on a server that something limits: proposed by rule, simulated, and only then told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from twin.errors import InputError
from twin.figures.bottleneck import Bottleneck
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.memory import memory_error
from twin.server.settings import DEFAULT_MAX_LORAS, VLLM_RANKS, EngineSetting
from twin.wording import percent

#: A setting helps from this much more served, or less late, on, as shares of the requests.
WORTH = 0.005
_LESS = "fewer requests (rate_scale, adapters.take), shorter ones, or more GPUs"


def alternatives(facts: Bottleneck, column: Column, calibration: Calibration) -> list[EngineSetting]:
    """Settings that start and may help, by what limits the server; none where nothing does."""
    now = column.setting
    found = []
    for changed in _changes(facts, column):
        slots = changed.get("max_loras", now.max_loras)
        if now.max_cpu_loras is not None and slots > now.max_cpu_loras:
            changed = {**changed, "max_cpu_loras": slots}
        try:
            other = replace(now, **changed)
        except InputError:  # e.g. more requests than tokens in a step
            continue
        if other != now and other not in found and memory_error(other, calibration) is None:
            found.append(other)
    return found


def _changes(facts: Bottleneck, column: Column) -> Iterator[Mapping[str, Any]]:
    now = column.setting
    if facts.limit == "none":
        return
    if facts.limit == "adapter_slots":
        more = [slots for slots in DEFAULT_MAX_LORAS if slots > now.max_loras] or [2 * now.max_loras]
        yield from ({"max_loras": slots} for slots in more[:2])
    if facts.limit == "kv_cache":
        ranks = [a.rank for a in column.adapters if a.rank > 0]
        needed = next((r for r in VLLM_RANKS if r >= max(ranks, default=1)), now.max_lora_rank)
        if needed < now.max_lora_rank:
            yield {"max_lora_rank": needed}
        fewer = [slots for slots in DEFAULT_MAX_LORAS if facts.adapters_peak <= slots < now.max_loras]
        if fewer:
            yield {"max_loras": fewer[0]}
    if facts.limit == "max_num_seqs":
        yield from ({"max_num_seqs": min(k * now.max_num_seqs, now.max_num_batched_tokens)} for k in (2, 4))
    if facts.limit == "token_budget":
        yield {"max_num_batched_tokens": 2 * now.max_num_batched_tokens}
    # Fewer at a time: less memory for each, and no thrashing of slots or of the KV cache.
    running = min(now.max_num_seqs, max(2, int(facts.running_peak)))
    yield {"max_num_seqs": running // 2}


def advice(
    facts: Bottleneck,
    column: Column,
    calibration: Calibration,
    now: Mapping[str, float],
    figures: Callable[[Column], Mapping[str, float]],
) -> str:
    """The best of the alternatives, with what it serves in the same window; empty where nothing limits the server.

    Args:
        now: figures of the present setting in one window, as `figures` gives them for another.
    """
    if facts.limit == "none":
        return ""
    tried = alternatives(facts, column, calibration)
    rows = [figures(replace(column, setting=setting)) for setting in tried]
    better = [k for k, row in enumerate(rows) if _gain(row, now) >= WORTH]
    if not better:
        which = "; ".join(_told(setting, column.setting) for setting in tried)
        return _LESS + (f": no setting that was tried helps ({which})" if which else "")
    best = max(better, key=lambda k: _gain(rows[k], now))
    row = rows[best]
    return (
        f"{_told(tried[best], column.setting)}: in the same window {percent(row['served_fraction'])} of the tokens are "
        f"served instead of {percent(now['served_fraction'])}, and {percent(row['late_fraction'])} of the requests are "
        f"late instead of {percent(now['late_fraction'])}"
    )


def _gain(row: Mapping[str, float], now: Mapping[str, float]) -> float:
    served = row["served_fraction"] - now["served_fraction"]
    return served if abs(served) >= WORTH else now["late_fraction"] - row["late_fraction"]


def _told(other: EngineSetting, now: EngineSetting) -> str:
    changed = [f.name for f in fields(other) if getattr(other, f.name) != getattr(now, f.name)]
    return " ".join(f"engine.{name}={getattr(other, name)}" for name in changed)
