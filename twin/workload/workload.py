"""A workload: all adapters of one base model; and how tenants of one adapter become one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from twin.errors import InputError
from twin.workload.adapter import PROMISES, Adapter, Lengths, Slo
from twin.workload.reading import Reading
from twin.workload.recording import Recording


@dataclass(frozen=True, slots=True)
class Workload:
    """All adapters of one base model with unique ids, and notes on how they were obtained.

    `recording` holds the very requests that they were estimated from, where there are any (`twin.workload.recording`).
    """

    adapters: tuple[Adapter, ...]
    name: str = "workload"
    notes: tuple[str, ...] = ()
    recording: Recording | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.adapters:
            raise InputError(f"workload {self.name!r} has no adapters", remedy="give at least one adapter with traffic")
        twice = [i for i, n in Counter(a.adapter_id for a in self.adapters).items() if n > 1]
        if twice:
            raise InputError(
                f"adapter id {twice[0]!r} appears more than once in workload {self.name!r}",
                remedy="one row an adapter: add up the rates of its tenants (twin.workload.workload.merge_tenants)",
            )

    @property
    def reading(self) -> Reading | None:
        """What was done to recorded requests on the way; None where there were none."""
        return None

    @property
    def total_rate_req_per_s(self) -> float:
        return math.fsum(a.rate_req_per_s for a in self.adapters)

    @property
    def total_output_tokens_per_s(self) -> float:
        return math.fsum(a.rate_req_per_s * a.output_tokens.mean for a in self.adapters)

    def scaled(self, factor: float) -> Workload:
        return replace(self, adapters=tuple(a.scaled(factor) for a in self.adapters))


@dataclass(frozen=True, slots=True)
class ReadWorkload(Workload):
    """A workload from a log, a trace or counters, with the account of how it was read."""

    reading: Reading | None = field(default=None, repr=False, compare=False)


def with_reading(workload: Workload, reading: Reading) -> ReadWorkload:
    """The same with another account: of the load that is sent."""
    return ReadWorkload(workload.adapters, workload.name, workload.notes, workload.recording, reading)


def _mixture(parts: list[tuple[float, Lengths]]) -> Lengths:
    first = parts[0][1]
    weight = math.fsum(w for w, _ in parts)
    mean = math.fsum(w * p.mean for w, p in parts) / weight
    second = math.fsum(w * p.second_moment for w, p in parts) / weight
    cv = math.sqrt(max(0.0, second / (mean * mean) - 1))
    if first.shape == "constant" and cv > 1e-9:
        return Lengths(mean, cv)  # different constants: a spread, and no shape of its own
    return Lengths(mean, 0.0 if first.shape == "constant" else cv, first.shape, first.quantiles)


def _strictest(slos: list[Slo | None]) -> Slo | None:
    """The promises that keep all of these; None stands for the default, whatever the constraint will say it is."""
    strictest: dict[str, float | None] = {}
    binding = []
    for promise in PROMISES:
        own = [None if slo is None else getattr(slo, promise) for slo in slos]
        given = [limit for limit in own if limit is not None]
        strictest[promise] = min(given, default=None)
        if len(given) < len(own) or any(slo is not None and slo.binding(promise) for slo in slos):
            binding.append(promise)
    if all(limit is None for limit in strictest.values()):
        return None
    return Slo(**strictest, default_binds=tuple(binding))


def merge_tenants(adapters: Iterable[Adapter]) -> tuple[Adapter, ...]:
    """Joins rows with the same id: rates add, lengths mix, the strictest SLO holds.

    A tenant without an SLO is promised the constraint's default, which then binds the whole adapter
    (`Slo.default_binds`).
    """
    groups: dict[str, list[Adapter]] = {}
    for adapter in adapters:
        groups.setdefault(adapter.adapter_id, []).append(adapter)
    merged = []
    for adapter_id, rows in groups.items():
        first = rows[0]
        if any(r.rank != first.rank for r in rows):
            raise InputError(
                f"adapter {adapter_id!r} appears with ranks {sorted({r.rank for r in rows})}",
                remedy="one adapter has one rank; give different adapters different ids",
            )
        for name, values in (
            ("lengths of different shape", {(r.prompt_tokens.shape, r.output_tokens.shape) for r in rows}),
            ("different recorded lengths", {(r.prompt_tokens.quantiles, r.output_tokens.quantiles) for r in rows}),
            ("rates that change differently", {r.rate_process for r in rows}),
        ):
            if len(values) > 1:
                raise InputError(
                    f"tenants of adapter {adapter_id!r} have {name}",
                    remedy="give them the same, or different adapters different ids",
                )
        rate = math.fsum(r.rate_req_per_s for r in rows)

        def mean_of(name: str, rows: list[Adapter] = rows, rate: float = rate) -> float:
            return math.fsum(r.rate_req_per_s * getattr(r, name) for r in rows) / rate

        merged.append(
            replace(
                first,
                rate_req_per_s=rate,
                prompt_tokens=_mixture([(r.rate_req_per_s, r.prompt_tokens) for r in rows]),
                output_tokens=_mixture([(r.rate_req_per_s, r.output_tokens) for r in rows]),
                arrival_cv=math.sqrt(math.fsum(r.rate_req_per_s * r.arrival_cv * r.arrival_cv for r in rows) / rate),
                cached_prompt_fraction=mean_of("cached_prompt_fraction"),
                length_correlation=mean_of("length_correlation"),
                slo=_strictest([r.slo for r in rows]),
            )
        )
    return tuple(merged)
