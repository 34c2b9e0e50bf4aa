"""The steady state of many columns of the same adapters: at once, one by one, or as sums that a move changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from surrogates.steady_state.items import Items, items_of
from surrogates.steady_state.law import LAW, law_of
from surrogates.steady_state.pace import STEP
from surrogates.steady_state.slots import GATE
from surrogates.steady_state.solve import (
    Judge,
    Room,
    Source,
    largest_loads,
    solve_exchanges,
    solve_groups,
    solve_sums,
)
from surrogates.steady_state.state import SteadyState, state_of, unsolved
from surrogates.steady_state.tables import Tables, tables_of
from surrogates.steady_state.waiting import WAITING
from twin.errors import InputError
from twin.figures.health import MAX_ADAPTER_LATE_SHARE, MAX_LATE_SHARE, STARVATION_THRESHOLD, Rule
from twin.server.calibration import Calibration
from twin.server.column import Column
from twin.server.memory import max_model_len
from twin.server.settings import EngineSetting
from twin.workload.adapter import DEFAULT_TTFT_P99_S, Adapter, Slo

Floats = NDArray[np.float64]
Groups = Sequence[Sequence[int] | NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class ColumnSums:
    """Columns as sums of table rows, which are added and subtracted: a column + an adapter - another is a move.

    Args:
        linear, paced, aside: sums of the rows of `Tables`, (P, L), (P, G, C) and (P, G / STRIDE, TIMES, 2).
    """

    linear: Floats
    paced: Floats
    aside: Floats

    def __len__(self) -> int:
        return len(self.linear)

    def __add__(self, other: ColumnSums) -> ColumnSums:
        return ColumnSums(self.linear + other.linear, self.paced + other.paced, self.aside + other.aside)

    def __sub__(self, other: ColumnSums) -> ColumnSums:
        return ColumnSums(self.linear - other.linear, self.paced - other.paced, self.aside - other.aside)

    def __getitem__(self, which: slice | NDArray[np.int64]) -> ColumnSums:
        return ColumnSums(self.linear[which], self.paced[which], self.aside[which])


@dataclass(frozen=True, slots=True)
class SteadyStateModel:
    """N adapters on one GPU type, under settings that agree in `servers_per_gpu` and `max_model_len`.

    Args:
        items: the adapters. tables: their contributions at every pace.
        crowded: the tables serve columns with more adapters than slots (or than `max_cpu_loras`).
        rule: `stable` or `published`, see `twin.figures.health`.
        late_share, adapter_late_share: most late requests, of all and of an adapter on average (`stable`).
    """

    calibration: Calibration
    items: Items
    tables: Tables
    crowded: bool = True
    rule: Rule = "stable"
    late_share: float = MAX_LATE_SHARE
    adapter_late_share: float = MAX_ADAPTER_LATE_SHARE
    _room: Room = field(init=False, compare=False, repr=False)
    _source: Source = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        t = self.tables
        room = Room(
            np.zeros(t.linear.shape[1]), np.zeros(t.paced.shape[::2]), np.zeros((*t.aside.shape[:2], 2)),
            np.zeros(len(t.paced), np.bool_), np.zeros(t.aside.shape[:2], np.bool_), np.zeros(t.paced.shape[2]),
            np.zeros(1, GATE), np.zeros(1, STEP), np.zeros(1, WAITING), np.zeros(0, np.int64),
            np.zeros(t.linear.shape[1]), np.zeros(t.paced.shape[::2]), np.zeros((*t.aside.shape[:2], 2)),
            np.zeros(len(t.paced), np.bool_), np.zeros(t.aside.shape[:2], np.bool_),
        )  # fmt: skip
        source = Source(
            t.linear, t.paced, t.aside, t.ranks, t.slo_s, t.base_s, t.pace_limit_s, t.token_limit_s
        )  # fmt: skip
        object.__setattr__(self, "_room", room)
        object.__setattr__(self, "_source", source)

    def states(self, groups: Groups, settings: Sequence[EngineSetting] | Any, load: ArrayLike = 1.0) -> SteadyState:
        """States of P columns.

        Args:
            groups: indices of the adapters of each column.
            settings: one a column, or what `laws` made of them.
            load: factor on all rates, () or (P,).
        """
        members, starts = _flat(groups)
        law, out, loads = self.laws(settings), unsolved(len(groups)), np.empty(len(groups))
        loads[:] = load
        solve_groups(self._source, members, starts, loads, law, self._judge(), self._room, out)
        state = state_of(out)
        if self.rule == "published":
            # The rule lets a tenth be lost: a column is as healthy as one that is asked for nine tenths.
            lighter, loads = unsolved(len(groups)), STARVATION_THRESHOLD * loads
            solve_groups(self._source, members, starts, loads, law, self._judge(), self._room, lighter)
            state = state.replaced(healthy=lighter["healthy"])
        return state

    def exchanges(
        self, members: Sequence[int] | NDArray[np.int64], leave: NDArray[np.int64], enter: NDArray[np.int64],
        settings: Sequence[EngineSetting] | Any, load: float = 1.0,
    ) -> SteadyState:  # fmt: skip
        """States of P columns that differ from one by an exchange: its members without `leave`, with `enter`.

        Args:
            leave, enter: indices of adapters, -1 = none, (P,). At least one adapter has to stay or come.
            load: factor on all rates.
        """
        law, out = self.laws(settings), unsolved(len(leave))
        own = np.asarray(members, np.int64)
        solve_exchanges(self._source, own, leave, enter, load, law, self._judge(), self._room, out)
        state = state_of(out)
        if self.rule == "published":
            groups = [_exchanged(own, *pair) for pair in zip(leave.tolist(), enter.tolist(), strict=True)]
            state = state.replaced(healthy=self.states(groups, law, load).healthy)
        return state

    def largest_loads(self, groups: Groups, settings: Sequence[EngineSetting] | Any) -> Floats:
        """Largest factor on all rates with which each of P columns is healthy, (P,); NaN where none is.

        Lighter loads that are not healthy, as there may be where a second state ends, are not looked for.
        """
        members, starts = _flat(groups)
        out = np.empty(len(groups))
        largest_loads(self._source, members, starts, self.laws(settings), self._judge(), self._room, unsolved(1), out)
        return out / STARVATION_THRESHOLD if self.rule == "published" else out

    def laws(self, settings: Sequence[EngineSetting] | Any) -> Any:
        """Records of P settings: worth keeping where the same settings are asked for many times."""
        if isinstance(settings, np.ndarray) and settings.dtype == LAW:
            return settings
        if len(self.tables.ranks) and not self.calibration.has_adapter_costs:
            raise InputError(
                f"calibration {self.calibration.name!r} was measured without adapters",
                remedy="serve base-model requests only (rank 0), or choose a calibration with adapter costs",
            )
        return law_of(settings, self.calibration)

    def sums(self, groups: Groups) -> ColumnSums:
        """Columns as sums of rows, (P,)."""
        t = self.tables
        members = [np.asarray(g, np.int64) for g in groups]
        parts = [(t.linear[g].sum(0), t.paced[:, g].sum(1), t.aside[:, :, g].sum(2)) for g in members]
        return ColumnSums(*(np.stack(arrays) for arrays in zip(*parts, strict=True)))

    def rows(self, adapters: Sequence[int] | NDArray[np.int64]) -> ColumnSums:
        """The adapters themselves, one a row: what adding one to a column adds."""
        which = np.asarray(adapters, np.int64)
        t = self.tables
        return ColumnSums(t.linear[which], t.paced[:, which].swapaxes(0, 1), np.moveaxis(t.aside[:, :, which], 2, 0))

    def promise_limits(self, groups: Groups) -> tuple[Floats, Floats]:
        """Longest pace, and time per computed prompt token, that promises of each column allow, s, (P,); inf = any."""
        limits = self.tables.pace_limit_s, self.tables.token_limit_s
        found = [[float(np.min(limit[np.asarray(g, np.int64)], initial=np.inf)) for g in groups] for limit in limits]
        return np.array(found[0]), np.array(found[1])

    def states_of_sums(
        self, sums: ColumnSums, settings: Sequence[EngineSetting] | Any, pace_limit_s: ArrayLike = np.inf,
        token_limit_s: ArrayLike = np.inf,
    ) -> SteadyState:  # fmt: skip
        """States of P columns given as sums.

        Args:
            pace_limit_s, token_limit_s: what `promise_limits` says of each column, () or (P,): minima are no sums.
                inf where nobody promises an ITL or E2E latency, and no prompt is long.
        """
        out, one = unsolved(len(sums)), np.ones(len(sums))
        pace_limits_s, token_limits_s = (np.asarray(limit, np.float64) * one for limit in (pace_limit_s, token_limit_s))
        linear, paced, aside = (np.ascontiguousarray(a) for a in (sums.linear, sums.paced, sums.aside))
        law, judge = self.laws(settings), self._judge()
        solve_sums(self._source, linear, paced, aside, one, pace_limits_s, token_limits_s, law, judge, self._room, out)
        state = state_of(out)
        if self.rule == "published":
            lighter, nine_tenths = unsolved(len(sums)), STARVATION_THRESHOLD * one
            solve_sums(
                self._source, linear, paced, aside, nine_tenths, pace_limits_s, token_limits_s, law, judge,
                self._room, lighter,
            )  # fmt: skip
            state = state.replaced(healthy=lighter["healthy"])
        return state

    def _judge(self) -> Judge:
        return Judge(self.late_share, self.adapter_late_share, self.rule == "published")


def steady_state_model(
    adapters: Sequence[Adapter], calibration: Calibration, setting: EngineSetting, *, crowded: bool = True,
    rule: Rule = "stable", default_ttft_slo_s: float = DEFAULT_TTFT_P99_S, slo: Slo | None = None, pivot: float = 1.0,
    **limits: float,
) -> SteadyStateModel:  # fmt: skip
    """A model of adapters and of all settings that agree with this one in `servers_per_gpu` and `max_model_len`.

    Args:
        crowded: some column has more adapters than slots, or than `max_cpu_loras`; False saves half of the memory.
        default_ttft_slo_s: TTFT promise of adapters without their own.
        slo: all promises of adapters without their own, instead.
        pivot: factor on all rates; the tables are exact for loads from 1/16 to 16 times it.
        limits: `late_share`, `adapter_late_share`.
    """
    longest = max_model_len(setting, calibration)
    items = items_of(adapters, max_model_len=longest, default=slo or Slo(default_ttft_slo_s))
    items = replace(items, rate_req_per_s=items.rate_req_per_s * pivot)
    tables = tables_of(items, base_s=calibration.step.base / 1000.0, servers=setting.servers_per_gpu, crowded=crowded)
    return SteadyStateModel(calibration, items, tables, crowded, rule, **limits)


def steady_state(
    columns: Sequence[Column], calibration: Calibration, *, rule: Rule = "stable",
    default_ttft_slo_s: float = DEFAULT_TTFT_P99_S, load: float = 1.0,
) -> SteadyState:  # fmt: skip
    """Steady states of P columns, (P,). Many columns of the same adapters: make a `SteadyStateModel` once.

    Args:
        rule: what `healthy` means, `stable` or `published`.
        load: factor on all rates.

    Raises:
        InputError: the calibration lacks what the columns need (adapter costs, a sharing law).
    """
    state = state_of(unsolved(len(columns)))
    for which, model, groups in _models(columns, calibration, rule, default_ttft_slo_s):
        state.figures[which] = model.states(groups, [columns[p].setting for p in which], load).figures
    return state


def largest_load(
    columns: Sequence[Column], calibration: Calibration, *, rule: Rule = "stable",
    default_ttft_slo_s: float = DEFAULT_TTFT_P99_S,
) -> Floats:  # fmt: skip
    """theta* of P columns, (P,): the largest factor on all rates with which a column is healthy; NaN where none is."""
    out = np.full(len(columns), np.nan)
    for p, column in enumerate(columns):
        setting = column.setting
        tokens = sum(a.rate_req_per_s * (a.prompt_tokens.mean + a.output_tokens.mean) for a in column.adapters)
        crowded, group, factor = _crowded(column), [np.arange(len(column.adapters))], PIVOT_TPS / tokens
        # Again with tables about what was found, where that is far from the pivot.
        for _ in range(PIVOTS):
            model = steady_state_model(
                column.adapters, calibration, setting, crowded=crowded, rule=rule, pivot=factor,
                default_ttft_slo_s=default_ttft_slo_s,
            )  # fmt: skip
            found = float(model.largest_loads(group, [setting])[0])
            factor *= found
            if not abs(np.log(found)) > np.log(NEAR):
                break
        out[p] = factor
    return out


#: Tokens/s about which the largest load is sought at first; factor within which it is near; most pivots.
PIVOT_TPS, NEAR, PIVOTS = 6000.0, 4.0, 6


def _models(
    columns: Sequence[Column], calibration: Calibration, rule: Rule, default_ttft_slo_s: float
) -> list[tuple[NDArray[np.int64], SteadyStateModel, list[list[int]]]]:
    """One model for the columns that share one, with their places and members."""
    alike: dict[tuple[int, int | None], list[int]] = {}
    for p, column in enumerate(columns):
        alike.setdefault((column.setting.servers_per_gpu, column.setting.max_model_len), []).append(p)
    found = []
    for places in alike.values():
        index: dict[int, int] = {}
        adapters: list[Adapter] = []
        groups = []
        for p in places:
            for a in columns[p].adapters:
                if index.setdefault(id(a), len(adapters)) == len(adapters):
                    adapters.append(a)
            groups.append([index[id(a)] for a in columns[p].adapters])
        model = steady_state_model(
            adapters, calibration, columns[places[0]].setting, rule=rule, default_ttft_slo_s=default_ttft_slo_s,
            crowded=any(_crowded(columns[p]) for p in places),
        )  # fmt: skip
        found.append((np.array(places), model, groups))
    return found


def _crowded(column: Column) -> bool:
    setting = column.setting
    return column.adapters_in_slots > min(setting.max_loras, setting.max_cpu_loras or setting.max_loras)


def _exchanged(members: NDArray[np.int64], leave: int, enter: int) -> NDArray[np.int64]:
    kept = np.delete(members, np.flatnonzero(members == leave)[:1])
    return np.append(kept, enter) if enter >= 0 else kept


def _flat(groups: Groups) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Members behind one another, and where each column starts, (P + 1,)."""
    if len(groups) == 1:
        alone = np.asarray(groups[0], np.int64)
        return alone, np.array([0, len(alone)])
    starts = np.zeros(len(groups) + 1, np.int64)
    np.cumsum([len(g) for g in groups], out=starts[1:])
    members = np.concatenate([np.asarray(g, np.int64) for g in groups]) if len(groups) else np.zeros(0, np.int64)
    return members, starts
