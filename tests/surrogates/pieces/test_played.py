"""Rays in the twin: they end where simulated hours stop being healthy, and their loads are those hours'."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surrogates.pieces.features import FEATURE_NAMES
from surrogates.pieces.model import PiecesModel, twin_planning
from surrogates.pieces.played import PRECISION, ROUNDS, Path, Player, decoding, in_system, path_of
from surrogates.pieces.rays import FRACTIONS
from tests.twin.columns import LLAMA
from twin.figures.health import Published, Stable
from twin.figures.prediction import OVERLOADED, STABLE
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.sources.synthetic import discrete_rates

SETTING = EngineSetting(LLAMA.stamp.gpu_type, 32, 16)
WORKLOAD = discrete_rates(60, [0.4, 0.2], [8, 16])


def scripted(player: Player, most: float, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A twin that is healthy up to so many requests per second; the rates it was asked about."""
    asked: list[float] = []

    def rows(_: Player, columns: list[Column]) -> list[tuple[bool, dict[str, float]]]:
        asked.extend(c.rate_req_per_s for c in columns)
        return [(c.rate_req_per_s <= most, {}) for c in columns]

    monkeypatch.setattr(Player, "rows", rows)
    return asked


@pytest.mark.parametrize("guess", [4.0, 10.3, 30.0])
def test_a_path_ends_at_the_boundary_wherever_the_guess_is(guess: float, monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player(LLAMA, Stable())
    asked = scripted(player, 4.07, monkeypatch)
    path = Path(tuple(a.scaled(1.0) for a in discrete_rates(60, [0.4], [8]).adapters), guess)
    (length,), (whole,) = player.ends([path], SETTING)
    assert 4.07 / PRECISION <= 0.4 * length <= 4.07
    assert not whole and len(asked) <= ROUNDS / 2


def test_ends_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player(LLAMA, Stable())
    path = Path(WORKLOAD.adapters[:10], 5.0)
    scripted(player, 1e9, monkeypatch)
    lengths, whole = player.ends([path], SETTING)
    assert (lengths.tolist(), whole.tolist()) == ([10.0], [True])
    scripted(player, 0.0, monkeypatch)
    lengths, whole = player.ends([path], SETTING)
    assert (lengths.tolist(), whole.tolist()) == ([0.0], [False])


def test_adapters_on_a_path_draw_requests_of_their_own() -> None:
    path = path_of([WORKLOAD.adapters[0]] * 9, 2.5)
    assert len(path.adapters) == 7 and len({a.adapter_id for a in path.adapters}) == 7
    part = path.part(1.25)
    assert [round(a.rate_req_per_s, 6) for a in part] == [0.4, 0.1]
    assert path.part(50.0) == path.adapters


def test_loads_need_a_queue_that_does_not_grow() -> None:
    column = Column(WORKLOAD.adapters[:2], SETTING)
    row = {"queue": float(STABLE), "requests_in_system": 7.0, "itl_mean_ms": 20.0}
    gaps = sum(a.rate_req_per_s * (a.output_tokens.mean - 1) for a in column.adapters)
    assert (in_system(row), decoding(row, column)) == (7.0, pytest.approx(0.02 * gaps))
    growing = row | {"queue": float(OVERLOADED)}
    assert np.isnan(in_system(growing)) and np.isnan(decoding(growing, column))


@pytest.fixture(scope="module")
def model() -> PiecesModel:
    return twin_planning(LLAMA, WORKLOAD, Stable(), rays=8, hours=1)


def test_pieces_of_simulated_hours(model: PiecesModel) -> None:
    option = model.option(SETTING)
    assert model.player is not None
    played = dict(model.player._known)
    assert len(played) >= 8 * len(FRACTIONS)
    healthy = np.array([kept for kept, _ in played.values()])
    assert 0.5 < healthy.mean() < 1.0
    phi = np.array([model.features(c.adapters).sum(axis=0) for c in played])
    assert phi.shape[1] == len(FEATURE_NAMES)
    assert ((option.violation(phi) <= 0) & ~healthy).mean() < 0.05
    n = np.array([row["requests_in_system"] for _, row in played.values()])
    assert np.median(np.abs(option.requests_in_system(phi[healthy]) / n[healthy] - 1)) < 0.05
    # Asked again, nothing is played again.
    model.option(SETTING)
    assert len(model.player._known) == len(played)


def test_figures_of_a_gpu_are_those_of_a_simulation(model: PiecesModel) -> None:
    column = Column(WORKLOAD.adapters[:20], SETTING)
    (figures,) = model.figures([column])
    hour = simulate(column, LLAMA, seed=0).row
    assert figures["e2e_mean_s"] == hour["e2e_mean_s"] and figures["itl_mean_ms"] == hour["itl_mean_ms"]
    # The largest healthy load is where the twin says.
    edge = [replace(column, adapters=tuple(a.scaled(f / figures["load"]) for a in column.adapters)) for f in (1, 1.2)]
    assert model.player is not None
    assert [kept for kept, _ in model.player.rows(edge)] == [True, False]


def test_a_hot_adapter_and_the_other_rule() -> None:
    hot = discrete_rates(3, [30.0], [16])
    option = twin_planning(LLAMA, hot, Published(), rays=8, hours=1).option(SETTING)
    assert len(option.outer.g) and np.isfinite(option.outer.G).all()
