"""What operators do today, as baselines: every adapter once, pins and replicas obeyed, each true to its name."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.baselines import (
    BASELINES,
    Planned,
    place,
    reckoned_memory,
    rendezvous_order,
    smallest,
    split_by_load,
)
from benchmarks.dealing import Dealing, operator_option, token_rates
from benchmarks.judging import accepted, judged
from placement.problem.problem import PlacementProblem, violations
from placement.verify.verifier import TwinVerifier
from tests.placement.synthetic import adapter, option, power_law, problem
from twin.figures.health import Stable
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting

NAMES = sorted(BASELINES)


@pytest.fixture(scope="module")
def mixed() -> PlacementProblem:
    """Forty adapters of three ranks, two of them in three replicas each, three pinned to two GPUs."""
    adapters = power_law(40, total=30.0)
    adapters[5] = replace(adapters[5], pinned_gpu="left")
    adapters[6] = replace(adapters[6], pinned_gpu="left")
    adapters[7] = replace(adapters[7], pinned_gpu="right")
    return problem(adapters, shares={adapters[0].adapter_id: 3, adapters[1].adapter_id: 3})


def loads(planned: Planned) -> np.ndarray:
    tokens = token_rates(planned.problem)
    return np.array([tokens[list(g.items)].sum() for g in planned.placement.gpus])


def planned_by(name: str, posed: PlacementProblem, gpus: int) -> Planned:
    found = place(posed, BASELINES[name], gpus)
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_pins_replicas_and_ranks_are_obeyed(name: str, mixed: PlacementProblem) -> None:
    planned = planned_by(name, mixed, 4)
    broken = violations(planned.problem, planned.placement)
    assert [b for b in broken if "planning model" not in b] == []
    assert len(planned.placement.gpus) <= 4
    served = sum(c.rate_req_per_s for c in planned.placement.columns(planned.problem))
    assert served == pytest.approx(sum(a.rate_req_per_s for a in mixed.items))


@pytest.mark.parametrize("name", NAMES)
def test_more_pins_or_replicas_than_gpus_have_no_placement(name: str, mixed: PlacementProblem) -> None:
    assert place(mixed, BASELINES[name], 1) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_same_every_time(name: str, mixed: PlacementProblem) -> None:
    assert planned_by(name, mixed, 4).placement == planned_by(name, mixed, 4).placement


def test_operators_take_the_smallest_setting_that_holds_the_members() -> None:
    posed = problem([adapter(f"a{i}", 0.1, rank=(8, 16)[i % 2]) for i in range(200)])

    def chosen(items: list[int]) -> str:
        found = operator_option(posed, items, 0)
        assert found is not None
        return posed.options[found].setting.label

    assert chosen([0, 2, 4]) == "8x8"
    assert chosen([0, 1]) == "8x32"
    assert chosen(list(range(9))) == "32x32"
    assert chosen(list(range(200))) == "96x32", "the largest where none holds all"
    assert operator_option(posed, [0], 1) is None


def test_one_template_serves_every_gpu() -> None:
    posed = problem(power_law(60, total=30.0))
    settings = {posed.options[g.option].setting.label for g in planned_by("LPT, one template", posed, 4).placement.gpus}
    assert settings == {"96x32"}


def test_settings_of_the_model_leave_most_room() -> None:
    """Thirty adapters that hardly send need no slots of their own; slots for all cost the ten hot ones throughput."""
    posed = problem([*(adapter(f"hot{i}", 1.5) for i in range(10)), *(adapter(f"a{i}", 0.001) for i in range(30))])
    operator, model = (planned_by(name, posed, 1).placement for name in ("LPT", "LPT, settings of the model"))
    assert [g.items for g in operator.gpus] == [g.items for g in model.gpus]

    def excess(option: int, items: tuple[int, ...]) -> float:
        return float(posed.options[option].violation(posed.phi[list(items)].sum(axis=0)[None])[0])

    for ours, theirs in zip(model.gpus, operator.gpus, strict=True):
        assert excess(ours.option, ours.items) <= excess(theirs.option, theirs.items)
    assert [posed.options[p.gpus[0].option].setting.label for p in (operator, model)] == ["96x8", "32x8"]


def test_counts_are_even_where_adapters_are_counted() -> None:
    posed = problem(power_law(41, total=30.0))
    for name in ("least adapters", "round robin", "round robin, one template"):
        sizes = sorted(len(g.items) for g in planned_by(name, posed, 4).placement.gpus)
        assert sizes == [10, 10, 10, 11], name


def test_loads_are_even_where_load_is_dealt() -> None:
    posed = problem(power_law(40, total=30.0))
    spread = {name: float(np.ptp(loads(planned_by(name, posed, 4)))) for name in NAMES}
    largest = {name: float(loads(planned_by(name, posed, 4)).max()) for name in NAMES}
    assert largest["dLoRA"] == min(largest.values())
    assert spread["LPT"] < spread["least adapters"]
    assert spread["Mélange"] < spread["random"]


def test_rank_blocks_are_contiguous() -> None:
    posed = problem(power_law(60, total=30.0))
    gpus = planned_by("rank blocks", posed, 4).placement.gpus
    ranks = [sorted({posed.items[i].rank for i in g.items}) for g in gpus]
    assert all(a[-1] <= b[0] for a, b in pairwise(ranks))
    assert posed.options[gpus[0].option].setting.max_lora_rank == 8


def test_first_fit_is_even_in_memory() -> None:
    posed = problem(power_law(60, total=30.0))
    used = [reckoned_memory(posed)[list(g.items)].sum() for g in planned_by("first fit", posed, 4).placement.gpus]
    assert max(used) < 1.05 * sum(used) / 4


def test_rendezvous_moves_few_adapters_when_a_gpu_is_added() -> None:
    names = [f"a{i}" for i in range(400)]
    moved = [n for n in names if rendezvous_order(n, 4)[0] != rendezvous_order(n, 5)[0]]
    assert all(rendezvous_order(n, 5)[0] == 4 for n in moved)
    assert 40 < len(moved) < 130


def test_replicas_follow_load() -> None:
    posed = problem([adapter("hot", 6.0), *(adapter(f"a{i}", 0.1) for i in range(40))])
    split = split_by_load(posed, 5)
    assert int((split.item_adapter == 0).sum()) == 3, "6 of 10 requests/s on 5 GPUs"
    assert split.item_share[split.item_adapter == 0].sum() == pytest.approx(1.0)
    assert split.phi.sum(axis=0) == pytest.approx(posed.phi.sum(axis=0))
    pinned = problem([adapter("hot", 6.0), adapter("cold", 0.1)], shares={"hot": 2})
    assert int((split_by_load(pinned, 3).item_adapter == 0).sum()) == 2, "no more replicas than GPUs"


def test_min_cost_flow_evens_out_the_hash() -> None:
    posed = problem([adapter(f"a{i}", 0.1) for i in range(200)])
    sizes = {
        name: [len(g.items) for g in planned_by(name, posed, 5).placement.gpus]
        for name in ("rendezvous", "min-cost flow")
    }
    assert max(sizes["min-cost flow"]) <= max(sizes["rendezvous"])
    here = {i: k for k, g in enumerate(planned_by("min-cost flow", posed, 5).placement.gpus) for i in g.items}
    kept = sum(here[i] == rendezvous_order(posed.items[i].adapter_id, 5)[0] for i in range(200))
    assert kept > 150


def test_melange_takes_the_cheapest_mix_of_types() -> None:
    options = [option(32, 8, "small"), option(32, 8, "large", speed=2.0)]
    adapters = [adapter(f"a{i}", 2.0) for i in range(30)]

    def chosen(large: float, gpus: int) -> list[str]:
        posed = problem(adapters, options=options, price={"small": 1.0, "large": large})
        return sorted(
            posed.gpu_types[posed.option_type[g.option]] for g in planned_by("Mélange", posed, gpus).placement.gpus
        )

    assert chosen(1.5, 2) == ["large", "large"], "the load is more than a large and a small GPU carry"
    assert chosen(1.5, 3) == ["large", "small", "small"]
    assert chosen(3.0, 4) == ["small"] * 4
    cheap_small = problem(adapters, options=options)
    assert place(cheap_small, BASELINES["Mélange"], 1) is None, "the load does not fit"


def test_stock_is_kept() -> None:
    posed = problem(power_law(40, total=10.0), stock={"gpu": 2})
    assert place(posed, BASELINES["LPT"], 2) is not None
    assert place(posed, BASELINES["LPT"], 3) is None


def test_smallest_asks_for_one_more_until_it_is_accepted() -> None:
    posed = problem(power_law(40, total=30.0))
    asked: list[int] = []

    def accepts(planned: Planned) -> bool:
        asked.append(len(planned.placement.gpus))
        return asked[-1] == 4

    found = smallest(posed, BASELINES["LPT"], 2, 6, accepts)
    assert found is not None
    assert asked == [2, 3, 4]
    assert smallest(posed, BASELINES["LPT"], 2, 3, lambda planned: False) is None


def test_judge_sees_a_starved_gpu_and_uses_the_same_hours() -> None:
    calibration = load_calibration("llama-3.1-8b-h100-64gb")
    setting = EngineSetting(calibration.stamp.gpu_type, 8, 8)
    calm = Column(tuple(adapter(f"a{i}", 0.1) for i in range(8)), setting)
    crowd = Column(tuple(adapter(f"b{i}", 2.0) for i in range(40)), setting)
    good = judged([calm], calibration, Stable(), hours=2)
    bad = judged([calm, crowd], calibration, Stable(), hours=2)
    assert good == judged([calm], calibration, Stable(), hours=2)
    assert (good.starved, good.bad_hours, good.gpus) == (False, 0.0, 1)
    assert (bad.starved, bad.bad_hours, bad.gpus) == (True, 1.0, 2)
    assert bad.e2e_s > 10 * good.e2e_s
    verifier = TwinVerifier(threads=2)
    assert not accepted([calm, crowd], calibration, Stable(), verifier)


def test_a_dealing_refuses_a_second_replica() -> None:
    posed = problem([adapter("hot", 1.0), adapter("cold", 0.1)], shares={"hot": 2})
    dealing = Dealing(posed, [0, 0])
    first, second = dealing.units[:2]
    dealing.put(first, 0)
    assert dealing.open_to(second) == [1]
