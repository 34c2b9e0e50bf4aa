"""Classes of items that are alike.

Solvers count class members instead of naming items. A class carries its members' **mean** features: features add
over adapters, so class totals are exact, whatever the spread inside a class.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import PlacementProblem

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ItemClasses:
    """K classes of N items.

    Args:
        class_of: class of each item, (N,).
        members: item indices of each class, ascending.
        size: d_k, number of members, (K,).
        most_per_gpu: u_k, most members on one GPU, (K,): distinct adapters among the members, because replicas of
            one adapter need different GPUs.
        allowed: members may run under option o, (K, O); the same for all members of a class.
        pinned: name of the single GPU that all members are pinned to, or None, length K.
        phi: mean features, (K, F).
        exact: all members of each class have equal features, so class bounds hold for the items as well.
    """

    class_of: Indices
    members: tuple[Indices, ...]
    size: Indices
    most_per_gpu: Indices
    allowed: NDArray[np.bool_]
    pinned: tuple[str | None, ...]
    phi: Array
    exact: bool

    def __len__(self) -> int:
        return len(self.size)

    def mean(self, features: Array) -> Array:
        """Class means of item features (N, D), shape (K, D)."""
        return np.stack([features[m].mean(axis=0) for m in self.members])


def item_classes(problem: PlacementProblem, *, ratio: float = 1.25, max_classes: int | None = None) -> ItemClasses:
    """Groups items by repeated halving, heaviest and widest class first.

    Items share a class only if they may run under the same options, are pinned to the same GPU and stand for
    adapters with equally many replicas. Within such a group, the class whose spread costs most (its share of the
    total load times its widest log ratio) is cut at the middle of that ratio, until every class is narrower than
    `ratio` in rate, lengths, rank and burstiness, or there are `max_classes`.

    Args:
        ratio: classes narrower than this are not cut.
        max_classes: most classes, not counting those that the rules above keep apart; None = one for 25 items, at
            least 48 and at most 80.
    """
    if max_classes is None:
        max_classes = min(80, max(48, len(problem.items) // 25))
    coordinates = _coordinates(problem)
    total = np.abs(problem.phi).sum(axis=0)
    weight = (np.abs(problem.phi) / np.where(total > 0, total, 1.0)).mean(axis=1)
    queue: list[tuple[float, int, Indices]] = []
    done: list[Indices] = []

    def add(members: Indices) -> None:
        spread = np.ptp(coordinates[members], axis=0)
        if spread.max() <= np.log(ratio) * (1 + 1e-9):
            done.append(members)
        else:
            heapq.heappush(queue, (-float(weight[members].sum() * spread.max()), int(members[0]), members))

    for group in _kept_apart(problem):
        add(group)
    while queue and len(queue) + len(done) < max_classes:
        members = heapq.heappop(queue)[2]
        values = coordinates[members]
        axis = int(np.argmax(np.ptp(values, axis=0)))
        upper = values[:, axis] > (values[:, axis].min() + values[:, axis].max()) / 2
        add(members[~upper])
        add(members[upper])
    done += [members for _, _, members in queue]
    return _collect(problem, sorted(done, key=lambda m: int(m[0])))


def split_classes(problem: PlacementProblem, classes: ItemClasses, labels: Indices, chosen: Indices) -> ItemClasses:
    """The chosen classes cut by their members' labels (N,); replicas of one adapter must have equal labels."""
    parts: list[Indices] = []
    for k, members in enumerate(classes.members):
        if k in set(chosen.tolist()):
            parts += [members[labels[members] == label] for label in np.unique(labels[members])]
        else:
            parts.append(members)
    return _collect(problem, parts)


def _coordinates(problem: PlacementProblem) -> Array:
    """What makes adapters alike, as logarithms, (N, 5): rate, prompt, output, rank, arrival CV."""
    return np.log(
        [
            (
                a.rate_req_per_s,
                a.prompt_tokens.mean * (1 - a.cached_prompt_fraction),
                a.output_tokens.mean,
                max(a.rank, 1),
                a.arrival_cv,
            )
            for a in problem.items
        ]
    )


def _kept_apart(problem: PlacementProblem) -> list[Indices]:
    """Items by (allowed options, needs a slot, GPU pinned to, number of replicas)."""
    replicas = np.bincount(problem.item_adapter)
    pins = problem.pin_of.tolist()
    groups: dict[tuple[bytes, bool, int, int], list[int]] = {}
    for i, adapter in enumerate(problem.items):
        key = (
            problem.allowed[i].tobytes(),
            adapter.rank > 0,
            pins[i],
            int(replicas[problem.item_adapter[i]]),
        )
        groups.setdefault(key, []).append(i)
    # replicas of one adapter are equal shares, hence equal coordinates: cutting never separates them
    return [np.array(g) for g in groups.values()]


def _collect(problem: PlacementProblem, members: list[Indices]) -> ItemClasses:
    class_of = np.zeros(len(problem.items), dtype=np.int64)
    for k, m in enumerate(members):
        class_of[m] = k
    pins = problem.pin_of
    phi = np.stack([problem.phi[m].mean(axis=0) for m in members])
    spread = np.abs(problem.phi - phi[class_of])
    return ItemClasses(
        class_of=class_of,
        members=tuple(members),
        size=np.array([len(m) for m in members]),
        most_per_gpu=np.array([len(np.unique(problem.item_adapter[m])) for m in members]),
        allowed=np.stack([problem.allowed[m[0]] for m in members]),
        pinned=tuple(problem.items[int(m[0])].pinned_gpu if pins[m[0]] >= 0 else None for m in members),
        phi=phi,
        exact=bool((spread <= 1e-9 * np.abs(phi[class_of])).all()),
    )
