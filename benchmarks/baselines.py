"""Placements that operators have today: routing rules, packing, hashing, and two published programs.

None but Mélange knows what a GPU can carry. Each deals the adapters to a given number of GPUs (`place`); the fewest
GPUs that some judge accepts are found by asking for one more (`smallest`). Every GPU gets the setting that an operator
would give it (`benchmarks.dealing.operator_option`), but for two that show what settings alone are worth. Pins and
replicas are obeyed.

Left out: anything online. Adapters are placed once, for the rates that the workload states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.baseline_programs import dlora, melange_fleet, min_cost_flow, share_of_gpu
from benchmarks.dealing import Array, Dealing, Settings, Unit, token_rates
from placement.problem.problem import Placement, PlacementProblem, pinned_to_one, violations

#: KV tokens that a slot takes for each of its ranks: Llama-3.1-8B on 64 GB, measured (docs/calibration.md).
KV_TOKENS_PER_RANK = 48.0
#: Seconds that an operator reckons a request stays, for the KV memory of an adapter.
RECKONED_STAY_S = 10.0


@dataclass(frozen=True, slots=True)
class Planned:
    """A placement and the problem that its indices belong to: another one where hot adapters were split further."""

    problem: PlacementProblem
    placement: Placement


def _least(figure: Array, candidates: list[int]) -> int:
    """The candidate with the least figure, the first of equals."""
    return min(candidates, key=lambda g: (float(figure[g]), g))


def least_adapters(dealing: Dealing, rng: np.random.Generator) -> bool:
    """AIBrix `least-adapters`: adapters arrive in file order, each goes where fewest are."""
    return dealing.deal(dealing.units, lambda _, open_: min(open_, key=lambda g: (len(dealing.members[g]), g)))


def round_robin(dealing: Dealing, rng: np.random.Generator) -> bool:
    """By falling request rate, dealt in turn."""
    turn = 0

    def following(unit: Unit, open_: list[int]) -> int:
        nonlocal turn
        gpu = min(open_, key=lambda g: (g - turn) % dealing.gpus)
        turn = (gpu + 1) % dealing.gpus
        return gpu

    return dealing.deal(dealing.by_falling(np.array([a.rate_req_per_s for a in dealing.problem.items])), following)


def random_hosts(dealing: Dealing, rng: np.random.Generator) -> bool:
    """Every adapter anywhere."""
    return dealing.deal(dealing.units, lambda _, open_: int(rng.choice(open_)))


def rank_blocks(dealing: Dealing, rng: np.random.Generator) -> bool:
    """Sorted by rank and cut into contiguous blocks of equal token rate, so that few GPUs pay for high ranks."""
    items, tokens = dealing.problem.items, token_rates(dealing.problem)
    units = sorted(dealing.units, key=lambda u: (max(items[i].rank for i in u.items), u.items))
    total, done = float(tokens.sum()), 0.0

    def block(unit: Unit, open_: list[int]) -> int:
        nonlocal done
        own = float(tokens[list(unit.items)].sum())
        wanted = min(dealing.gpus - 1, int(dealing.gpus * (done + own / 2) / total))
        done += own
        return min(open_, key=lambda g: (abs(g - wanted), g))

    return dealing.deal(units, block)


def lpt(dealing: Dealing, rng: np.random.Generator) -> bool:
    """Longest processing time first (Graham 1969): by falling token rate, each to the GPU with the least of it."""
    return least_loaded(dealing, token_rates(dealing.problem))


def least_loaded(dealing: Dealing, load: Array) -> bool:
    """By falling load (N,), each to the GPU with the least of it."""
    carried = np.zeros(dealing.gpus)

    def lightest(unit: Unit, open_: list[int]) -> int:
        gpu = _least(carried, open_)
        carried[gpu] += float(load[list(unit.items)].sum())
        return gpu

    return dealing.deal(dealing.by_falling(load), lightest)


def reckoned_memory(problem: PlacementProblem) -> Array:
    """Memory of each item in KV tokens, (N,): its slot, and the KV cache of its requests while they stay."""
    return KV_TOKENS_PER_RANK * np.array([a.rank for a in problem.items]) + RECKONED_STAY_S * token_rates(problem)


def first_fit_decreasing(dealing: Dealing, rng: np.random.Generator) -> bool:
    """By falling memory onto the first GPU with room, the room being the least with which they all fit (MULTIFIT,
    Coffman, Garey & Johnson 1978): without a fill level of its own, first-fit would leave most of a fleet empty."""
    memory = reckoned_memory(dealing.problem)

    def fits(trial: Dealing, room: float) -> bool:
        used = np.zeros(trial.gpus)

        def first(unit: Unit, open_: list[int]) -> int | None:
            own = float(memory[list(unit.items)].sum())
            gpu = next((g for g in open_ if used[g] + own <= room), None)
            if gpu is not None:
                used[gpu] += own
            return gpu

        return trial.deal(trial.by_falling(memory), first)

    low, high = float(memory.sum()) / dealing.gpus, float(memory.sum())
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(Dealing(dealing.problem, dealing.types), middle) else (middle, high)
    return fits(dealing, high)


def rendezvous_order(name: str, gpus: int) -> list[int]:
    """GPUs by falling hash of (name, GPU): highest random weight (Thaler & Ravishankar 1998)."""

    def weight(gpu: int) -> bytes:
        return hashlib.blake2b(f"{name}/{gpu}".encode(), digest_size=8).digest()

    return sorted(range(gpus), key=weight, reverse=True)


def rendezvous(dealing: Dealing, rng: np.random.Generator) -> bool:
    """Rendezvous hashing, as NVIDIA Dynamo's `hrw`: an adapter's replicas go to its first GPUs by hash."""

    def first(unit: Unit, open_: list[int]) -> int:
        order = rendezvous_order(dealing.problem.items[unit.items[0]].adapter_id, dealing.gpus)
        return min(open_, key=order.index)

    return dealing.deal(dealing.units, first)


def flow(dealing: Dealing, rng: np.random.Generator) -> bool:
    """Min-cost flow, as NVIDIA Dynamo's `mcf`; adapters are now where rendezvous hashing has put them."""
    names = {int(a): dealing.problem.items[i].adapter_id for i, a in enumerate(dealing.problem.item_adapter)}
    return min_cost_flow(dealing, {a: rendezvous_order(name, dealing.gpus) for a, name in names.items()})


