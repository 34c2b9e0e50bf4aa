"""Placements that users get today: simple routing rules, with the best engine setting per GPU granted to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from placement.problem.problem import Placement, PlacementProblem, violations
from placement.solvers.search_state import SearchState

#: (problem, number of GPUs, generator) -> GPU of each item, (N,)
Deal = Callable[[PlacementProblem, int, np.random.Generator], NDArray[np.int64]]


def least_adapters(problem: PlacementProblem, gpus: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """AIBrix `least-adapters`: adapters arrive in file order, each goes where fewest are."""
    return np.arange(len(problem.items)) % gpus


def round_robin(problem: PlacementProblem, gpus: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """By falling rate, dealt in turn."""
    hosts = np.empty(len(problem.items), dtype=np.int64)
    hosts[np.argsort([-a.rate_req_per_s for a in problem.items], kind="stable")] = np.arange(len(hosts)) % gpus
    return hosts


def random_hosts(problem: PlacementProblem, gpus: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Every adapter anywhere (hashing)."""
    return rng.integers(0, gpus, len(problem.items))


BASELINES: dict[str, Deal] = {"least-adapters": least_adapters, "round robin": round_robin, "random": random_hosts}


def place(problem: PlacementProblem, deal: Deal, gpus: int, seed: int = 0) -> Placement:
    """Deals onto a number of GPUs, each under its best setting; may break rules."""
    hosts = deal(problem, gpus, np.random.default_rng(seed))
    members = [np.flatnonzero(hosts == g).tolist() for g in range(gpus)]
    state = SearchState(problem, [0] * gpus, members)
    state.choose_options()
    return state.placement()


def smallest(problem: PlacementProblem, deal: Deal, start: int, most: int) -> Placement | None:
    """The placement on the fewest GPUs, `start` or more, that breaks no rule of the planning model."""
    for gpus in range(start, most + 1):
        placement = place(problem, deal, gpus)
        if not violations(problem, placement):
            return placement
    return None
