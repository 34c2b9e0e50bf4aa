"""What a verdict claims, against simulated coins."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import trust
from benchmarks.judge_power import FAMILIES, LEVELS, accepted_share, steady, two_state, verifier
from placement.verify.claim import Claim
from twin.confidence.shares import allowed_failures
from twin.errors import InputError
from twin.figures.window import trials_without_failure


def test_fewest_hours_are_those_that_the_levels_name() -> None:
    found = [trials_without_failure(*level) for level in ((0.1, 0.05), (0.05, 0.05), (0.05, 0.001))]
    assert found == [29, 59, 135]
    for (share, error), n in zip(((0.1, 0.05), (0.05, 0.05), (0.05, 0.001)), found, strict=True):
        assert (1 - share) ** n <= error < (1 - share) ** (n - 1)


@pytest.mark.parametrize("level", LEVELS)
def test_repeated_looks_accept_no_more_often_than_claimed(level: str) -> None:
    """By coins: the chance that any look accepts a share of bad hours at the claim's limit."""
    claim = verifier(level).claim
    looks = claim.looks()
    allowed = claim.allowed(looks)
    coins = np.random.default_rng(1).random((20_000, looks[-1])) < claim.bad_hours
    bad = coins.cumsum(axis=1)[:, np.array(looks) - 1]
    accepted = (bad <= np.array(allowed)).any(axis=1).mean()
    each = claim.error / claim.rounds
    assert accepted <= each + 3 * np.sqrt(each / 20_000)
    # And the allowance is used, or the test would accept nobody.
    assert allowed[0] >= 0
    assert allowed[-1] > allowed[0]


def test_rounds_share_the_error() -> None:
    """Nine tries of an equally bad GPU are accepted no more often, together, than one is claimed to be."""
    for level in LEVELS:
        claim = verifier(level).claim
        looks = claim.looks()
        bad = np.random.default_rng(2).random((4_000, looks[-1])) < claim.bad_hours
        counts = bad.cumsum(axis=1)[:, np.array(looks) - 1]
        accepted = (counts <= np.array(claim.allowed(looks))).any(axis=1).mean()
        assert claim.rounds == 9
        assert 1 - (1 - accepted) ** claim.rounds <= claim.error + 9 * 3 * np.sqrt(claim.error / 9 / 4_000)


def test_a_look_that_is_too_early_accepts_nothing() -> None:
    assert allowed_failures(0.1, 0.05, (10, 60)) == (-1, 1)


def test_no_level_accepts_more_bad_gpus_than_it_claims() -> None:
    """The families of `benchmarks.trust` that a level speaks of; a few columns here, a thousand there."""
    for level in LEVELS:
        judge = verifier(level)
        for bad, late in FAMILIES:
            if bad >= judge.claim.bad_hours:
                assert accepted_share(judge, two_state(bad, late), 60, 3)[0] <= judge.claim.error


def test_healthy_gpus_at_half_the_limit_are_accepted() -> None:
    assert accepted_share(verifier("quick"), steady(0.005), 40, 4)[0] >= 0.95


def test_benchmark_prints_what_is_accepted_beside_what_is_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    assert trust.main(["part=power", "columns=30"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["claimed_error"] == 0.05
    assert set(summary["levels"]) == set(LEVELS)
    assert trust.main(["part=poems"]) == 2


@pytest.mark.parametrize("wrong", [{"hours": 10}, {"max_hours": 20}, {"error": 0.7}, {"bad_hours": 0.0}])
def test_a_claim_that_cannot_be_proven_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Claim(**{"name": "x", "bad_hours": 0.1, "error": 0.05, "hours": 60, "max_hours": 240, **wrong})  # type: ignore[arg-type]
