"""A price list never exceeds the optimum, and can be checked by anyone in exact arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from placement.problem.classes import item_classes
from placement.problem.problem import PlacementProblem
from placement.problem.rows import column_rows
from placement.solvers.aggregate import Aggregate
from placement.solvers.certificate import (
    Certificate,
    certificate_from_dict,
    certifies,
    cleaned,
    exact_bound,
    item_prices,
    price_list_bound,
    rounded_bound,
)
from tests.placement.brute_force import optimum
from tests.placement.known import SMALL_OPTIONS, TERMS, TINY, tiny
from tests.placement.synthetic import LATENCY, WEIGHTED, adapter, power_law, problem

RELATIVE = 1e-9


def random_multipliers(p: PlacementProblem, seed: int) -> Certificate:
    """Any multipliers of the right signs; most are bad, none may be wrong."""
    rng = np.random.default_rng(seed)
    rows, classes = column_rows(p), item_classes(p)
    size = float(rng.choice([0.01, 0.3, 1.0, 3.0]))
    return Certificate(
        mu=size * rng.random(rows.h.shape) * (rows.kind != 0) * (rng.random(rows.h.shape) < 0.5),
        lam=rows.v * rng.random(rows.v.shape),
        nu=size * rng.random((len(classes), len(p.options))) * (rng.random((len(classes), len(p.options))) < 0.3),
        sigma=size * rng.random(len(p.stock)),
        sigma_total=float(size * rng.random()),
        class_of=classes.class_of,
    )


@settings(max_examples=40)
@given(
    rates=st.lists(st.floats(0.1, 15.0), min_size=1, max_size=5),
    ranks=st.lists(st.sampled_from([0, 8, 32]), min_size=5, max_size=5),
    terms=st.sampled_from(["gpu_count", "latency", "itl", "weighted"]),
    fleet=st.integers(2, 5),
    seed=st.integers(0, 10**6),
)
def test_no_multipliers_give_a_bound_above_the_optimum(
    rates: list[float], ranks: list[int], terms: str, fleet: int, seed: int
) -> None:
    adapters = [adapter(f"a{i}", r, k) for i, (r, k) in enumerate(zip(rates, ranks, strict=False))]
    p = problem(adapters, options=SMALL_OPTIONS, terms=TERMS[terms], max_gpus=fleet)
    best = optimum(p)
    if best is None:
        return
    rows = column_rows(p)
    anything = random_multipliers(p, seed)
    for certificate in (anything, cleaned(p, rows, anything)):
        assert price_list_bound(p, rows, certificate) <= best + RELATIVE * abs(best)
    aggregate = Aggregate(p)
    aggregate.prove(10.0)
    assert aggregate.bound is not None
    assert aggregate.bound <= best + 1e-7


@pytest.mark.parametrize("terms", ["gpu_count", "latency", "weighted"])
@pytest.mark.parametrize("name", TINY)
def test_exact_arithmetic_agrees_with_floating_point(name: str, terms: str) -> None:
    p = tiny(name, terms)
    aggregate = Aggregate(p)
    aggregate.prove(10.0)
    assert aggregate.certificate is not None
    exact = exact_bound(p, aggregate.certificate)
    assert isinstance(exact, Fraction)
    assert float(exact) == pytest.approx(price_list_bound(p, aggregate.rows, aggregate.certificate), rel=1e-9)
    stored = certificate_from_dict(json.loads(json.dumps(aggregate.certificate.to_dict())))
    assert exact_bound(p, stored) == exact


@pytest.mark.parametrize("terms", [TERMS["gpu_count"], LATENCY, WEIGHTED], ids=["gpu_count", "latency", "weighted"])
def test_the_lp_bound_is_certified_and_more_is_not(terms: tuple) -> None:  # type: ignore[type-arg]
    p = problem(power_law(120), terms=terms, max_gpus=8)
    aggregate = Aggregate(p)
    aggregate.prove(10.0)
    assert aggregate.certificate is not None and aggregate.bound is not None
    assert aggregate.bound > 0
    assert certifies(p, aggregate.certificate, aggregate.bound)
    assert not certifies(p, aggregate.certificate, aggregate.bound * 1.001 + 1e-6)


def test_prices_of_individuals_add_up_to_the_bound() -> None:
    p = problem(power_law(120))
    aggregate = Aggregate(p)
    aggregate.prove(10.0)
    assert aggregate.certificate is not None
    prices = item_prices(aggregate.rows, aggregate.certificate, p.allowed)
    assert prices.sum() == pytest.approx(aggregate.price_list)
    assert prices[0] > prices[-1] > 0  # the hottest adapter is worth most


def test_refining_classes_never_lowers_the_bound() -> None:
    p = problem(power_law(200), terms=WEIGHTED, max_gpus=8)
    aggregate = Aggregate(p, item_classes(p, max_classes=3))
    aggregate.prove(10.0, refinements=0)
    coarse = aggregate.bound
    aggregate.refine(10.0, rounds=3)
    assert coarse is not None and aggregate.bound is not None
    assert aggregate.bound > coarse
    assert aggregate.bound <= aggregate.lp_value * (1 + 1e-9)


def test_tampered_certificates_prove_nothing() -> None:
    p = tiny("six adapters", "latency")
    aggregate = Aggregate(p)
    aggregate.prove(10.0)
    good = aggregate.certificate
    assert good is not None
    for bad, words in (
        (replace(good, mu=good.mu - 1.0), "mu"),
        (replace(good, sigma_total=-1.0), "sigma_total"),
        (replace(good, lam=good.lam + 10 * aggregate.rows.v + 1.0), "lam"),
        (replace(good, mu=good.mu[:, :-1]), "shape"),
    ):
        with pytest.raises(ValueError, match=words):
            exact_bound(p, bad)


def test_only_equal_prices_are_rounded_up() -> None:
    counted, priced = tiny("six adapters", "gpu_count"), tiny("two GPU types", "gpu_count")
    assert rounded_bound(column_rows(counted), 2.2) == 3.0
    assert rounded_bound(column_rows(counted), 2.0000000001) == 2.0
    assert rounded_bound(column_rows(priced), 2.2) == 2.2
