"""The distilled tree: it finds what its answers depend on, says it in words, and is scored on what it has not seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from surrogates import tree as room
from surrogates.__main__ import main
from surrogates.optimum import OptimumCommand
from surrogates.tree import (
    FEATURES,
    Answer,
    Leaf,
    Question,
    TreeCommand,
    answer_of,
    chosen,
    drawn_workload,
    features,
    fitted,
    rules,
    worth,
)
from tests.twin.columns import LLAMA

pytest.importorskip("sklearn")


def known(count: int = 60) -> list[Answer]:
    """Light adapters fit by 256 on 64 slots, heavy ones by 32 on 16, whatever else is the case."""
    rng = np.random.default_rng(3)
    found = []
    for k in range(count):
        rate = 0.01 if k % 2 else 0.64
        workload = OptimumCommand(rates=(rate,), ranks=(8, 16), prompt_tokens=float(rng.integers(100, 101)))
        found.append(Answer(workload, *((256, 64) if k % 2 else (32, 16))))
    return found


def test_features_are_those_that_have_names() -> None:
    workload = OptimumCommand(rates=(0.3, 0.1), ranks=(8, 32), prompt_tokens=100, output_tokens=50)
    named = dict(zip((name for name, _ in FEATURES), features(workload), strict=True))
    assert named == pytest.approx(
        {
            "tokens/s of an adapter": 30, "output tokens/s of an adapter": 10, "requests/s of an adapter": 0.2,
            "busiest adapter / mean": 1.5, "prompt tokens of a request": 100, "output tokens of a request": 50,
            "largest rank": 32,
        }
    )  # fmt: skip


def test_one_question_suffices_where_one_thing_matters() -> None:
    tree = fitted(known(), depth=4)
    assert isinstance(tree, Question) and isinstance(tree.yes, Leaf) and isinstance(tree.no, Leaf)
    assert (tree.yes.adapters, tree.yes.slots, tree.no.adapters, tree.no.slots) == (256, 64, 32, 16)
    assert all(answer_of(tree, features(a.workload)).adapters == a.adapters for a in known())
    question, light, otherwise, heavy = rules(tree)
    assert question.startswith("if ") and question.endswith(":") and otherwise == "else:"
    assert light.strip() == "serve 256 adapters (256 to 256) on 64 slots (64 to 64)"
    assert heavy.strip() == "serve 32 adapters (32 to 32) on 16 slots (16 to 16)"
    # A threshold lies between the two kinds, in the middle of their logarithms.
    low, high = (features(a.workload)[tree.feature] for a in (known()[1], known()[0]))
    assert tree.threshold == pytest.approx(np.sqrt(low * high), rel=0.02)


def test_depth_and_seed_decide_the_tree() -> None:
    assert list(rules(fitted(known(), 1))) == list(rules(fitted(known(), 1)))
    assert isinstance(fitted(known()[1::2], 4), Leaf)
    one, two = (drawn_workload(np.random.default_rng(5), TreeCommand()) for _ in range(2))
    assert one == two and one.rule == "stable"


def test_a_careful_choice_is_the_low_end_with_no_more_slots_than_adapters() -> None:
    leaf = Leaf(64, 48, (24, 96), (32, 64), 10)
    assert chosen(leaf, careful=False) == (64, 48)
    assert chosen(leaf, careful=True) == (24, 24)


def test_a_choice_is_worth_what_it_serves_or_nothing() -> None:
    answer = Answer(OptimumCommand(rates=(0.05,), ranks=(8,), rule="stable", source="physics"), 64, 32)
    assert worth((32, 16), answer, LLAMA) == 0.5
    assert worth((32, 16), answer, LLAMA, "twin") == 0.5
    heavy = Answer(OptimumCommand(rates=(3.2,), ranks=(8,), rule="stable", source="physics"), 64, 32)
    assert worth((64, 32), heavy, LLAMA) == 0.0


def test_the_command_prints_rules_and_scores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "SLOTS", (16, 64))
    monkeypatch.setattr(room, "ADAPTERS", (16, 32, 64, 128))
    assert main(["tree", "workloads=20", "held_out=3", "in_twin=1", "depth=2", "source=physics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("if ")
    scores = json.loads(lines[-1])
    assert {"same_adapters", "healthy_careful", "healthy_careful_in_twin"} <= set(scores)
    assert all(0 <= value <= 2 for value in scores.values())


@pytest.mark.parametrize("words", [["depth=0"], ["source=twin"], ["workloads=3"]])
def test_bad_options_are_refused(words: list[str]) -> None:
    assert main(["tree", *words]) == 2


def test_without_scikit_learn_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.tree", None)
    monkeypatch.setattr(room, "answers", lambda *_: iter(known(20)))
    assert main(["tree", "workloads=20"]) == 2
    assert "adapter-placement[train]" in capsys.readouterr().err
