"""Command lines before Hydra reads them: subcommands, and text that is taken as it stands."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, strategies as st

from twin.config.words import chosen, literal
from twin.errors import InputError

KNOWN = ("fit", "memory_gap")


@pytest.mark.parametrize(
    ("words", "name", "rest"),
    [
        (["fit", "data=x"], "fit", ["data=x"]),
        (["-vv", "memory_gap", "-m"], "memory_gap", ["-vv", "-m"]),
        (["data=x", "fit"], None, ["data=x", "fit"]),
        (["-v", "+objective=latency"], None, ["-v", "+objective=latency"]),
        (["--cfg", "job"], None, ["--cfg", "job"]),
        ([], None, []),
    ],
)
def test_a_first_bare_word_is_a_subcommand(words: list[str], name: str | None, rest: list[str]) -> None:
    assert chosen(words, KNOWN, program="p") == (name, rest)


def test_an_unknown_subcommand_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'fit'") as caught:
        chosen(["fitt"], KNOWN, program="python -m profiling")
    assert caught.value.where == "python -m profiling"
    assert "fit, memory_gap" in caught.value.remedy


def test_only_text_is_quoted_and_only_outside_a_sweep() -> None:
    words = ["data=/a b,c", "+date=2026", "every=3", "--cfg", "job", "-v", "out='x'", "fold="]
    assert literal(words, ("data", "date", "out", "fold")) == [
        "data='/a b,c'", "date='2026'", "every=3", "--cfg", "job", "-v", "out='x'", "fold=''",
    ]  # fmt: skip
    sweep = ["-m", "data=a,b"]
    assert literal(sweep, ("data",)) == sweep
    assert literal(["+objective=latency"], ()) == ["+objective=latency"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r$", exclude_categories=["Cc"])))
def test_hydra_reads_back_what_was_typed(value: str) -> None:
    if value[:1] in ("'", '"'):
        return
    (word,) = literal([f"data={value}"], ("data",))
    assert str(OverridesParser.create().parse_override(word).value()) == value
