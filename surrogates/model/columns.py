"""`Columns`: what a planning model says of columns, by the names that objective terms read.

A planning model computes it by `ColumnModel`: from scratch, and for columns that differ from one by an exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from surrogates.model.planning import OptionModel
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """P columns; arrays of shape (P,). NaN where the model does not say.

    Args:
        setting: of each column.
        rate_req_per_s, output_tokens_per_s: what arrives.
        adapters: those that need a slot (rank > 0).
        requests_in_system: waiting and running; by Little's law rate x mean E2E latency.
        decoding: requests between first and last token; output tokens per second x mean ITL.
        pace_s: mean time of a step, which is the mean ITL, s.
        ttft_mean_s, ttft_p99_s: time to first token.
        kv_share: mean share of the KV cache in use.
        violation: how far the column is from what is promised healthy; <= 0 = healthy, with the model's margin.
    """

    setting: tuple[EngineSetting, ...]
    rate_req_per_s: Array
    output_tokens_per_s: Array
    adapters: Array
    requests_in_system: Array
    decoding: Array
    pace_s: Array
    ttft_mean_s: Array
    ttft_p99_s: Array
    kv_share: Array
    violation: Array

    def __len__(self) -> int:
        return len(self.setting)


class ColumnModel(Protocol):
    """The planning model itself, for the items of one problem: what placements are judged by."""

    def of(self, groups: Sequence[Sequence[int]], options: Sequence[int]) -> Columns:
        """P columns: the items of each, none of them empty, and the index of its setting."""
        ...

    def exchanged(self, members: Sequence[int], option: int, leave: Indices, enter: Indices) -> Columns:
        """P columns that hold `members` without item `leave` and with item `enter`, -1 = none, (P,).

        Where nothing is left the figures mean nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class LinearColumns:
    """Facets and convex loads as the planning model: what is computed from features alone.

    Args:
        items: N adapters, or shares of them. phi: their features, (N, F). options: O settings.
    """

    items: Sequence[Adapter]
    phi: Array
    options: tuple[OptionModel, ...]
    _linear: Array = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        rows = [(a.rate_req_per_s, a.rate_req_per_s * a.output_tokens.mean, float(a.rank > 0)) for a in self.items]
        object.__setattr__(self, "_linear", np.hstack([np.array(rows).reshape(-1, 3), self.phi]))

    def of(self, groups: Sequence[Sequence[int]], options: Sequence[int]) -> Columns:
        sums = np.array([self._linear[list(g)].sum(axis=0) for g in groups]).reshape(len(groups), -1)
        return self._of_sums(sums, np.asarray(options, np.int64))

    def exchanged(self, members: Sequence[int], option: int, leave: Indices, enter: Indices) -> Columns:
        none = np.vstack([self._linear, np.zeros(self._linear.shape[1])])
        sums = self._linear[list(members)].sum(axis=0) - none[leave] + none[enter]
        return self._of_sums(sums, np.full(len(leave), option))

    def _of_sums(self, sums: Array, options: Indices) -> Columns:
        rate, tokens, adapters, phi = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3:]
        in_system, decoding, violation = np.empty(len(sums)), np.empty(len(sums)), np.empty(len(sums))
        for o in np.unique(options).tolist():
            own, model = options == o, self.options[o]
            in_system[own], decoding[own] = model.requests_in_system(phi[own]), model.requests_decoding(phi[own])
            violation[own] = np.maximum(model.violation(phi[own]), adapters[own] - model.max_adapters)
        unknown = np.full(len(sums), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            pace_s = decoding / tokens
            ttft_s = np.maximum(in_system - decoding, 0.0) / rate
        return Columns(
            settings_of(options, [o.setting for o in self.options]), rate, tokens, adapters, in_system, decoding,
            pace_s, ttft_s, unknown, unknown, violation,
        )  # fmt: skip


def settings_of(options: Indices, settings: Sequence[EngineSetting]) -> tuple[EngineSetting, ...]:
    """The setting of each of P columns."""
    if len(options) and (options == options[0]).all():
        return (settings[int(options[0])],) * len(options)
    return tuple(settings[o] for o in options.tolist())


def reserved(columns: Columns, reserve: Array) -> Columns:
    """The columns with so much more asked of each than the model's margin, (P,) or ()."""
    return replace(columns, violation=columns.violation + reserve)
