"""Baselines that are programs: min-cost flow, the integer programs of dLoRA and Mélange, all solved by OR-Tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow
from ortools.sat.python import cp_model

from benchmarks.dealing import Array, Dealing, Unit, token_rates
from placement.problem.problem import PlacementProblem

#: Weights of the min-cost flow: for being off the present GPU and for a full GPU (the example in Dynamo's
#: documentation), and for each place down in the hash order (ours).
KEEP, LOAD, PREFERENCE = 500, 2000, 10
#: GPUs in an adapter's hash order that it may go to.
CANDIDATES = 16
#: Loads as whole numbers: parts of the total.
PARTS = 1_000_000
#: Work of CP-SAT, in its deterministic seconds, and the gap at which it stops.
EFFORT, GAP = 2.0, 1e-3


def min_cost_flow(dealing: Dealing, orders: Mapping[int, Sequence[int]]) -> bool:
    """Adapters flow to GPUs at least cost: off the present GPU, down in the hash order, onto a full GPU.

    Theirs (NVIDIA Dynamo, `mcf`): the network, the candidates by hash, weights for keeping and for load. Simplified:
    one run, in which the present GPUs are the first ones by hash; fullness is a convex cost of the number of adapters
    on a GPU, relative to the even split; a GPU has the slots of its largest setting, or those of the even split.

    Args:
        orders: GPUs of each adapter (index as in `item_adapter`) in its hash order.
    """
    problem, gpus = dealing.problem, dealing.gpus
    pinned = [u for u in dealing.units if u.pin >= 0]
    if not dealing.deal(pinned, lambda u, open_: min(open_, key=orders[int(problem.item_adapter[u.items[0]])].index)):
        return False
    free: dict[int, list[int]] = {}
    for unit in (u for u in dealing.units if u.pin < 0):
        free.setdefault(int(problem.item_adapter[unit.items[0]]), []).append(unit.items[0])
    total = sum(map(len, free.values()))
    if not total:
        return True
    even = -(-total // gpus)
    slots = [
        max(even, *(problem.options[o].setting.max_loras for o in np.flatnonzero(problem.option_type == t)))
        for t in dealing.types
    ]
    network = SimpleMinCostFlow()
    source, first_gpu, sink = 0, 1 + len(free), 1 + len(free) + gpus
    choices: list[tuple[int, int, int]] = []
    for node, (adapter, items) in enumerate(free.items(), start=1):
        network.add_arc_with_capacity_and_unit_cost(source, node, len(items), 0)
        order = [g for g in orders[adapter] if g in dealing.open_to(Unit((items[0],), -1))]
        for place, g in enumerate(order[: max(CANDIDATES, len(items))]):
            cost = PREFERENCE * place + (0 if place < len(items) else KEEP)
            choices.append((network.add_arc_with_capacity_and_unit_cost(node, first_gpu + g, 1, cost), adapter, g))
    for g in range(gpus):
        for k in range(len(dealing.members[g]), slots[g]):
            network.add_arc_with_capacity_and_unit_cost(first_gpu + g, sink, 1, LOAD * k // even)
    network.set_node_supply(source, total)
    network.set_node_supply(sink, -total)
    if network.solve() != network.OPTIMAL:
        return False
    for arc, adapter, g in choices:
        if network.flow(arc):
            dealing.put(Unit((free[adapter].pop(),), -1), g)
    return True


def dlora(dealing: Dealing, rng: np.random.Generator) -> bool:
    r"""The integer program of dLoRA (Wu et al., OSDI 2024): the largest load of a GPU is as small as memory allows.

    $\min T$ subject to $\sum_g x_{ig} = 1$, $\sum_i l_i x_{ig} \le T$, $\sum_i m_i x_{ig} \le M_g$, $x$ binary.

    Theirs: balance of load over replicas of the base model, adapters' memory as the constraint. Simplified: placed once
    for known rates; the load $l$ is the token rate instead of a measured running time; running requests are not
    migrated; memory $m$ is the rank, and $M$ the largest `max_loras x max_lora_rank` that starts. CP-SAT begins with
    the deal by falling load and stops at a gap of 0.1 % or at a fixed effort.
    """
    problem, units = dealing.problem, dealing.units
    tokens = token_rates(problem)
    load = [round(PARTS * float(tokens[list(u.items)].sum() / tokens.sum())) for u in units]
    memory = [sum(problem.items[i].rank for i in u.items) for u in units]
    model = cp_model.CpModel()
    largest = model.new_int_var(0, sum(load), "largest")
    x = [{g: model.new_bool_var("") for g in dealing.open_to(u)} for u in units]
    if not all(x):
        return False
    for of_unit in x:
        model.add_exactly_one(of_unit.values())
    for g, t in enumerate(dealing.types):
        here = [(k, of_unit[g]) for k, of_unit in enumerate(x) if g in of_unit]
        settings = [problem.options[o].setting for o in np.flatnonzero(problem.option_type == t)]
        model.add(sum(load[k] * v for k, v in here) <= largest)
        model.add(sum(memory[k] * v for k, v in here) <= max(s.max_loras * s.max_lora_rank for s in settings))
        # Pins apart, replicas apart.
        model.add_at_most_one(v for k, v in here if units[k].pin >= 0)
        replicas: dict[int, list[cp_model.IntVar]] = {}
        for k, v in here:
            for i in units[k].items:
                replicas.setdefault(int(problem.item_adapter[i]), []).append(v)
        for same in (same for same in replicas.values() if len(same) > 1):
            model.add_at_most_one(same)
    model.minimize(largest)
    _hint(model, dealing, x, load)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_deterministic_time = EFFORT
    solver.parameters.relative_gap_limit = GAP
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return False
    for unit, of_unit in zip(units, x, strict=True):
        dealing.put(unit, next(g for g, v in of_unit.items() if solver.boolean_value(v)))
    return True


def _hint(
    model: cp_model.CpModel, dealing: Dealing, x: Sequence[Mapping[int, cp_model.IntVar]], load: Sequence[int]
) -> None:
    """Starts from the deal by falling load."""
    trial, index = Dealing(dealing.problem, dealing.types), {u: k for k, u in enumerate(dealing.units)}
    carried = [0] * dealing.gpus
    for unit in sorted(dealing.units, key=lambda u: (u.pin < 0, -load[index[u]])):
        candidates = trial.open_to(unit)
        if not candidates:
            return
        gpu = min(candidates, key=carried.__getitem__)
        trial.put(unit, gpu)
        carried[gpu] += load[index[unit]]
        for g, variable in x[index[unit]].items():
            model.add_hint(variable, g == gpu)


def share_of_gpu(problem: PlacementProblem, gpu_type: int) -> Array:
    """Load of each item on a GPU type, (N,): its traffic / the most of the same traffic alone on a GPU, under the
    best setting; inf where no setting of the type is allowed. The planning model stands for Mélange's profiles."""
    shares = np.full(len(problem.items), np.inf)
    for o in np.flatnonzero(problem.option_type == gpu_type).tolist():
        facets = problem.options[o].feasible
        bounded = facets.g < 0
        used = (problem.phi @ facets.G[bounded].T / -facets.g[bounded]).max(axis=1, initial=0.0)
        shares = np.where(problem.allowed[:, o], np.minimum(shares, used), shares)
    return shares


