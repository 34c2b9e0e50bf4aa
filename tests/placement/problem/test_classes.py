"""Classes lose nothing in total, keep apart what differs, and stay few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from placement.problem.classes import item_classes, split_classes
from tests.placement.known import tiny
from tests.placement.synthetic import adapter, power_law, problem


def test_class_totals_are_exact() -> None:
    p = problem(power_law(300))
    classes = item_classes(p)
    np.testing.assert_allclose(classes.size @ classes.phi, p.phi.sum(axis=0), rtol=1e-12)
    assert sorted(np.concatenate(classes.members).tolist()) == list(range(300))
    assert all((classes.class_of[m] == k).all() for k, m in enumerate(classes.members))


def test_published_shapes_give_one_class_per_rate_and_rank() -> None:
    adapters = [adapter(f"a{i}", (0.4, 0.2, 0.1)[i % 3], (8, 16, 32)[i // 3 % 3]) for i in range(384)]
    classes = item_classes(problem(adapters))
    assert len(classes) == 9
    assert classes.exact


def test_ten_thousand_adapters_stay_below_a_hundred_classes() -> None:
    p = problem(power_law(10_000))
    classes = item_classes(p)
    assert len(classes) <= 100
    # heavy adapters are told apart best: the hottest class is narrow
    rates = p.phi[classes.members[int(classes.class_of[0])], 0]
    assert rates.max() / rates.min() <= 1.3


def test_members_may_run_under_the_same_options() -> None:
    p = problem(power_law(200))
    classes = item_classes(p, max_classes=1)
    assert all((p.allowed[m] == classes.allowed[k]).all() for k, m in enumerate(classes.members))


def test_replicas_of_one_adapter_are_limited_to_one_per_gpu() -> None:
    p = problem([adapter("hot", 30.0), adapter("warm", 30.0), adapter("cold", 1.0)], shares={"hot": 3, "warm": 3})
    classes = item_classes(p)
    hot = int(classes.class_of[0])
    assert classes.size[hot] == 6
    assert classes.most_per_gpu[hot] == 2


def test_pins_are_kept_apart_and_gpu_type_names_are_no_pins() -> None:
    assert set(item_classes(tiny("pins", "gpu_count")).pinned) == {None, "left", "right"}
    p = problem(power_law(4))
    to_type = replace(p, items=tuple(replace(a, pinned_gpu="gpu") for a in p.items))
    assert set(item_classes(to_type).pinned) == {None}


def test_splitting_by_labels_cuts_only_the_chosen_classes() -> None:
    p = problem(power_law(60))
    classes = item_classes(p, max_classes=4)
    widest = int(np.argmax(classes.size))
    finer = split_classes(p, classes, np.arange(60) % 2, np.array([widest]))
    assert len(finer) == len(classes) + 1
    np.testing.assert_allclose(finer.size @ finer.phi, p.phi.sum(axis=0))
