"""The headline: its shapes are those of the measurements, and what it says follows from what it measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.baselines import BASELINES
from benchmarks.headline import FASTEST, NAMED, PLAN, Row, as_good, cell, fewest, shape_run, shapes, table
from benchmarks.judging import Judged
from benchmarks.workloads import named_workload
from twin.errors import InputError

HEADER = "model,rates,ranks\n"


def on(gpus: int, e2e_s: float, *, starved: bool = False, bad_hours: float = 0.0) -> Judged:
    return Judged(gpus, e2e_s, 50.0, bad_hours, starved, 6)


def test_shapes_are_those_of_the_measurements_up_to_a_load(tmp_path: Path) -> None:
    folder = tmp_path / "adapter_serving"
    folder.mkdir()
    rows = ("llama-3.1-8b-instruct,0.4 0.1 0.1,8 16", "llama-3.1-8b-instruct,3.2 1.6 0.1,8 8", "other,0.1 0.1 0.1,8 8")
    (folder / "placement_real_optimum.csv").write_text(HEADER + "\n".join(rows) + "\n")
    assert shapes(str(tmp_path), 150.0) == {"0.4-0.1-0.1, 8-16": ("0.4 0.1 0.1", "8 16")}
    assert len(shapes(str(folder), 1000.0)) == 2
    with pytest.raises(InputError, match="placement_real_optimum"):
        shapes(str(tmp_path / "nowhere"), 150.0)


def test_without_measurements_it_is_the_named_workload() -> None:
    (rates, ranks) = next(iter(shapes("", 1.0).values()))
    run = shape_run(rates, ranks, "stable", ["surrogate=analytic"])
    assert shapes("", 1.0) == NAMED
    assert run.workload.adapters == named_workload("published_384").adapters
    assert {s.max_lora_rank for s in run.settings} == {8, 16, 32}


@pytest.mark.parametrize("needed", range(1, 14))
@pytest.mark.parametrize("around", [1, 4, 6])
def test_the_fewest_are_found_up_to_twice_as_many_and_two(needed: int, around: int) -> None:
    found = fewest(lambda gpus: gpus >= needed, around, around >= needed)
    assert found == (needed if needed <= 2 * around + 2 else None)


def test_cells_say_what_is_wrong() -> None:
    assert cell(Row(4, on(4, 12.14), True)) == "4; 12.1 s"
    assert cell(Row(5, on(4, 99.0, starved=True), False)) == "5; starved"
    assert cell(Row(5, on(4, 12.14, bad_hours=0.5), False)) == "5; 12.1 s, not accepted (50.0 % bad hours)"
    assert cell(Row(None, None, False)) == "more than twice; none"


def test_it_says_where_simple_placements_do_as_well() -> None:
    others = {name: Row(6, on(5, 40.0), False) for name in ("random", "dLoRA")}
    rows = {PLAN: Row(5, on(5, 12.0), True), FASTEST: Row(5, on(5, 10.0), True)}
    rows |= {name: others.get(name, Row(6, on(5, 20.0), False)) for name in BASELINES}
    (text,) = as_good({"shape": rows})
    assert "(5) with none of the baselines" in text
    rows["LPT"], rows["rank blocks"] = Row(5, on(5, 11.0), True), Row(4, on(5, 10.05), True)
    (text,) = as_good({"shape": rows})
    assert "(5) with rank blocks, LPT; of these no slower than the fastest plan: rank blocks." in text
    lines = table({"shape": rows}).splitlines()
    assert len(lines) == 2 + 2 + len(BASELINES)
    assert lines[2] == "| this pipeline | 5; 12 s |"
