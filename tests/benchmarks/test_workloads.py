"""The named workloads of the benchmarks: they exist, and are what their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.workloads import WORKLOADS, main, named_workload, workload_overrides
from twin.errors import InputError

DRAWN = sorted(name for name, named in WORKLOADS.items() if not named.trace)


@pytest.mark.parametrize("name", DRAWN)
def test_a_name_says_how_many_adapters_and_requests(name: str) -> None:
    workload = named_workload(name)
    numbers = [int(part) for part in name.split("_") if part.isdigit()]
    if name.startswith(("power_law", "published", "cold")):
        assert len(workload.adapters) == numbers[0]
    if name.startswith("power_law"):
        assert workload.total_rate_req_per_s == pytest.approx(numbers[1])


def test_each_is_what_it_is_there_for() -> None:
    assert {a.rank for a in named_workload("rank_64").adapters} == {64}
    assert {a.arrival_cv for a in named_workload("cv_5").adapters} == {5.0}
    assert {round(a.prompt_tokens.mean) for a in named_workload("long_prompts").adapters} == {3000}
    assert sum(named.large for named in WORKLOADS.values()) == 1


def test_traces_are_found_in_the_folder_or_its_traces(tmp_path: Path) -> None:
    (tmp_path / "traces" / "servegen").mkdir(parents=True)
    assert f"workload.path={tmp_path / 'traces' / 'servegen'}" in workload_overrides("servegen_40", str(tmp_path))
    with pytest.raises(InputError, match="azure"):
        workload_overrides("azure_conv", str(tmp_path))
    with pytest.raises(InputError, match="choose one of"):
        workload_overrides("power_law_7")


def test_the_command_prints_options_to_copy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power_law_1000_60"]) == 0
    assert capsys.readouterr().out.split() == list(WORKLOADS["power_law_1000_60"].options)
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in WORKLOADS)
    assert main(["nonsense=1"]) == 2
