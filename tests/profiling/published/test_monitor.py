"""The monitor's answers grow with the combinations of adapters seen, hold tokens up, and merge them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from profiling.published.monitor import Combinations, Monitor, Scrapes, chunk_factor, combinations_of, scrapes_of


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 6))
def test_combinations_are_those_of_a_literal_count(seed: int, n: int, adapters: int) -> None:
    rng = np.random.default_rng(seed)
    adapter = rng.integers(0, adapters, n).astype(np.int32)
    release = np.sort(rng.uniform(0, 50, n))
    # Whole and half seconds: many events at once, as at the end of a step.
    first = np.ceil(release) + 1.0 + rng.integers(0, 3, n)
    finish = first + rng.integers(1, 10, n)
    first[rng.random(n) < 0.1] = np.nan
    finish[np.isnan(first) | (rng.random(n) < 0.1)] = np.nan
    got = combinations_of(adapter, release, first, finish, adapters, 0.5)
    times = np.unique(np.concatenate([first[~np.isnan(first)], finish[~np.isnan(finish)], release + 0.25]))
    seen = {}
    for t in times:
        running = {int(a) for a, f, e in zip(adapter, first, finish, strict=True) if f <= t and not e <= t}
        waiting = {int(a) for a, r, f in zip(adapter, release, first, strict=True) if r <= t and not f <= t}
        seen.setdefault((frozenset(running), frozenset(waiting)), len(running) + len(waiting))
    assert len(got.time_s) == len(seen)
    assert sorted(got.named.tolist()) == sorted(seen.values())


def test_answers_grow_with_what_was_seen_and_the_pause_is_kept() -> None:
    combinations = Combinations(np.linspace(0, 3600, 40_000), np.full(40_000, 10))
    scrapes = scrapes_of(combinations, Monitor(2.0, 0.003, 1e-5, 0.0), 3600.0)
    length = scrapes.end_s - scrapes.start_s
    assert length[0] == pytest.approx(0.003) and length[-1] == pytest.approx(0.403, rel=0.01)
    assert scrapes.start_s[1:] - scrapes.end_s[:-1] == pytest.approx(2.0)
    assert scrapes.median_s == pytest.approx(0.2, rel=0.1)


def test_what_falls_into_an_answer_waits_for_its_end() -> None:
    scrapes = Scrapes(np.array([1.0, 4.0]), np.array([1.5, 4.2]))
    assert scrapes.after(np.array([0.5, 1.0, 1.4, 1.5, 4.1, 9.0])) == pytest.approx([0.5, 1.5, 1.5, 1.5, 4.2, 9.0])


def test_tokens_of_an_answer_come_as_one_chunk_unless_outputs_are_handed_out_in_pieces() -> None:
    """In a cycle of 2.4 s with steps of 0.04 s: 50 chunks and one more instead of 60."""
    starts = np.arange(0, 3600, 2.4)
    scrapes = Scrapes(starts, starts + 0.4)
    few = chunk_factor(scrapes, np.full(60, 100.0), 0.04, 3600.0)
    assert few == pytest.approx(60 / 51, rel=1e-6)
    assert chunk_factor(scrapes, np.full(60, 129.0), 0.04, 3600.0) == 1.0
    # Steps longer than an answer: nothing merges.
    assert chunk_factor(scrapes, np.full(60, 100.0), 0.5, 3600.0) == pytest.approx(1.0)
