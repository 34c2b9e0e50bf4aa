"""A placement under construction: what each GPU holds, what it costs and how far it is from feasible.

Shared by dealing, greedy and local search. Unlike `Placement`, a state may be infeasible, and may keep empty GPUs
(which cost nothing and may be filled later).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import Array, GpuAssignment, Placement, PlacementProblem

#: A facet counts as satisfied up to here; stricter than `violations`, which recomputes sums in another order.
FEASIBLE = 1e-7
#: Weight of the tie break of MAX terms, relative to the term.
TIE_BREAK = 1e-3

Indices = NDArray[np.int64]


class SearchState:
    """Mutable fleet of G GPUs over a problem with N items, O options, F features and T terms.

    Attributes:
        options: option of each GPU, list of G.
        members: items on each GPU, list of G lists.
        phi: summed features of each GPU, (G, F).
        excess: violation of facets, hull, adapter count, masks and refuted columns, (G,); 0 = feasible.
        costs: weighted cost of each GPU and term (weight / scale applied), (G, T).
    """

    def __init__(self, problem: PlacementProblem, options: Sequence[int], members: Sequence[Sequence[int]]) -> None:
        self.problem = problem
        self.options = [int(o) for o in options]
        self.members = [[int(i) for i in m] for m in members]
        # row -1 of each array stands for "no item", so that moves and swaps share one formula
        self.item_phi = np.vstack([problem.phi, np.zeros((1, problem.phi.shape[1]))])
        self.item_slots = np.array([*(int(a.rank > 0) for a in problem.items), 0])
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
        self.phi = np.zeros((len(self.options), problem.phi.shape[1]))
        self.excess = np.zeros(len(self.options))
        self.costs = np.zeros((len(self.options), len(problem.terms)))
        self.tie_break = 0.0
        for g in range(len(self.options)):
            self.refresh(g)
        worst = float(self.costs[:, self.is_max].max(initial=0.0))
        if worst > 0:
            self.tie_break = TIE_BREAK / (len(self.options) * worst)

    # ------------------------------------------------------------------ scoring
    def score_excess(self, option: int, phi: Array, slots: Array, used: NDArray[np.bool_]) -> Array:
        """Violation of facets, hull and adapter count of P columns under one option, (P,); 0 where not `used`."""
        model = self.problem.options[option]
        excess = np.maximum(model.violation(phi) - FEASIBLE, 0.0) + np.maximum(slots - model.max_adapters, 0)
        return np.where(used, excess, 0.0)

    def score_costs(self, option: int, phi: Array, used: NDArray[np.bool_]) -> Array:
        """Weighted term costs of P columns under one option, (P, T); 0 where not `used`."""
        model, context = self.problem.options[option], self.problem.context
        costs = np.stack([t.cost(model, phi, context) for t in self.problem.terms], axis=1)
        return np.where(used[:, None], costs * self.weights, 0.0)

    def banned_excess(self, option: int, items: Sequence[int]) -> float:
        """Number of refuted columns that the items contain."""
        content = set(items)
        return float(sum(b <= content for b in self.bans.get(option, ())))

    def refresh(self, g: int) -> None:
        """Recomputes one GPU from its members, so that rounding errors do not add up."""
        items = self.members[g]
        self.phi[g] = self.item_phi[items].sum(axis=0) if items else 0.0
        slots = np.array([self.item_slots[items].sum() if items else 0.0])
        used = np.array([bool(items)])
        excess = self.score_excess(self.options[g], self.phi[g : g + 1], slots, used)
        allowed = self.item_allowed[items, self.options[g]]
        twins = len(items) - len(set(self.item_adapter[items].tolist()))
        pins = max(0, len(set(self.item_pin[items].tolist()) - {-1}) - 1)
        self.excess[g] = excess[0] + self.banned_excess(self.options[g], items) + float((~allowed).sum()) + twins + pins
        self.costs[g] = self.score_costs(self.options[g], self.phi[g : g + 1], used)[0]

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
    def exchange(self, g: int, h: int, give: int, take: int) -> None:
        """Moves item `give` from g to h and item `take` from h to g; -1 = nothing."""
        if give >= 0:
            self.members[g].remove(give)
            self.members[h].append(give)
        if take >= 0:
            self.members[h].remove(take)
            self.members[g].append(take)
        self.refresh(g)
        self.refresh(h)

    def spare_stock(self) -> Indices:
        """GPUs of each type not used by a non-empty GPU, (T,)."""
        types = [self.problem.option_type[o] for o, m in zip(self.options, self.members, strict=True) if m]
        used = np.bincount(np.array(types, dtype=np.int64), minlength=len(self.problem.stock))
        return np.asarray(self.problem.stock - used)

    def choose_options(self, gpus: Sequence[int] | None = None, *, any_type: bool = True) -> bool:
        """Gives each GPU the option with the least excess, then the least objective; True if one changed.

        Only options that every item on the GPU may use; another GPU type only if `any_type` and stock is left.
        """
        problem = self.problem
        gpus = [g for g in (range(len(self.options)) if gpus is None else gpus) if self.members[g]]
        if not gpus:
            return False
        phi = self.phi[gpus]
        slots = np.array([float(self.item_slots[self.members[g]].sum()) for g in gpus])
        used = np.ones(len(gpus), dtype=bool)
        indices = range(len(problem.options))
        excess = np.stack([self.score_excess(o, phi, slots, used) for o in indices], axis=1)
        costs = np.stack([self.score_costs(o, phi, used) for o in indices], axis=1)
        changed = False
        for row, g in enumerate(gpus):
            usable = problem.allowed[self.members[g]].all(axis=0)
            own_type = problem.option_type[self.options[g]]
            same_type = problem.option_type == own_type
            usable &= (same_type | (self.spare_stock()[problem.option_type] > 0)) if any_type else same_type
            candidates = np.flatnonzero(usable)
            if not len(candidates):
                continue
            bans = np.array([self.banned_excess(int(o), self.members[g]) for o in candidates])
            totals = self.totals([g], costs[row, candidates][:, None])
            order = np.lexsort((totals, np.round(excess[row, candidates] + bans, 12)))
            best = int(candidates[order[0]])
            if best != self.options[g]:
                before = (self.excess[g], self.merit())
                old, self.options[g] = self.options[g], best
                self.refresh(g)
                if (self.excess[g], self.merit()) < before:
                    changed = True
                else:
                    self.options[g] = old
                    self.refresh(g)
        return changed

    def placement(self) -> Placement:
        """The non-empty GPUs, in order."""
        return Placement(
            tuple(GpuAssignment(o, tuple(sorted(m))) for o, m in zip(self.options, self.members, strict=True) if m)
        )


def state_of(problem: PlacementProblem, placement: Placement) -> SearchState:
    """A search state that starts at a placement."""
    return SearchState(problem, [g.option for g in placement.gpus], [list(g.items) for g in placement.gpus])