def melange(dealing: Dealing, rng: np.random.Generator) -> bool:
    """Mélange's fleet (`melange_fleet`), the load of an adapter being its share of a GPU, dealt evenly."""
    problem = dealing.problem
    shares = np.array([share_of_gpu(problem, t) for t in range(len(problem.gpu_types))])
    return least_loaded(dealing, shares.min(axis=0))


def cheapest_fleet(problem: PlacementProblem, gpus: int) -> list[int] | None:
    """Type of each of so many GPUs, the cheapest types first; None beyond the stock."""
    order = sorted(range(len(problem.gpu_types)), key=lambda t: problem.context.price[problem.gpu_types[t]])
    types = [t for t in order for _ in range(min(gpus, int(problem.stock[t])))]
    return types[:gpus] if len(types) >= gpus else None


def split_by_load(problem: PlacementProblem, gpus: int) -> PlacementProblem:
    """The problem with replicas in proportion to load, as Dynamo's `hrw`: ceil(share of all tokens x GPUs) of each
    adapter, at least as many as it has. Features are divided alike: only the planning model's verdict depends on it."""
    tokens = token_rates(problem)
    of_adapter = np.bincount(problem.item_adapter, weights=tokens)
    now = np.bincount(problem.item_adapter)
    wanted = np.maximum(np.ceil(gpus * of_adapter / of_adapter.sum() - 1e-9).astype(int), 1)
    parts = np.minimum(-(-wanted // now), gpus // now)[problem.item_adapter]
    parts[[pinned_to_one(a, problem.gpu_types) for a in problem.items]] = 1
    parts = np.maximum(parts, 1)
    items = [
        a if m == 1 else a.scaled(1 / m) for a, m in zip(problem.items, parts.tolist(), strict=True) for _ in range(m)
    ]
    return replace(
        problem,
        items=tuple(items),
        item_adapter=np.repeat(problem.item_adapter, parts),
        item_share=np.repeat(problem.item_share / parts, parts),
        phi=np.repeat(problem.phi / parts[:, None], parts, axis=0),
        allowed=np.repeat(problem.allowed, parts, axis=0),
        banned=(),
    )


@dataclass(frozen=True, slots=True)
class Baseline:
    """A way to place.

    Args:
        deal: fills a dealing; False = it cannot.
        fleet: GPU types of so many GPUs.
        replicas: whether hot adapters are split in proportion to load.
        settings: where those of the GPUs come from (`Dealing.placement`).
    """

    deal: Callable[[Dealing, np.random.Generator], bool]
    fleet: Callable[[PlacementProblem, int], list[int] | None] = cheapest_fleet
    replicas: bool = False
    settings: Settings = "operator"


BASELINES: dict[str, Baseline] = {
    "least adapters": Baseline(least_adapters),
    "round robin": Baseline(round_robin),
    "random": Baseline(random_hosts),
    "rank blocks": Baseline(rank_blocks),
    "LPT": Baseline(lpt),
    "first fit": Baseline(first_fit_decreasing),
    "rendezvous": Baseline(rendezvous, replicas=True),
    "min-cost flow": Baseline(flow),
    "dLoRA": Baseline(dlora),
    "Mélange": Baseline(melange, melange_fleet),
    "round robin, one template": Baseline(round_robin, settings="template"),
    "LPT, one template": Baseline(lpt, settings="template"),
    "LPT, settings of the model": Baseline(lpt, settings="model"),
    "rank blocks, settings of the model": Baseline(rank_blocks, settings="model"),
}


def place(problem: PlacementProblem, baseline: Baseline, gpus: int, seed: int = 0) -> Planned | None:
    """A placement on so many GPUs; None where the baseline has none. It may break rules of the planning model."""
    posed = split_by_load(problem, gpus) if baseline.replicas else problem
    types = baseline.fleet(posed, gpus)
    if types is None:
        return None
    dealing = Dealing(posed, types)
    if not baseline.deal(dealing, np.random.default_rng(seed)):
        return None
    placement = dealing.placement(baseline.settings)
    return None if placement is None else Planned(posed, placement)


def by_the_planning_model(planned: Planned) -> bool:
    """Whether the planning model accepts a placement."""
    return not violations(planned.problem, planned.placement)


def smallest(
    problem: PlacementProblem,
    baseline: Baseline,
    start: int,
    most: int,
    accepts: Callable[[Planned], bool] = by_the_planning_model,
    seed: int = 0,
) -> Planned | None:
    """The placement on the fewest GPUs, `start` to `most`, that is accepted; None if none is."""
    for gpus in range(start, most + 1):
        planned = place(problem, baseline, gpus, seed)
        if planned is not None and accepts(planned):
            return planned
    return None
