"""Claims: terms mean what they say; objectives from configuration are checked, named and merged as documented."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings, strategies as st

from placement.config import COMPONENTS
from placement.problem.objectives import (
    GpuCount,
    MeanE2E,
    MeanItl,
    MeanTtft,
    Objective,
    TailE2E,
    objective,
    relaxed_terms,
)
from placement.problem.problem import GpuAssignment, Placement, evaluate
from tests.placement.known import skewed
from twin.config.folder import conf_dir
from twin.config.instantiate import build
from twin.errors import InputError

OBJECTIVES = sorted((conf_dir() / "objective").glob("*.yaml"))
EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


def even(gpus: int) -> tuple[Placement, int]:
    """Items dealt in turn, all GPUs under the setting with most slots."""
    problem = skewed(60)
    option = len(problem.options) - 1
    return Placement(tuple(GpuAssignment(option, tuple(range(g, 60, gpus))) for g in range(gpus))), option


@pytest.mark.parametrize("term", [GpuCount(), MeanE2E(), MeanItl()])
def test_convex_form_equals_cost(term: GpuCount) -> None:
    problem = skewed(60)
    groups = [list(range(n)) for n in range(1, 61)]
    phi = np.cumsum(problem.phi, axis=0)
    for o, option in enumerate(problem.options):
        load = term.convex(option, problem.context)
        columns = problem.columns_of(groups, [o] * 60)
        np.testing.assert_allclose(load(phi), term.cost(columns, problem.context), rtol=1e-12)


def test_means_are_weighted_by_traffic() -> None:
    """Mean E2E over GPUs, weighted by their rates, is the term's value; the same for ITL and output tokens."""
    placement, option = even(3)
    problem = replace(skewed(60), terms=(MeanE2E(), MeanItl(), MeanTtft()))
    phi = placement.features(problem)
    model = problem.options[option]
    rates = np.array([sum(problem.items[i].rate_req_per_s for i in g.items) for g in placement.gpus])
    e2e = model.requests_in_system(phi) / rates
    _, values = evaluate(problem, placement)
    assert values["latency"] == pytest.approx(np.average(e2e, weights=rates))
    # E2E = TTFT + decoding time, and a request decodes for its share of the requests decoding
    decoding_s = model.requests_decoding(phi).sum() / rates.sum()
    assert values["ttft"] == pytest.approx(values["latency"] - decoding_s)
    tokens = problem.context.total_output_tokens_per_s
    assert values["itl"] == pytest.approx(model.requests_decoding(phi).sum() / tokens)


@settings(max_examples=30, deadline=None)
@given(gpus=st.integers(1, 12))
def test_tail_is_never_below_the_mean_that_bounds_it(gpus: int) -> None:
    placement, _ = even(gpus)
    tail = replace(skewed(60), terms=(TailE2E(weight=0.3, scale=2.0),))
    relaxed = replace(tail, terms=relaxed_terms(tail.terms))
    assert relaxed.terms[0].aggregate == "sum"
    assert evaluate(relaxed, placement)[0] <= evaluate(tail, placement)[0] * (1 + 1e-12)


@pytest.mark.parametrize("path", OBJECTIVES, ids=lambda p: p.stem)
def test_every_shipped_objective_builds(path: Path) -> None:
    built = build(yaml.safe_load(path.read_text()), "objective", COMPONENTS)
    assert isinstance(built, Objective)
    assert path.read_text().startswith("# @package objective\n")


def test_two_files_merge_into_one_objective() -> None:
    """What Hydra does with '+objective=[gpu_count,latency]': the GPU price then decides the fleet."""
    merged: dict[str, object] = {}
    for name in ("gpu_count", "latency"):
        node = yaml.safe_load((conf_dir() / "objective" / f"{name}.yaml").read_text())
        merged = {**merged, **node, "terms": {**merged.get("terms", {}), **node["terms"]}}  # type: ignore[dict-item]
    built = build(merged, "objective", COMPONENTS)
    assert [t.name for t in built.terms] == ["gpu_count", "latency"]
    assert built.prices_gpus
    assert built.fleet_size(10, None) is None


def test_fleet_size() -> None:
    latency = objective({"latency": MeanE2E()})
    assert latency.fleet_size(10, None) == 13  # ceil(12.5)
    assert latency.fleet_size(4, None) == 5
    assert latency.fleet_size(10, 40) == 40
    assert objective({"latency": MeanE2E()}, fleet="minimum").fleet_size(10, 40) == 10
    assert objective({"latency": MeanE2E()}, expansion=2).fleet_size(3, None) == 6


def test_terms_take_the_name_of_their_key_and_weight_zero_leaves_one_out() -> None:
    built = objective({"chat": MeanE2E(weight=2.0), "batch": MeanE2E(weight=1.0), "off": GpuCount(weight=0.0)})
    assert [(t.name, t.weight) for t in built.terms] == [("chat", 2.0), ("batch", 1.0)]
    assert not built.prices_gpus


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: objective({}), "no term"),
        (lambda: objective({"a": MeanE2E(weight=0)}), "no term"),
        (lambda: objective({"a": MeanE2E(weight=-1)}), "weight -1"),
        (lambda: objective({"a": MeanE2E(scale=0)}), "scale 0"),
        (lambda: objective({"a": MeanE2E(weight=float("nan"))}), "weight nan"),
        (lambda: objective({"a": 3}), "3 is not a term"),  # type: ignore[dict-item]
        (lambda: objective({"a": MeanE2E()}, fleet="big"), "fleet 'big'"),
        (lambda: objective({"a": MeanE2E()}, expansion=0.5), "expansion 0.5"),
        (lambda: objective({"a": MeanE2E(aggregate="mean")}), "aggregate 'mean'"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_refused_with_the_value_and_the_place(make, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as caught:
        make()
    assert said in caught.value.problem
    assert caught.value.where.startswith("objective")
    assert caught.value.remedy


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A user's term that does not inherit from anything here."""

    weight: float = 1.0
    scale: float = 1.0
    name: str = "foreign"
    unit: str = "adapters"
    aggregate: str = "max"

    def cost(self, columns, context):  # type: ignore[no-untyped-def]
        return columns.adapters


def test_a_foreign_term_is_optimised_by_greedy() -> None:
    """Fewest adapters on the fullest GPU: greedy ends within one adapter of the even split."""
    from placement.solvers.greedy import Greedy

    built = objective({"crowd": _Foreign()})  # type: ignore[dict-item]
    problem = replace(skewed(60), terms=built.terms, max_gpus=4)
    report = Greedy().solve(problem, time_limit_s=60)
    assert report.objective <= 16
    assert report.bound is None


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="documentation is not installed")
def test_the_documented_config_is_the_documented_objective() -> None:
    node = yaml.safe_load((EXAMPLES / "my_conf" / "objective" / "mine.yaml").read_text())
    built = build(node, "objective", COMPONENTS)
    assert {t.name: (t.weight, t.scale) for t in built.terms} == {
        "gpu_count": (0.7, 1.0),
        "latency": (1.0, 2.0),
        "tail": (1.0, 10.0),
    }


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="documentation is not installed")
def test_the_documented_term_works_once_its_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    node = yaml.safe_load((EXAMPLES / "my_conf" / "objective" / "balanced.yaml").read_text())
    with pytest.raises(InputError, match="allow_modules"):
        build(node, "objective", COMPONENTS)
    built = build(node, "objective", COMPONENTS, ["my_terms"])
    problem = replace(skewed(60), terms=built.terms)
    placement, _ = even(3)
    value, _ = evaluate(problem, placement)
    assert value > 3  # three GPUs, and something for the busiest
