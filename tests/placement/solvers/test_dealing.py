"""Claims: dealing keeps every member exactly once, respects counts unless repair must not, and never returns a
placement that breaks a rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from placement.problem.problem import violations
from placement.solvers.dealing import _hosts, deal
from placement.solvers.search_state import SearchState, state_of
from tests.placement.known import SMALL_OPTIONS, alike, skewed
from tests.placement.synthetic import adapter, option, power_law, problem


def by_rank(p) -> list[list[int]]:  # type: ignore[no-untyped-def]
    return [[i for i, a in enumerate(p.items) if a.rank == r] for r in sorted({a.rank for a in p.items})]


def split(sizes: list[int], gpus: int) -> np.ndarray:
    """Even counts, (G, K)."""
    return np.stack([np.diff(np.round(np.linspace(0, n, gpus + 1)).astype(int)) for n in sizes], axis=1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), gpus=st.integers(1, 6), n=st.integers(6, 60))
def test_hosts_follow_the_counts(seed: int, gpus: int, n: int) -> None:
    p = problem(power_law(n, seed))
    members = by_rank(p)
    counts = split([len(m) for m in members], gpus)
    hosts = _hosts(p, members, counts)
    assert hosts is not None
    for k, m in enumerate(members):
        np.testing.assert_array_equal(np.bincount(hosts[m], minlength=gpus), counts[:, k])


def test_unlike_members_are_spread_so_that_their_differences_cancel() -> None:
    """One class of rates 0.1 .. 4: every GPU ends within 10 % of the mean rate."""
    p = problem([adapter(f"a{i}", r) for i, r in enumerate(np.linspace(0.1, 4.0, 40))])
    placement = deal(p, [list(range(40))], np.full((8, 1), 5), [len(p.options) - 1] * 8)
    assert placement is not None
    rates = placement.features(p)[:, 0]
    assert np.abs(rates / rates.mean() - 1).max() < 0.1


def test_repair_meets_facets_that_the_counts_alone_would_break() -> None:
    p = skewed(250)
    members = by_rank(p)
    wide = [i for i, o in enumerate(p.options) if o.setting.max_lora_rank == 32 and o.setting.max_loras == 96]
    counts = np.zeros((3, len(members)), dtype=int)
    for k, m in enumerate(members):
        counts[:, k] = split([len(m)], 3)[:, 0]
    counts[0, 0] += 12  # too many on the first GPU
    counts[1, 0] -= 12
    placement = deal(p, members, counts, wide * 3)
    assert placement is not None
    assert violations(p, placement) == []


def test_none_if_nothing_can_be_repaired() -> None:
    p, gpus = alike()
    counts = split([len(p.items)], gpus - 2)
    assert deal(p, [list(range(len(p.items)))], counts, [0] * (gpus - 2)) is None


@pytest.mark.parametrize("bad", [[[3]], [[-1], [5]], [[2, 2]]])
def test_counts_that_do_not_cover_the_members_are_an_error(bad: list[list[int]]) -> None:
    p = problem([adapter(f"a{i}", 1.0) for i in range(4)], options=SMALL_OPTIONS)
    with pytest.raises(ValueError, match="do not deal"):
        deal(p, [[0, 1, 2, 3]], np.array(bad), [0] * len(bad))


def test_replicas_go_to_different_gpus_whenever_the_counts_allow_it() -> None:
    """Adapters with 4, 2 and 1 replicas on GPUs with 3, 2, 1 and 1 places: only one way works."""
    p = problem(
        [adapter("a", 4.0), adapter("b", 2.0), adapter("c", 1.0)], options=SMALL_OPTIONS, shares={"a": 4, "b": 2}
    )
    placement = deal(p, [list(range(7))], np.array([[1], [3], [1], [2]]), [0] * 4)
    assert placement is not None
    assert violations(p, placement) == []
    assert deal(p, [list(range(7))], np.array([[4], [3]]), [0] * 2) is None


def test_empty_gpus_are_left_out_and_cost_nothing() -> None:
    p = problem([adapter("a", 1.0), adapter("b", 1.0)], options=SMALL_OPTIONS)
    placement = deal(p, [[0, 1]], np.array([[2], [0]]), [0, 0])
    assert placement is not None
    assert len(placement.gpus) == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_incremental_scores_equal_recomputed_ones(seed: int) -> None:
    """After any exchanges, a state's sums, excess and objective are those of a fresh state."""
    rng = np.random.default_rng(seed)
    p = skewed(40)
    state = SearchState(p, [len(p.options) - 1] * 3, [list(range(g, 40, 3)) for g in range(3)])
    for _ in range(10):
        g, h = rng.permutation(3)[:2].tolist()
        give = int(rng.choice(state.members[g])) if state.members[g] else -1
        take = int(rng.choice(state.members[h])) if state.members[h] and rng.random() < 0.5 else -1
        state.exchange(g, h, give, take)
    fresh = SearchState(p, state.options, state.members)
    np.testing.assert_allclose(state.phi, fresh.phi)
    np.testing.assert_allclose(state.excess, fresh.excess)
    assert state.merit() == pytest.approx(fresh.merit())


def test_options_are_chosen_within_stock() -> None:
    """Two GPUs that would both like the fast type share a stock of one."""
    options = (option(8, 8, "slow", speed=0.6), option(8, 8, "fast"))
    p = problem([adapter("a", 5.0), adapter("b", 5.0)], options=options, stock={"fast": 1, "slow": 2})
    from dataclasses import replace

    from placement.problem.objectives import MeanE2E

    p = replace(p, terms=(MeanE2E(),))
    state = SearchState(p, [0, 0], [[0], [1]])
    assert state.choose_options()
    assert sorted(state.options) == [0, 1]
    assert violations(p, state.placement()) == []
    assert state_of(p, state.placement()).merit() == pytest.approx(state.merit())
