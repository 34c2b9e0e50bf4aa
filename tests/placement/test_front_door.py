"""`from placement import place`: the same as the command, in a few lines of Python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from placement import GpuCount, InfeasibleError, InputError, MeanE2E, Objective, Result, place
from placement.__main__ import main
from placement.solvers import Greedy
from tests.placement.conftest import HEADER
from twin.config.folder import conf_dir
from twin.sources.adapter_file import read_adapters


@pytest.fixture
def quick(small: list[str]) -> list[str]:
    """Overrides of a small run without its workload, which is an argument."""
    return [o for o in small if not o.startswith("workload")]


def comparable(document: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in document.items() if k not in ("runtime_s", "total_runtime_s")}


@pytest.mark.parametrize("solver", ["greedy", "milp"])
def test_place_gives_what_the_command_gives(
    solver: str, small: list[str], quick: list[str], adapters_csv: Path, tmp_path: Path
) -> None:
    """The same document, configuration hash included, and the same files."""
    shared = ["verify.horizon_s=600", *quick]
    command, own = tmp_path / "command", tmp_path / "own"
    asked = ["+objective=latency", f"solver={solver}", "verify=twin", f"hydra.run.dir={command}"]
    assert main([*asked, *shared, *(o for o in small if o not in quick)]) == 0
    result = place(adapters_csv, "latency", solver=solver, overrides=shared)
    assert any("windows of 600 s are below 1800 s: they are biased" in w for w in result.warnings)
    names = {p.name for p in result.write(own)}
    assert names == {"placement.json", "certificate.json", "placement.csv", "report.html"}
    documents = [json.loads((folder / "placement.json").read_text()) for folder in (command, own)]
    assert comparable(documents[0]) == comparable(documents[1])
    assert (command / "placement.csv").read_text() == (own / "placement.csv").read_text()


def test_a_result_can_be_read_without_its_document(quick: list[str], adapters_csv: Path) -> None:
    result = place(adapters_csv, "gpu_count", verify="none", overrides=quick)
    assert isinstance(result, Result)
    assert (result.status, result.objective, result.bound, result.gap) == ("unverified", 1.0, 1.0, 0.0)
    assert len(result.gpus) == len(result.columns) == 1
    assert {a.adapter_id for a in result.columns[0].adapters} == {f"a{i}" for i in range(12)}
    assert repr(result) == "<Result: 1 GPUs, objective 1, bound 1, gap 0.00%, unverified>"


@dataclass(frozen=True)
class BusiestGpu:
    """A term of somebody else, without any base class."""

    weight: float = 1.0
    scale: float = 1.0
    name: str = "busiest"
    unit: str = "requests"
    aggregate: Literal["max"] = "max"

    def cost(self, columns: Any, context: Any) -> Any:
        return columns.requests_in_system

    def convex(self, option: Any, context: Any) -> None:
        return None


def test_objects_take_the_place_of_options(quick: list[str], adapters_csv: Path) -> None:
    """A workload, an objective and a solver that were made in Python, and a term that no file names."""
    workload = read_adapters(adapters_csv)
    asked = {"solver": Greedy(local_search=False), "verify": "none", "overrides": [*quick, "hardware.count=3"]}
    mixed = place(workload, Objective((GpuCount(), MeanE2E(scale=2.0))), **asked)  # type: ignore[arg-type]
    assert set(mixed.terms) == {"gpu_count", "latency"}
    own = place(workload, BusiestGpu(), **asked)  # type: ignore[arg-type]
    assert len(own.gpus) == 3
    assert own.objective == own.terms["busiest"]
    again = place(workload, BusiestGpu(), **asked)  # type: ignore[arg-type]
    assert comparable(own.to_dict()) == comparable(again.to_dict())
    hashes = {r.to_dict()["provenance"]["config_hash"] for r in (mixed, own, again)}
    assert len(hashes) == 2


def test_overrides_win_over_names_and_objects_are_not_given_twice(small: list[str]) -> None:
    result = place(overrides=["objective=gpu_count", "solver=greedy", "verify=none", *small])
    assert (result.solver, set(result.terms)) == ("greedy", {"gpu_count"})
    assert place(None, None, verify="none", overrides=small).warnings[0].startswith("no objective given")
    with pytest.raises(InputError, match="solver is given twice"):
        place(solver=Greedy(), overrides=["solver=greedy", *small])
    with pytest.raises(InputError, match=r"solver\.effort says nothing of a solver that is given as an object"):
        place(solver=Greedy(), overrides=["solver.effort=1", *small])


@pytest.mark.parametrize("name", ["two words.csv", "a'b,c=d{e}.csv", "back\\slash$.csv", "back\\'quote.csv", "end\\"])
def test_any_file_name_will_do(name: str, quick: list[str], adapters_csv: Path, tmp_path: Path) -> None:
    path = adapters_csv.rename(tmp_path / name)
    assert place(path, "gpu_count", solver="greedy", verify="none", overrides=quick).objective == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"objective": "latncy"}, "latency"),
        ({"solver": "simplex"}, "milp"),
        ({"overrides": ["engine.max_loras=[1"]}, "cannot be read"),
        ({"overrides": ["workload.pth=x"]}, "pth"),
        ({"overrides": ["workload=file", "workload.path=???"]}, "workload.path is missing"),
        ({"overrides": ["seed=-1"]}, "out of range"),
        ({"workload": "nowhere.csv"}, "nowhere.csv"),
        ({"objective": object()}, "is not a term"),
    ],
)
def test_mistakes_are_input_errors(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        place(**arguments)
    assert caught.value.exit_code == 2
    assert said in str(caught.value)
    assert caught.value.remedy


def test_infeasible_workloads_raise(quick: list[str], tmp_path: Path) -> None:
    path = tmp_path / "hot.csv"
    path.write_text("\n".join([HEADER, *(f"a{i},8,8,200,200" for i in range(6))]) + "\n")
    with pytest.raises(InfeasibleError, match=r"hardware\.count"):
        place(path, "gpu_count", overrides=["hardware.count=1", *quick])


def test_a_program_that_hydra_configures_may_call_place(quick: list[str], adapters_csv: Path) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        place(adapters_csv, "gpu_count", solver="greedy", verify="none", overrides=quick)
        assert GlobalHydra.instance().hydra is before
        assert compose("config")["seed"] == 0
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"workload": 5}, "int is not a workload"),
        ({"workload": [1]}, "list is not a workload"),
        ({"solver": 7}, "7 is not a solver"),
        ({"hardware": 5}, "5 is not a name"),
        ({"overrides": "hardware.count=3"}, "is one text"),
    ],
)
def test_arguments_of_another_kind_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        place(**arguments)
