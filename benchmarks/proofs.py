"""Random tiny problems, on which every proof is compared with brute force. Used by `benchmarks.trust part=proofs`.

Fleets are tight: stock and `max_gpus` near to what is needed, pins, replicas, caps on adapters, facets that speak of
the mix of requests. Classes hold items that are nearly alike, which is where the means of a class prove what is not
true of its members.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from placement.pipeline.clock import Clock
from placement.pipeline.proofs import refuse_impossible
from placement.problem.objectives import GpuCount, MeanE2E
from placement.problem.problem import ObjectiveContext, PlacementProblem, Term
from placement.problem.solver import Solver
from placement.solvers.aggregate import Aggregate
from placement.solvers.bounds import certified_minimum, prove_bound
from placement.solvers.capabilities import unsupported
from placement.solvers.cpsat import CpSat
from placement.solvers.explain import miscount
from placement.solvers.greedy import Greedy
from placement.solvers.greedy_published import GreedyPublished
from placement.solvers.milp import MilpSolver
from surrogates.model.planning import HingeLoad, OptionModel, Polyhedron
from tests.placement.brute_force import optimum
from twin.errors import InfeasibleError
from twin.server.settings import EngineSetting
from twin.workload.adapter import Adapter, Lengths

#: Bounds may be above the optimum by this share: `violations` allows as much.
TOLERANCE = 1e-6
TIME_LIMIT_S = 5.0
SOLVERS: dict[str, Solver] = {
    "greedy": Greedy(), "greedy_published": GreedyPublished(), "milp": MilpSolver(), "cpsat": CpSat(effort=0.1)
}  # fmt: skip
TERMS: dict[str, tuple[Term, ...]] = {
    "gpu_count": (GpuCount(),), "latency": (MeanE2E(),), "weighted": (GpuCount(), MeanE2E(weight=0.5)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instance:
    """A problem, and its least objective by brute force; None = infeasible."""

    seed: int
    problem: PlacementProblem
    best: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """A proof that brute force refutes.

    Args:
        kind: `false_infeasible` or `bound_above_optimum`. source: who said so.
    """

    seed: int
    kind: str
    source: str
    said: float
    best: float


def instances(seeds: range) -> Iterator[Instance]:
    for seed in seeds:
        problem = random_problem(seed)
        yield Instance(seed, problem, optimum(problem))


def random_problem(seed: int) -> PlacementProblem:
    """Up to five items on a fleet that may be too small."""
    rng = np.random.default_rng(seed)
    types = ("a", "b")[: 1 + int(rng.random() < 0.4)]
    options = tuple(
        _option(rng, t, slots) for t in types for slots in rng.choice([2, 4, 8], 1 + int(rng.random() < 0.6), False)
    )
    adapters, count = [], int(rng.integers(2, 5))
    base, tokens = rng.uniform(0.2, 0.8), float(rng.choice([80, 100, 200]))
    for i in range(count):
        # nearly alike, so that they share a class, or not
        near = rng.random() < 0.7
        rate = base * float(rng.uniform(0.9, 1.1) if near else rng.uniform(0.2, 1.5))
        output = tokens * float(rng.uniform(1.0, 1.24) if near else rng.uniform(0.3, 3.0))
        pin = ["x", "y", types[0]][int(rng.integers(3))] if rng.random() < 0.2 else None
        rank = int(rng.choice([0, 8, 8, 16]))
        adapters.append(Adapter(f"a{i}", rank, rate, Lengths(100, 1.1), Lengths(output, 1.1), pinned_gpu=pin))
    shares = np.where(rng.random(count) < 0.2, 2, 1)
    shares = np.where([a.pinned_gpu in ("x", "y") for a in adapters], 1, shares)
    if shares.sum() > 5:
        shares[:] = 1
    items = tuple(a.scaled(1 / m) for a, m in zip(adapters, shares.tolist(), strict=True) for _ in range(m))
    owner = np.repeat(np.arange(count), shares)
    phi = _features(items)
    if len(options) > 1 and rng.random() < 0.3:
        options = _divided(options, phi)
    allowed = np.array(
        [
            [
                a.rank <= o.setting.max_lora_rank and a.pinned_gpu in (None, "x", "y", o.setting.gpu_type)
                for o in options
            ]
            for a in items
        ]
    )
    # promises of single adapters that some settings cannot keep
    kept = (rng.random((count, len(options))) > 0.1)[owner]
    allowed = np.where((allowed & kept).any(axis=1, keepdims=True), allowed & kept, allowed)
    return PlacementProblem(
        items=items, item_adapter=owner, item_share=1.0 / shares[owner], phi=phi, options=options, allowed=allowed,
        option_type=np.array([types.index(o.setting.gpu_type) for o in options]), gpu_types=types,
        stock=np.array([int(rng.choice([1, 2, 3, 10])) for _ in types]),
        max_gpus=int(rng.integers(1, 5)) if rng.random() < 0.5 else None,
        terms=TERMS[str(rng.choice(list(TERMS)))],
        context=ObjectiveContext(
            sum(a.rate_req_per_s for a in adapters), sum(a.rate_req_per_s * a.output_tokens.mean for a in adapters),
            {t: float(rng.choice([1.0, 1.0, 1.7])) for t in types},
        ),
    )  # fmt: skip


def _features(items: tuple[Adapter, ...]) -> np.ndarray:
    """Rate, tokens/s over 100, slots."""
    return np.array([(a.rate_req_per_s, a.rate_req_per_s * a.output_tokens.mean / 100.0, a.rank > 0) for a in items])


def _option(rng: np.random.Generator, gpu_type: str, slots: int) -> OptionModel:
    speed = float(rng.uniform(0.8, 1.4))
    rows, limits = [[0.3, 0.5, 0.0], [0.0, 0.7, 0.1]], [-speed, -1.2 * speed]
    if rng.random() < 0.3:  # a promise on the mix: tokens of a request at most so many
        rows.append([-float(rng.uniform(1.0, 2.5)), 1.0, 0.0])
        limits.append(0.0)
    facets = Polyhedron(np.array(rows), np.array(limits))
    load = HingeLoad(np.array([[0.3, 0.5, 0.0]]), np.array([-0.5]), np.array([3.0]), np.array([0.5, 1.0, 0.02]), 0.1)
    none = Polyhedron(np.zeros((0, 3)), np.zeros(0))
    setting = EngineSetting(gpu_type=gpu_type, max_loras=int(slots), max_lora_rank=int(rng.choice([8, 16, 16])))
    return OptionModel(setting, facets, facets, none, load, load, int(rng.choice([1, 2, 3, 8])))


def _divided(options: tuple[OptionModel, ...], phi: np.ndarray) -> tuple[OptionModel, ...]:
    """The first option takes requests up to the shortest answer, the second those from the longest on.

    The mean of a class fits neither.
    """
    tokens = phi[:, 1] / phi[:, 0]
    rows = ([-float(tokens.min()) * (1 + 1e-9), 1.0, 0.0], [float(tokens.max()) * (1 - 1e-9), -1.0, 0.0])
    divided = []
    for option, row in zip(options, rows, strict=False):
        facets = Polyhedron(np.vstack([option.feasible.G, row]), np.append(option.feasible.g, 0.0))
        divided.append(replace(option, feasible=facets, outer=facets))
    return (*divided, *options[2:])


def findings(instance: Instance, solvers: Sequence[str] = tuple(SOLVERS)) -> Iterator[Finding]:
    """What is claimed of an instance and is not true.

    Args:
        solvers: of `SOLVERS`, whose reports are looked at, before bounds are clipped to the objective.
    """
    problem, best = instance.problem, instance.best

    def wrong(kind: str, source: str, said: float) -> Finding:
        return Finding(instance.seed, kind, source, said, np.nan if best is None else best)

    def above(bound: float | None) -> bool:
        return bound is not None and best is not None and bound > best + TOLERANCE * max(abs(best), 1.0)

    for name in solvers:
        solver = SOLVERS[name]
        if unsupported(problem, solver.capabilities):
            continue
        report = solver.solve(problem, time_limit_s=TIME_LIMIT_S)
        if report.status == "infeasible" and best is not None:
            yield wrong("false_infeasible", name, np.nan)
        unclipped = report.details.get("proven", report.bound)
        if above(None if unclipped is None else float(unclipped)):
            assert unclipped is not None
            yield wrong("bound_above_optimum", name, float(unclipped))
    yield from (wrong(*found) for found in _proofs(problem, best is not None) if found[0] == "false_infeasible")
    bound = prove_bound(problem, TIME_LIMIT_S, refinements=2)
    if above(bound):
        assert bound is not None
        yield wrong("bound_above_optimum", "prove_bound", bound)
    if best is not None:
        counted = replace(problem, terms=(GpuCount(),), max_gpus=None)
        same_price = replace(counted.context, price=dict.fromkeys(problem.gpu_types, 1.0))
        fewest, least = certified_minimum(problem, TIME_LIMIT_S), optimum(replace(counted, context=same_price))
        if fewest is not None and least is not None and fewest > least + TOLERANCE:
            yield Finding(instance.seed, "bound_above_optimum", "certified_minimum", fewest, least)


def _proofs(problem: PlacementProblem, feasible: bool) -> Iterator[tuple[str, str, float]]:
    """Who says that there is no placement, although there is one."""
    if not feasible:
        return
    share, proven = Aggregate(problem).carried_share(TIME_LIMIT_S)
    if proven:
        yield "false_infeasible", "carried_share", share
    if miscount(problem) is not None:
        yield "false_infeasible", "miscount", np.nan
    try:
        refuse_impossible(problem, Clock(TIME_LIMIT_S))
    except InfeasibleError:
        yield "false_infeasible", "refuse_impossible", np.nan
