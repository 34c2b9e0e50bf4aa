"""The options of `conf/workload` and the functions that they name agree."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from twin.config.instantiate import build, locate
from twin.sources.components import WORKLOAD
from twin.workload.workload import Workload

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "workload"
OPTIONS = sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stem)
READERS = [path for path in OPTIONS if ": ???" in path.read_text(encoding="utf-8")]
GENERATED = [path for path in OPTIONS if path not in READERS]


def load(path: Path) -> tuple[Callable[..., Workload], dict[str, Any]]:
    node = yaml.safe_load(path.read_text(encoding="utf-8").replace("${seed}", "0"))
    module, _, name = node.pop("_target_").rpartition(".")
    assert node.pop("_convert_") == "all", "lists arrive as plain lists"
    if node.get("drift") is not None:
        fields = inspect.signature(locate(node["drift"]["_target_"], "workload.drift", WORKLOAD)).parameters
        assert set(node["drift"]) == {"_target_", *fields}, "every argument of the model can be overridden"
        node["drift"] = build(node["drift"], "workload.drift", WORKLOAD)
    return getattr(importlib.import_module(module), name), node


def test_all_options_are_there() -> None:
    names = {path.stem for path in OPTIONS}
    sources = {"default", "published", "power_law", "file", "access_log", "azure", "mooncake", "servegen"}
    assert names >= sources | {"unpredictable", "on_off", "peaks", "reshuffled"}


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_an_option_lists_every_argument_so_that_each_can_be_overridden(path: Path) -> None:
    function, values = load(path)
    assert set(values) == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_values_of_readers_are_the_functions_own_defaults(path: Path) -> None:
    """Whether called from Python or by name, a reader does the same."""
    function, values = load(path)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            # An interpolation names what the rest of the configuration says.
            value = None if str(values[name]).startswith("${oc.select:") else values[name]
            assert value == default, name


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.stem)
def test_generated_workloads_are_made(path: Path) -> None:
    function, values = load(path)
    workload = function(**values)
    assert workload.notes
    if "total_rate_req_per_s" in values:
        assert workload.total_rate_req_per_s == pytest.approx(values["total_rate_req_per_s"])


def test_the_default_is_mid_sized_skewed_mixed_and_partly_bursty() -> None:
    function, values = load(FOLDER / "default.yaml")
    adapters = function(**values).adapters
    ranked = [a for a in adapters if a.rank > 0]
    assert 200 <= len(ranked) <= 500
    assert {a.rank for a in ranked} == {8, 16, 32}
    assert len(adapters) == len(ranked) + 1, "requests to the base model"
    rates = sorted((a.rate_req_per_s for a in ranked), reverse=True)
    assert sum(rates[: len(rates) // 10]) > 0.5 * sum(rates)
    assert 0.1 < sum(a.arrival_cv > 1.5 for a in ranked) / len(ranked) < 0.4


def test_reading_a_workload_loads_no_compiled_code() -> None:
    """A typo in an option should not wait for a compiler."""
    modules = {load(path)[0].__module__ for path in OPTIONS}
    script = f"import sys\nfor name in {sorted(modules)!r}: __import__(name)\nprint('numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=FOLDER.parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
