"""Linear pieces of the physics: what they promise, against the physics itself on columns that they have not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surrogates.model.planning import Polyhedron
from surrogates.pieces.features import FEATURE_NAMES, adapter_features
from surrogates.pieces.fit import fit_facets, fit_load, over_promise
from surrogates.pieces.model import PiecesModel, physics_planning
from surrogates.pieces.rays import FRACTIONS, Rays, draw_rays
from surrogates.steady_state import steady_state
from twin.errors import InputError
from twin.figures.health import Published, Stable
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.sources.synthetic import power_law
from twin.workload.adapter import Adapter, Lengths, Slo

CALIBRATION = load_calibration("llama-3.1-8b-h100-64gb")
GPU = CALIBRATION.stamp.gpu_type
SETTING = EngineSetting(GPU, 32, 32)
WORKLOAD = power_law(120, 20.0, 0.9, [8, 16, 32], arrival_cv=[1.0, 3.0], length_scale_cv=0.3, seed=1)


@pytest.fixture(scope="module")
def model() -> PiecesModel:
    return physics_planning(CALIBRATION, WORKLOAD, Stable())


def random_columns(count: int, setting: EngineSetting, seed: int = 5) -> list[Column]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(10, 110, count)
    return [
        Column(tuple(WORKLOAD.adapters[i] for i in rng.choice(len(WORKLOAD.adapters), n, replace=False)), setting)
        for n in sizes
    ]


def test_features_add_and_know_no_name() -> None:
    a = WORKLOAD.adapters[:5]
    phi = adapter_features(a, CALIBRATION)
    assert phi.shape == (5, len(FEATURE_NAMES))
    renamed = tuple(replace(x, adapter_id=f"other-{k}") for k, x in enumerate(a))
    assert np.array_equal(adapter_features(renamed, CALIBRATION), phi)
    assert np.array_equal(adapter_features(a[::-1], CALIBRATION), phi[::-1])
    assert (phi >= 0).all()
    assert adapter_features((), CALIBRATION).shape == (0, len(FEATURE_NAMES))


def test_facets_follow_the_boundary_of_the_physics(model: PiecesModel) -> None:
    option = model.option(SETTING)
    columns = random_columns(150, SETTING)
    healthy = steady_state(columns, CALIBRATION).healthy > 0
    phi = np.array([model.features(c.adapters).sum(axis=0) for c in columns])
    inside, outer = option.violation(phi) <= 0, option.outer.violation(phi) <= 0
    assert 0.1 < healthy.mean() < 0.9
    assert (inside <= outer).all()
    assert (inside & ~healthy).mean() <= 0.02  # promised, and not kept
    assert (outer == healthy).mean() >= 0.95


def test_loads_follow_the_physics_where_it_is_healthy(model: PiecesModel) -> None:
    option = model.option(SETTING)
    columns = random_columns(150, SETTING)
    states = steady_state(columns, CALIBRATION)
    phi = np.array([model.features(c.adapters).sum(axis=0) for c in columns])
    inside = (option.violation(phi) <= 0) & (states.healthy > 0)
    for load, value in (
        (option.requests_in_system, states.requests_in_system), (option.requests_decoding, states.decoding),
    ):  # fmt: skip
        error = np.abs(load(phi[inside]) / value[inside] - 1)
        assert np.median(error) < 0.05
        assert np.quantile(error, 0.9) < 0.17
        assert np.quantile(1 - load(phi[inside]) / value[inside], 0.9) < 0.08  # seldom too low


def test_loads_are_convex_and_grow(model: PiecesModel) -> None:
    load = model.option(SETTING).requests_in_system
    rng = np.random.default_rng(0)
    phi = model.features(WORKLOAD.adapters)
    a, b = (np.array([phi[rng.choice(len(phi), 30)].sum(axis=0) for _ in range(50)]) for _ in range(2))
    assert (load((a + b) / 2) <= (load(a) + load(b)) / 2 + 1e-9).all()
    assert (load(a + b) >= load(a) - 1e-9).all()
    assert (load(np.zeros((1, len(FEATURE_NAMES)))) >= 0).all()


def test_the_same_workload_gives_the_same_pieces() -> None:
    first, second = (physics_planning(CALIBRATION, WORKLOAD, Stable(), rays=12).option(SETTING) for _ in range(2))
    assert np.array_equal(first.outer.G, second.outer.G)
    assert np.array_equal(first.requests_in_system.W, second.requests_in_system.W)
    other = physics_planning(CALIBRATION, WORKLOAD, Stable(), rays=12, seed=1).option(SETTING)
    assert not np.array_equal(first.outer.G, other.outer.G)


def test_a_stricter_promise_leaves_less_room() -> None:
    """On the largest part of the workload that is still allowed, by outer facets."""
    room = []
    for seconds in (0.3, 1.0, 60.0):
        model = physics_planning(CALIBRATION, WORKLOAD, Stable(Slo(seconds)), rays=24)
        use = model.option(SETTING).outer
        phi = model.features(WORKLOAD.adapters).sum(axis=0)
        room.append(float(1 / (use.G @ phi).max()))
    assert room[0] < room[1] < room[2]


def test_a_promise_on_mean_itl_is_planned_for() -> None:
    plain, strict = (
        physics_planning(CALIBRATION, WORKLOAD, Stable(slo), rays=24) for slo in (Slo(), Slo(itl_mean_ms=22.0))
    )
    phi = plain.features(WORKLOAD.adapters).sum(axis=0)
    use = [float((m.option(SETTING).outer.G @ phi).max()) for m in (plain, strict)]
    assert use[1] > 1.2 * use[0]


def test_the_published_rule_allows_more() -> None:
    phi = adapter_features(WORKLOAD.adapters, CALIBRATION).sum(axis=0)
    use = [
        float((physics_planning(CALIBRATION, WORKLOAD, rule, rays=24).option(SETTING).outer.G @ phi).max())
        for rule in (Stable(), Published())
    ]
    assert use[1] < use[0]


def test_cold_adapters_are_not_limited_by_their_number() -> None:
    cold = tuple(Adapter(f"c{i}", 8, 0.0005, Lengths(100, 1.0), Lengths(100, 1.0)) for i in range(2000))
    workload = replace(WORKLOAD, adapters=cold)
    option = physics_planning(CALIBRATION, workload, Stable(), rays=8).option(EngineSetting(GPU, 96, 8))
    phi = adapter_features(cold, CALIBRATION).sum(axis=0)[None]
    assert option.max_adapters >= 2000
    assert option.violation(phi)[0] <= 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (EngineSetting("other", 8, 16), "other"),
        (EngineSetting(GPU, 4000, 64), "does not start"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(setting: EngineSetting, words: str) -> None:
    with pytest.raises(InputError, match=words):
        physics_planning(CALIBRATION, WORKLOAD, Stable()).option(setting)


def test_where_nothing_is_healthy_nothing_is_promised() -> None:
    wide = replace(WORKLOAD, adapters=tuple(replace(a, rank=64) for a in WORKLOAD.adapters))
    option = physics_planning(CALIBRATION, wide, Stable()).option(EngineSetting(GPU, 8, 8))
    assert (option.outer.violation(adapter_features(wide.adapters, CALIBRATION)) > 0).all()


def test_an_adapter_too_hot_for_a_gpu_enters_in_shares() -> None:
    hot = replace(WORKLOAD, adapters=(replace(WORKLOAD.adapters[0], rate_req_per_s=60.0, arrival_cv=1.0),))
    option = physics_planning(CALIBRATION, hot, Stable(), rays=12).option(SETTING)
    whole, tenth = (adapter_features([hot.adapters[0].scaled(s)], CALIBRATION) for s in (1.0, 0.1))
    assert option.violation(whole)[0] > 0 >= option.violation(tenth)[0]


def test_rays_end_where_the_physics_says() -> None:
    model = physics_planning(CALIBRATION, WORKLOAD, Stable())
    physics, phi = model._model(SETTING)
    rays = draw_rays(physics, phi, model._count, SETTING, 10, 3, lambda s: s)
    assert rays is not None
    assert rays.ends.shape == (10, len(FEATURE_NAMES))
    assert len(rays.phi) == 10 * len(FRACTIONS)
    assert not rays.open.any()
    # Loads grow along a ray, and the last column lies within an adapter of the end.
    for ray in range(10):
        own = rays.ray == ray
        assert (np.diff(rays.in_system[own]) >= 0).all()
        assert (rays.phi[own][-1] <= rays.ends[ray] + 1e-9).all()


def test_a_facet_for_each_kind_of_limit() -> None:
    """Two known limits: their facets are found again."""
    rng = np.random.default_rng(2)
    truth = np.array([[1.0, 0.2, 0.0], [0.0, 0.5, 1.0]])
    direction = rng.random((60, 3)) + 0.01
    use = direction @ truth.T
    ends, limits = direction / use.max(axis=1, keepdims=True), use.argmax(axis=1)
    rays = Rays(ends, limits, np.zeros(60, np.bool_), ends, np.ones(60), np.ones(60), np.arange(60))
    facets = fit_facets(rays)
    assert pytest.approx(truth, abs=0.02) == facets.G
    assert over_promise(facets, rays, 1.0) < 0.01
    none = fit_facets(replace(rays, open=np.ones(60, np.bool_)))
    assert none.violation(ends).max() == -np.inf
    assert over_promise(none, rays, 0.9) == 0.0


def test_a_convex_load_is_found_again() -> None:
    rng = np.random.default_rng(4)
    phi = rng.random((300, 3))
    z = phi @ np.array([0.7, 0.1, 0.2])
    values = z + 3 * np.maximum(z - 0.5, 0) + 0.01
    load = fit_load(phi, values, Polyhedron(np.array([[0.7, 0.1, 0.2]]), np.array([-1.0])))
    assert np.median(np.abs(load(phi) / values - 1)) < 0.03
    blind = fit_load(phi, values, Polyhedron(np.zeros((0, 3)), np.zeros(0)))
    assert np.quantile(np.abs(blind(phi) / values - 1), 0.9) < 0.1


def test_numbers_stay_within_what_solvers_take() -> None:
    """Poisson arrivals have no companions but for rounding: no weight may come of that."""
    plain = power_law(120, 20.0, 1.0, [8, 16, 32], seed=1)
    for setting in (SETTING, EngineSetting(GPU, 8, 8), EngineSetting(GPU, 128, 8)):
        option = physics_planning(CALIBRATION, plain, Stable(), rays=24).option(setting)
        for load in (option.requests_in_system, option.requests_decoding):
            assert max(np.abs(a).max(initial=0.0) for a in (load.W, load.b, load.v, load.q)) < 1e6
        assert np.abs(option.outer.G).max() < 1e6


def test_figures_are_those_of_the_steady_state_itself() -> None:
    model = physics_planning(CALIBRATION, WORKLOAD, Stable(), rays=12)
    columns = random_columns(4, SETTING)
    states = steady_state(columns, CALIBRATION)
    for figures, n, pace in zip(model.figures(columns), states.requests_in_system, states.itl_mean_s, strict=True):
        assert figures["requests_in_system"] == pytest.approx(n)
        assert figures["itl_mean_ms"] == pytest.approx(1000 * pace)
    loads = [f["load"] for f in model.figures([Column(WORKLOAD.adapters[:n], SETTING) for n in (5, 20, 40)])]
    assert 0 < loads[0] < loads[1] < loads[2]
