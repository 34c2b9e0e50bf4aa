"""A placement under construction: what each GPU holds, what it costs and how far it is from healthy.

Shared by dealing, greedy and local search. Unlike `Placement`, a state may be infeasible, and may keep empty GPUs
(which cost nothing and may be filled later). Everything is scored by the planning model itself (`problem.judge`); the
linear pieces only say which changes are worth a look, and how far an overloaded GPU is from one that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import Array, GpuAssignment, Placement, PlacementProblem
from surrogates.model.columns import ColumnModel, Columns, LinearColumns, reserved

#: A rule counts as kept up to here; stricter than `violations`, which recomputes sums in another order.
FEASIBLE = 1e-7
#: Weight of the tie break of MAX terms, relative to the term.
TIE_BREAK = 1e-3
#: Cost of a column of which the model finds no steady state, in units of the objective.
NO_STATE = 1e9
#: Where a column is not healthy, its load by the pieces counts beside what the planning model says: so much of it, from
#: so far inside the facets on.
GUIDE, NEARLY = 2.0, 0.1
#: Objectives that differ by less than this share are the same where settings are chosen.
INDIFFERENT = 1e-6

Indices = NDArray[np.int64]


class SearchState:
    """Mutable fleet of G GPUs over a problem with N items, O options, F features and T terms.

    Attributes:
        options: option of each GPU, list of G.
        members: items on each GPU, list of G lists.
        phi: summed features of each GPU, (G, F).
        excess: violation of the planning model, masks, replicas, pins and refuted columns, (G,); 0 = feasible.
        costs: weighted cost of each GPU and term (weight / scale applied), (G, T).
        work: columns that the planning model was asked for: a clock that no other program changes.
    """

    def __init__(self, problem: PlacementProblem, options: Sequence[int], members: Sequence[Sequence[int]]) -> None:
        self.problem = problem
        self.judge: ColumnModel = problem.judge
        #: Quick, and rough where the planning model is not linear itself.
        self.pieces = LinearColumns(problem.items, problem.phi, problem.options)
        self.options = [int(o) for o in options]
        self.members = [[int(i) for i in m] for m in members]
        # row -1 of each array stands for "no item", so that moves and swaps share one formula
        self.item_phi = np.vstack([problem.phi, np.zeros((1, problem.phi.shape[1]))])
        self.item_allowed = np.vstack([problem.allowed, np.ones((1, problem.allowed.shape[1]), dtype=bool)])
        self.item_adapter = np.append(problem.item_adapter, -1)
        self.item_pin = np.append(problem.pin_of, -1)
        counts = np.bincount(problem.item_adapter)
        self.item_has_twin = np.append(counts[problem.item_adapter] > 1, False)
        self.weights = np.array([t.weight / t.scale for t in problem.terms])
        self.is_max = np.array([t.aggregate == "max" for t in problem.terms], dtype=bool)
        self.bans: dict[int, list[frozenset[int]]] = {}
        for option, items in problem.banned:
            self.bans.setdefault(option, []).append(items)
        self.reserve = np.array(problem.reserve or (0.0,) * len(problem.options))
        self.phi = np.zeros((len(self.options), problem.phi.shape[1]))
        self.excess = np.zeros(len(self.options))
        self.costs = np.zeros((len(self.options), len(problem.terms)))
        self.work = 0
        #: Most load of some GPUs: weights of the features and their largest sum.
        self.ceilings: dict[int, tuple[Array, float]] = {}
        self.tie_break = 0.0
        used = [g for g in range(len(self.options)) if self.members[g]]
        if used:
            self._recompute(used)
        worst = float(self.costs[:, self.is_max].max(initial=0.0))
        if worst > 0:
            self.tie_break = TIE_BREAK / (len(self.options) * worst)

    # ------------------------------------------------------------------ scoring
    def exchanged(self, g: int, leave: Indices, enter: Indices, *, exact: bool = True) -> tuple[Array, Array]:
        """Excess (P,) and weighted costs (P, T) of GPU g without items `leave` and with `enter`, -1 = none.

        Args:
            exact: by the planning model; False = by its linear pieces.
        """
        option, members = self.options[g], self.members[g]
        emptied = len(members) + (enter >= 0).astype(int) - (leave >= 0) == 0
        excess, costs = np.zeros(len(leave)), np.zeros((len(leave), len(self.weights)))
        filled = np.flatnonzero(~emptied)
        if len(filled):
            model = self.judge if exact else self.pieces
            columns = model.exchanged(members, option, leave[filled], enter[filled])
            phi = self.phi[g] - self.item_phi[leave[filled]] + self.item_phi[enter[filled]]
            excess[filled], costs[filled] = self._scored(columns, option, phi, exact)
            excess[filled] += self._above_ceiling(g, phi)
        return excess, costs

    def pieces_violation(self, g: int, leave: Indices, enter: Indices) -> Array:
        """How far GPU g would be from the limits of the linear pieces after each exchange, (P,); <= 0 inside."""
        phi = self.phi[g] - self.item_phi[leave] + self.item_phi[enter]
        return self.problem.options[self.options[g]].violation(phi)

    def _scored(self, columns: Columns, option: int, phi: Array, exact: bool) -> tuple[Array, Array]:
        if exact:
            self.work += len(columns)
            if self.problem.model is not None:
                columns = reserved(columns, self.reserve[option])
        excess = np.maximum(columns.violation - FEASIBLE, 0.0)
        if exact and self.problem.model is not None and (excess > 0).any():
            # Far from its limit the planning model does not say how far, and near it it is not smooth: less load is
            # nearer, by the pieces.
            bad = excess > 0
            excess[bad] += GUIDE * np.maximum(NEARLY + self.problem.options[option].violation(phi[bad]), 0.0)
        costs = np.stack([t.cost(columns, self.problem.context) for t in self.problem.terms], axis=1) * self.weights
        return excess, np.where(np.isfinite(costs), costs, NO_STATE)

    def limit_load(self, g: int, share: float) -> None:
        """Asks GPU g to carry at most this share of its present load, by the facet that is nearest to it."""
        facets = self.problem.options[self.options[g]].feasible
        if not len(facets.g):
            return
        row = facets.G[int(np.argmax(facets.G @ self.phi[g] + facets.g))]
        self.ceilings[g] = row, share * float(row @ self.phi[g])
        self.refresh(g)

    def _above_ceiling(self, g: int, phi: Array) -> Array:
        """How far P columns on GPU g are above its ceiling, as a share of it, (P,); 0 without one."""
        if g not in self.ceilings:
            return np.zeros(len(phi))
        row, most = self.ceilings[g]
        return np.maximum((phi @ row) / max(most, 1e-12) - 1.0 - FEASIBLE, 0.0)

    def banned_excess(self, option: int, items: Sequence[int]) -> float:
        """Number of refuted columns that the items contain."""
        bans = self.bans.get(option, ())
        if not bans:
            return 0.0
        content = set(items)
        return float(sum(b <= content for b in bans))

    def _rules(self, g: int) -> float:
        """Rules that a GPU breaks beside the planning model's: masks, two replicas, two pins, refuted columns."""
        items = self.members[g]
        allowed = self.item_allowed[items, self.options[g]]
        twins = len(items) - len(set(self.item_adapter[items].tolist()))
        pins = max(0, len(set(self.item_pin[items].tolist()) - {-1}) - 1)
        return self.banned_excess(self.options[g], items) + float((~allowed).sum()) + twins + pins

    def _recompute(self, gpus: Sequence[int]) -> None:
        """Scores GPUs that hold something from their members."""
        for g in gpus:
            self.phi[g] = self.item_phi[self.members[g]].sum(axis=0)
        columns = self.judge.of([self.members[g] for g in gpus], [self.options[g] for g in gpus])
        trusted = self.problem.trusted
        for k, g in enumerate(gpus):
            excess, costs = self._scored(_row(columns, k), self.options[g], self.phi[g : g + 1], True)
            known = bool(trusted) and (self.options[g], frozenset(self.members[g])) in trusted
            above = float(self._above_ceiling(g, self.phi[g : g + 1])[0])
            self.excess[g], self.costs[g] = (0.0 if known else excess[0] + self._rules(g) + above), costs[0]

    def refresh(self, *gpus: int) -> None:
        """Recomputes GPUs from their members, so that rounding errors do not add up."""
        for g in gpus:
            if not self.members[g]:
                self.phi[g], self.excess[g], self.costs[g] = 0.0, 0.0, 0.0
        used = [g for g in gpus if self.members[g]]
        if used:
            self._recompute(used)

    def totals(self, gpus: Sequence[int], costs: Array) -> Array:
        """Merit of P alternatives that give the named GPUs new costs (P, len(gpus), T).

        SUM terms add over GPUs, MAX terms take the worst.
        """
        others = np.delete(self.costs, gpus, axis=0)
        total = costs[:, :, ~self.is_max].sum(axis=(1, 2)) + others[:, ~self.is_max].sum()
        if self.is_max.any():
            mine, rest = costs[:, :, self.is_max], others[:, self.is_max]
            total = total + np.maximum(mine.max(axis=1), rest.max(axis=0, initial=0.0)).sum(axis=1)
            total = total + self.tie_break * ((mine**2).sum(axis=(1, 2)) + (rest**2).sum())
        return np.asarray(total)

    def merit(self) -> float:
        """The objective; with MAX terms plus a small sum of squares, so that search also lowers all but the last of
        several worst GPUs."""
        sums, worst = self.costs[:, ~self.is_max].sum(), self.costs[:, self.is_max]
        return float(sums + worst.max(axis=0, initial=0.0).sum() + self.tie_break * (worst**2).sum())

    def total_excess(self) -> float:
        return float(self.excess.sum())

    # ------------------------------------------------------------------ changes
    def copy(self) -> SearchState:
        """Another state that shares what does not change, with no work done."""
        other = copy(self)
        other.options, other.members = list(self.options), [list(m) for m in self.members]
        other.phi, other.excess, other.costs = self.phi.copy(), self.excess.copy(), self.costs.copy()
        other.work = 0
        return other

    def exchange(self, g: int, h: int, give: int, take: int) -> None:
        """Moves item `give` from g to h and item `take` from h to g; -1 = nothing."""
        if give >= 0:
            self.members[g].remove(give)
            self.members[h].append(give)
        if take >= 0:
            self.members[h].remove(take)
            self.members[g].append(take)
        self.refresh(g, h)

    def spare_stock(self) -> Indices:
        """GPUs of each type not used by a non-empty GPU, (T,)."""
        types = [self.problem.option_type[o] for o, m in zip(self.options, self.members, strict=True) if m]
        used = np.bincount(np.array(types, dtype=np.int64), minlength=len(self.problem.stock))
        return np.asarray(self.problem.stock - used)

    def choose_options(self, gpus: Sequence[int] | None = None, *, any_type: bool = True) -> bool:
        """Gives each GPU the option with the least excess, then the least objective; True if one changed.

        Where the objective does not care, the one with the least latency, then the one that needs the least memory for
        slots. Only options that every item on the GPU may use; another GPU type only if `any_type` and stock is left.
        """
        problem = self.problem
        changed = False
        for g in range(len(self.options)) if gpus is None else gpus:
            if not self.members[g]:
                continue
            usable = problem.allowed[self.members[g]].all(axis=0)
            same_type = problem.option_type == problem.option_type[self.options[g]]
            usable &= (same_type | (self.spare_stock()[problem.option_type] > 0)) if any_type else same_type
            candidates = self._promising(g, np.flatnonzero(usable))
            if not len(candidates):
                continue
            columns = self.judge.of([self.members[g]] * len(candidates), candidates.tolist())
            excess, totals = np.zeros(len(candidates)), np.zeros(len(candidates))
            for k, o in enumerate(candidates.tolist()):
                e, costs = self._scored(_row(columns, k), o, self.phi[g : g + 1], True)
                excess[k] = e[0] + self.banned_excess(o, self.members[g])
                totals[k] = self.totals([g], costs[None])[0]
            step = INDIFFERENT * max(float(np.abs(totals).min()), 1e-12)
            order = np.lexsort(
                (self._slots_of(candidates), _steps(columns.requests_in_system, 1e-3), np.round(totals / step),
                 np.round(excess, 9))
            )  # fmt: skip
            best = int(candidates[order[0]])
            if best != self.options[g]:
                old, before = self.options[g], (float(self.excess[g]), self.merit())
                self.options[g] = best
                self.refresh(g)
                if (float(self.excess[g]), self.merit() - INDIFFERENT * abs(before[1])) <= before:
                    changed = True
                else:
                    self.options[g] = old
                    self.refresh(g)
        return changed

    def _promising(self, g: int, candidates: Indices) -> Indices:
        """Settings worth the planning model: no more slots or rank than the members need."""
        settings = [self.problem.options[o].setting for o in candidates.tolist()]
        adapters = sum(self.problem.items[i].rank > 0 for i in self.members[g])
        rest: dict[tuple[object, ...], int] = {}
        for k, s in enumerate(settings):
            # More slots than adapters, or a higher rank than theirs, only cost memory and time.
            slots = min(s.max_loras, adapters) if s.max_loras >= adapters else s.max_loras
            key = (s.gpu_type, slots, s.servers_per_gpu, s.max_num_seqs, s.max_num_batched_tokens, s.max_model_len,
                   s.gpu_memory_utilization, s.max_cpu_loras, s.block_size)  # fmt: skip
            old = rest.get(key)
            if old is None or (s.max_loras, s.max_lora_rank) < (settings[old].max_loras, settings[old].max_lora_rank):
                rest[key] = k
        chosen = {candidates[k] for k in rest.values()} | ({self.options[g]} & set(candidates.tolist()))
        return np.array(sorted(chosen), dtype=np.int64)

    def _slots_of(self, options: Indices) -> Array:
        """Memory that slots take, in ranks of slots, (len(options),)."""
        settings = [self.problem.options[o].setting for o in options.tolist()]
        return np.array([float(s.max_loras * s.max_lora_rank) for s in settings])

    def placement(self) -> Placement:
        """The non-empty GPUs, in order."""
        return Placement(
            tuple(GpuAssignment(o, tuple(sorted(m))) for o, m in zip(self.options, self.members, strict=True) if m)
        )


def state_of(problem: PlacementProblem, placement: Placement) -> SearchState:
    """A search state that starts at a placement."""
    return SearchState(problem, [g.option for g in placement.gpus], [list(g.items) for g in placement.gpus])


def _row(columns: Columns, k: int) -> Columns:
    """Column k alone."""
    arrays = {n: getattr(columns, n)[k : k + 1] for n in Columns.__dataclass_fields__ if n != "setting"}
    return Columns(setting=columns.setting[k : k + 1], **arrays)


def _steps(values: Array, share: float) -> Array:
    """Values in steps of a share of the least, so that what lies within one step counts as the same."""
    known = np.where(np.isfinite(values), values, NO_STATE)
    return np.round(known / max(share * float(known.min()), 1e-12))
