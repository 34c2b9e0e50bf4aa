"""Hydra's internals are as `twin.config.driver` expects them. When this fails, a new Hydra changed them: read the
docstring of that module, adapt it and `twin.config.entry`, and only then raise the cap in `pyproject.toml`."""

from __future__ import annotations

import argparse
import inspect
import re
import tomllib
from pathlib import Path

import hydra
import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser

from twin.config.driver import USED, VERSION_BASE, parser

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("method", USED)
def test_signatures_of_the_methods_used(method: str) -> None:
    assert tuple(inspect.signature(getattr(Hydra, method)).parameters) == USED[method]


def test_signatures_of_the_functions_used() -> None:
    assert list(inspect.signature(create_config_search_path).parameters) == ["search_path_dir"]
    assert not inspect.signature(get_args_parser).parameters


def test_flags_that_the_dispatcher_reads() -> None:
    flags = vars(parser("python -m x").parse_intermixed_args(["a=1", "-vv", "b=2"]))
    assert set(flags) >= {
        "overrides", "run", "multirun", "cfg", "info", "shell_completion", "help", "hydra_help", "resolve", "package",
        "config_dir", "config_path", "config_name",
    }  # fmt: skip
    assert (flags["overrides"], flags["verbose"]) == (["a=1", "b=2"], 2)


def test_hydra_has_no_flag_of_ours() -> None:
    taken = {s for action in get_args_parser()._actions for s in action.option_strings}
    assert not taken & {"-v", "--verbose"}
    assert isinstance(parser("x"), argparse.ArgumentParser)


def test_the_version_is_the_one_that_was_read() -> None:
    assert hydra.__version__.startswith(f"{VERSION_BASE}.")
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (pin,) = (d for d in dependencies if re.match(r"hydra-core\b", d))
    assert pin == "hydra-core>=1.3.2,<1.4"


def test_internals_are_used_in_one_module() -> None:
    users = [
        str(path.relative_to(ROOT))
        for package in ("twin", "placement", "surrogates", "profiling", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        if "hydra._internal" in re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
    ]
    assert users == ["twin/config/driver.py"]