def melange_fleet(problem: PlacementProblem, gpus: int) -> list[int] | None:
    r"""GPU types by the integer program of Mélange (Griggs et al., arXiv 2404.14527): the cheapest bins for the load.

    $\min \sum_t c_t B_t$ subject to $\sum_t A_{it} = 1$, $\sum_i l_{it} A_{it} \le B_t$, $A$ binary, $B$ whole.

    Theirs: slices of load by request size, the load of a slice on a GPU type being its rate / the type's largest
    throughput for that size, price as the objective. Simplified: a slice is an item; the throughput comes from the
    planning model; the number of bins is given, so that fleets of one size are compared; None where the load does
    not fit. Their program knows neither slots nor ranks, and gives loads to types, not adapters to GPUs.
    """
    types = range(len(problem.gpu_types))
    shares = np.array([share_of_gpu(problem, t) for t in types])
    model = cp_model.CpModel()
    bins = [model.new_int_var(0, min(gpus, int(problem.stock[t])), "") for t in types]
    model.add(sum(bins) == gpus)
    x = [{t: model.new_bool_var("") for t in types if np.isfinite(shares[t, i])} for i in range(len(problem.items))]
    if not all(x):
        return None
    for of_item in x:
        model.add_exactly_one(of_item.values())
    for t in types:
        here = ((round(PARTS * float(shares[t, i])), v[t]) for i, v in enumerate(x) if t in v)
        model.add(sum(own * v for own, v in here) <= PARTS * bins[t])
    price = [round(10_000 * problem.context.price[name]) for name in problem.gpu_types]
    model.minimize(sum(p * b for p, b in zip(price, bins, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_deterministic_time = EFFORT
    solver.parameters.relative_gap_limit = GAP
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return [t for t in types for _ in range(solver.value(bins[t]))]
