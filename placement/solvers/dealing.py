"""From class counts per GPU to individual adapters.

Solvers that work on classes promise feasibility for the classes' **mean** features. Members differ from their mean,
so they are dealt such that the differences cancel on every GPU, and what is left is repaired by swaps until the
GPU's true feature sum satisfies the facets and hull rows of its option.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from placement.problem import timing
from placement.problem.problem import Array, Placement, PlacementProblem, violations
from placement.solvers.local_search import repair
from placement.solvers.search_state import SearchState


def deal(
    problem: PlacementProblem,
    members: Sequence[Sequence[int]],
    counts: NDArray[np.int64],
    options: Sequence[int],
    *,
    seed: int = 0,
    time_limit_s: float = 5.0,
    max_moves: int = 2000,
) -> Placement | None:
    """Deals class members to GPUs and repairs; None if that fails.

    Repair may change class counts and, within stock, options; the result satisfies `violations(...) == []`.

    Args:
        members: item indices of each of K classes.
        counts: class members per GPU, (G, K); columns sum to the class sizes.
        options: option index of each GPU, length G.
        seed: of the repair's random order.
        time_limit_s: wall-clock limit of the repair.
        max_moves: limit of the repair; reached first in practice, which keeps results reproducible.

    Raises:
        ValueError: if the counts do not cover every member exactly once.
    """
    counts = np.asarray(counts, dtype=np.int64)
    sizes = np.array([len(m) for m in members])
    if counts.shape != (len(options), len(members)) or (counts < 0).any() or (counts.sum(axis=0) != sizes).any():
        raise ValueError(f"counts {counts.shape} with sums {counts.sum(axis=0)} do not deal classes of sizes {sizes}")
    deadline = timing.now() + time_limit_s
    hosts = _hosts(problem, members, counts)
    if hosts is None:
        return None
    state = SearchState(problem, options, [np.flatnonzero(hosts == g).tolist() for g in range(len(options))])
    if not repair(state, np.random.default_rng(seed), deadline=deadline, max_moves=max_moves):
        return None
    placement = state.placement()
    return placement if not violations(problem, placement) else None


def _hosts(
    problem: PlacementProblem, members: Sequence[Sequence[int]], counts: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """GPU of each item, (N,), or None if replicas cannot be kept apart under these counts.

    Replicas go first: adapters with most replicas onto the GPUs with most places left, which succeeds whenever
    success is possible within one class (Gale-Ryser). Then, by falling distance from the class mean, every item goes
    where the sum of differences collected so far points most against its own difference.
    """
    left = counts.copy()
    hosts = np.full(len(problem.items), -1, dtype=np.int64)
    class_of = np.full(len(problem.items), -1, dtype=np.int64)
    difference: Array = np.zeros_like(problem.phi)
    for k, items in enumerate(members):
        class_of[list(items)] = k
        difference[list(items)] = problem.phi[list(items)] - problem.phi[list(items)].mean(axis=0)
    # in units of an average GPU, so that features of any unit weigh alike
    per_gpu = np.abs(problem.phi).sum(axis=0) / len(counts)
    difference = difference / np.where(per_gpu > 0, per_gpu, 1.0)
    drift: Array = np.zeros((len(counts), problem.phi.shape[1]))

    def put(item: int, gpu: int) -> None:
        hosts[item] = gpu
        left[gpu, class_of[item]] -= 1
        drift[gpu] += difference[item]

    for group in sorted(problem.replica_groups, key=len, reverse=True):
        for item in group:
            room = left[:, class_of[item]].copy()
            room[[hosts[i] for i in group if hosts[i] >= 0]] = 0
            if room.max() <= 0:
                return None
            put(item, int(np.argmax(room)))
    distance = np.abs(difference).sum(axis=1)
    for item in np.argsort(-distance, kind="stable").tolist():
        if hosts[item] < 0 and class_of[item] >= 0:
            open_gpus = np.flatnonzero(left[:, class_of[item]] > 0)
            put(item, int(open_gpus[np.argmin(drift[open_gpus] @ difference[item])]))
    return hosts
