"""A configuration from a stranger builds the components of its places, and nothing else runs, not even an import."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from placement.command import APP as PLACEMENT
from placement.config import COMPONENTS, load_run
from twin.config.components import check_targets, check_trust, components_at
from twin.config.compose import compose
from twin.config.entry import run_app
from twin.config.instantiate import build, locate
from twin.errors import InputError
from twin.workload.adapter import Slo
from twin.workload.workload import Workload

#: Nodes that stand as `workload`, and what the refusal says.
HOSTILE: dict[str, tuple[Any, str]] = {
    "a function of the project": ({"_target_": "twin.files.write_text", "path": "x", "text": "y"}, "write_text"),
    "a component of another group": ({"_target_": "placement.solvers.milp.MilpSolver"}, "MilpSolver"),
    "a component deeper than its place": ({"drift": {"_target_": "twin.sources.synthetic.power_law"}}, "drift"),
    "a foreign function": ({"_target_": "os.system", "command": "true"}, "os.system"),
    "nested in an argument": ({"n_adapters": {"_target_": "twin.files.write_text"}}, "workload.n_adapters"),
    "nested in a list": ({"ranks": [8, {"_target_": "twin.files.write_text"}]}, "workload.ranks[1]"),
    "nested in a component": (
        {"drift": {"_target_": "twin.traffic.drift.Peaks", "a": {"_target_": "os.getcwd"}}},
        ".a",
    ),
    "partial": ({"_partial_": True}, "_partial_"),
    "partial of a function": ({"_target_": "twin.files.write_text", "_partial_": True}, "write_text"),
    "positional arguments": ({"_args_": [1]}, "_args_"),
    "not recursive": ({"_recursive_": False}, "_recursive_"),
    "converted": ({"_convert_": "object"}, "_convert_"),
    "a dunder": ({"_target_": "twin.sources.synthetic.power_law.__globals__.get"}, "__globals__"),
    "a private name": ({"_target_": "twin.sources.synthetic._lengths"}, "_lengths"),
    "a module behind a module": ({"_target_": "twin.sources.synthetic.np.fromfile"}, "fromfile"),
    "no text": ({"_target_": ["twin.files.write_text"]}, "not text"),
    "nothing": ({"_target_": None}, "not text"),
    "no name": ({"_target_": ""}, "''"),
    "spaces": ({"_target_": " twin.sources.synthetic.power_law"}, "may not"),
}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return compose(PLACEMENT, ["+objective=latency"])


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_workload_is_refused_before_anything_is_built(
    case: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twin.config.instantiate.importlib.import_module", None)
    node, expected = HOSTILE[case]
    changed = copy.deepcopy(config)
    changed["workload"].update(node)
    with pytest.raises(InputError) as caught:
        load_run(changed)
    assert expected in f"{caught.value}"
    assert caught.value.where.startswith("workload")
    assert caught.value.remedy


@pytest.mark.parametrize("group", ["model", "hardware", "calibration", "engine", "experiment", "seed"])
def test_nothing_is_built_where_nothing_is_listed(group: str, config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="may not be instantiated"):
        check_targets({**config, group: {"_target_": "twin.workload.adapter.Slo"}}, COMPONENTS)


def test_the_refusal_says_what_is_allowed_there() -> None:
    with pytest.raises(InputError) as caught:
        check_targets({"constraint": {"_target_": "twin.figures.health.Stabel"}}, COMPONENTS)
    assert "did you mean 'twin.figures.health.Stable'?" in caught.value.problem
    assert caught.value.where == "constraint"
    assert "allowed here: twin.figures.health.Published, twin.figures.health.Stable" in caught.value.remedy
    assert "allow_modules=[twin.figures.health]" in caught.value.remedy


@pytest.mark.parametrize("target", sorted({name for names in COMPONENTS.values() for name in names}))
def test_every_listed_component_exists(target: str) -> None:
    found = locate(target, "here", {"here": (target,)})
    # Where it is defined, or the room that exports it.
    home, _, name = target.rpartition(".")
    assert found.__qualname__ == name
    assert f"{found.__module__}.".startswith(f"{home}.")


def test_places_of_keys_and_of_positions() -> None:
    assert components_at({"a.*.b": ("x",)}, "a.key.b") == components_at({"a.*.b": ("x",)}, "a[3].b") == ("x",)
    for other in ("a.b", "a.key", "a.key.b.c", "", "b.key.b"):
        assert components_at({"a.*.b": ("x",)}, other) == ()


def test_what_is_not_callable_or_gone() -> None:
    for target in (
        "placement.nowhere.f",
        "twin.files.nothing",
        "placement",
        "twin.workload.adapter.DEFAULT_TTFT_P99_S",
    ):
        with pytest.raises(InputError, match="does not exist or is not callable"):
            locate(target, "here", {"here": (target,)})


def test_a_workload_can_be_written_out() -> None:
    lengths = {"_target_": "twin.workload.adapter.Lengths", "mean": 200, "cv": 1.0}
    adapter = {
        "_target_": "twin.workload.adapter.Adapter", "adapter_id": "a", "rank": 8, "rate_req_per_s": 0.5,
        "prompt_tokens": lengths, "output_tokens": lengths,
        "rate_process": {"_target_": "twin.workload.rates.OnOff", "on_s": 600, "off_s": 600},
    }  # fmt: skip
    built = build({"_target_": "twin.workload.workload.Workload", "adapters": [adapter]}, "workload", COMPONENTS)
    assert isinstance(built, Workload)
    assert built.adapters[0].output_tokens.mean == 200


def test_an_allowed_module_provides_any_callable_at_any_place() -> None:
    node = {"_target_": "fractions.Fraction", "numerator": 3}
    with pytest.raises(InputError, match="allow_modules"):
        build(node, "x", {})
    assert build(node, "x", {}, ["fractions"]) == 3
    assert build({"deep": [node]}, "x", {}, ["fractions"]) == {"deep": [3]}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_own_parts.py").write_text(
        "import os\nfrom twin.files import write_text\nfrom twin.workload.adapter import Slo\n_hidden = print\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_own_parts", raising=False)
    return "my_own_parts"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("os.system", "defined in"),
        ("write_text", "defined in 'twin.files'"),
        ("_hidden", "'_hidden' is not a public name"),
        ("__loader__.load_module", "'__loader__' is not a public name"),
        ("Slo.__init__", "'__init__' is not a public name"),
    ],
)
def test_an_allowed_module_does_not_open_what_it_imported(own: str, name: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        build({"_target_": f"{own}.{name}"}, "constraint", COMPONENTS, [own])


def test_an_allowed_module_may_pass_on_a_component_of_the_place(own: str) -> None:
    assert isinstance(build({"_target_": f"{own}.Slo"}, "constraint.slo", COMPONENTS, [own]), Slo)
    with pytest.raises(InputError, match="defined in"):
        build({"_target_": f"{own}.Slo"}, "solver", COMPONENTS, [own])


@pytest.mark.parametrize("module", ["", ".", "a b", "a.", "1"])
def test_allow_modules_takes_names_of_modules(module: str) -> None:
    with pytest.raises(InputError, match="is not a module"):
        check_targets({}, COMPONENTS, [module])


def from_a_stranger(folder: Path, text: str) -> list[str]:
    """Arguments of a run whose objective is a file that somebody sent."""
    (folder / "conf" / "objective").mkdir(parents=True)
    (folder / "conf" / "objective" / "theirs.yaml").write_text(text.replace("FOLDER", str(folder)))
    chosen = ["+objective=theirs", "surrogate=analytic", "verify=none", "solver=greedy", "workload.n_adapters=4"]
    return ["--config-dir", str(folder / "conf"), *chosen, f"hydra.run.dir={folder}/out"]


WRITE = "_target_: twin.files.write_text\npath: FOLDER/written\ntext: x\n"
FILES = {
    "an objective": ("# @package objective\n" + WRITE, "not a component that belongs here"),
    "a workload": ("# @package workload\n" + WRITE, "not a component that belongs here"),
    "a term": (
        "# @package objective\n_target_: placement.problem.objectives.objective\nterms:\n  x: {_target_: os.getcwd}\n",
        "objective.terms.x",
    ),
    "a name from the environment": ("# @package objective\n_target_: ${oc.env:THEIR_TARGET}\n", "write_text"),
    "a decoded name": ("# @package objective\n_target_: ${oc.decode:'[os.system]'}\n", "not text"),
    "a resolver of its own": ("# @package objective\n_target_: ${os.system:true}\n", "os.system"),
    "a node from elsewhere": (
        "# @package _global_\nobjective: ${workload.theirs}\nworkload:\n  theirs: {_target_: os.getcwd}\n",
        "os.getcwd",
    ),
    "trust in itself": (
        "# @package _global_\nallow_modules: [os]\nobjective: {_target_: os.getcwd}\n",
        "stands in a configuration file",
    ),
    "trust by a sweep": (
        "# @package _global_\nobjective: {_target_: os.getcwd}\n"
        "hydra: {mode: MULTIRUN, sweep: {dir: FOLDER/out}, sweeper: {params: {allow_modules: '[os]'}}}\n",
        "stands in a configuration file",
    ),
    "a callback of Hydra": ("# @package hydra.callbacks.x\n" + WRITE, "not part of Hydra"),
    "a launcher of Hydra": ("# @package _global_\nhydra: {launcher: {_target_: os.getcwd}}\n", "not part of Hydra"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_from_a_stranger_runs_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THEIR_TARGET", "twin.files.write_text")
    monkeypatch.chdir(tmp_path)
    text, expected = FILES[case]
    assert run_app(PLACEMENT, from_a_stranger(tmp_path, text)) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "written").exists()


def test_modules_named_on_the_command_line_are_trusted(own: str, tmp_path: Path) -> None:
    check_trust({"allow_modules": [own]}, ["seed=1", f"allow_modules=[{own}]"])
    check_trust({"allow_modules": [own]}, [f"+allow_modules=[{own}]"])
    check_trust({"allow_modules": []}, [])
