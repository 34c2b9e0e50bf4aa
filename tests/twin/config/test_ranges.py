"""Numbers are checked in one way: with their name, range, unit and a hint, wherever the range is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
import pytest

from twin.config.arguments import number, whole_number
from twin.config.instantiate import build
from twin.config.ranges import Range, check, check_fields, range_of
from twin.config.schema import parse
from twin.errors import InputError

SLOTS = Range(1, 8, unit="slots", hint="the default is 4")


@dataclass(frozen=True, slots=True)
class Server:
    slots: Annotated[int, SLOTS]
    share: Annotated[float, Range(above=0, below=1)] = 0.5
    limit: Annotated[int | None, Range(2)] = None
    sizes: Annotated[tuple[int, ...], Range(1)] = ()


@dataclass(frozen=True, slots=True)
class Checked(Server):
    def __post_init__(self) -> None:
        check_fields(self, lambda name: f"server.{name}")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Range(), "a number"),
        (Range(1, 4096, whole=True, unit="slots"), "a whole number at least 1 and at most 4096 slots"),
        (Range(above=0, below=0.5), "a number above 0 and below 0.5"),
    ],
)
def test_a_range_reads_as_plain_english(wanted: Range, text: str) -> None:
    assert str(wanted) == text


@pytest.mark.parametrize("value", [1, 8, 4.5, np.int64(3), np.float64(2), Fraction(9, 2)])
def test_numbers_inside_pass(value: Any) -> None:
    check(value, "x", SLOTS)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, "x = 0 is out of range"),
        (8.5, "x = 8.5 is out of range"),
        (math.nan, "x = nan is out of range"),
        (-math.inf, "x = -inf is out of range"),
        (True, "x = True is not a number"),
        ("4", "x = '4' is not a number"),
        (None, "x = None is not a number"),
        (4j, "x = 4j is not a number"),
    ],
)
def test_others_are_refused_with_all_that_helps(value: Any, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        check(value, "x", SLOTS, where="engine.x")
    assert caught.value.problem == problem
    assert caught.value.where == "engine.x"
    assert caught.value.remedy == "give a number at least 1 and at most 8 slots; the default is 4"


def test_the_type_says_whether_a_number_is_whole() -> None:
    with pytest.raises(InputError, match=r"server\.slots = 1\.5 is not a whole number"):
        Checked(1.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"server\.limit = 2\.5 is not a whole number"):
        Checked(1, limit=2.5)  # type: ignore[arg-type]


def test_none_is_a_value_only_where_the_type_allows_it() -> None:
    assert Checked(1, limit=None).limit is None
    with pytest.raises(InputError, match="slots = None"):
        Checked(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"slots": 9}, "engine.slots = 9 is out of range"),
        ({"slots": 1, "share": 1}, "engine.share = 1.0 is out of range"),
        ({"slots": 1, "limit": 1}, "engine.limit = 1 is out of range"),
        ({"slots": 1, "sizes": [4, 0]}, "engine.sizes = 0 is out of range"),
        ({"slots": "many"}, "engine.slots = 'many' is not a whole number"),
    ],
)
def test_a_configuration_is_checked_by_the_same_ranges(data: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(Server, data, "engine")
    assert caught.value.problem == problem
    assert caught.value.where.startswith("engine.")
    assert caught.value.remedy.startswith("give ")


def test_what_a_target_builds_is_checked_with_its_place() -> None:
    node = {"_target_": f"{__name__}.Server", "slots": 12}
    with pytest.raises(InputError) as caught:
        build(node, "solver.server", {}, [__name__])
    assert caught.value.problem == "solver.server.slots = 12 is out of range"
    assert "slots; the default is 4" in caught.value.remedy


def test_a_range_can_be_that_of_another_field() -> None:
    assert range_of(Server, "share") == Range(above=0, below=1)
    assert range_of(Server, "limit") == Range(2, whole=True)


def test_arguments_of_sources_use_the_same_check() -> None:
    assert whole_number(3.0, "workload.n") == 3
    assert number(3, "workload.n", above=0) == 3.0
    for call in (lambda: whole_number(2.5, "workload.n"), lambda: number(0, "workload.n", above=0)):
        with pytest.raises(InputError, match=r"workload\.n = ") as caught:
            call()
        assert caught.value.where == "option workload.n"
        assert caught.value.remedy.startswith("give a")
