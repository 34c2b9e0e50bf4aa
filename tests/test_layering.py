"""The packages depend on each other in one direction, and each heavy library is imported in one place.

Imports are read from the syntax tree, function-level ones included, so that nothing slips in lazily either.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Which packages of this project a package may import.
MAY_IMPORT = {
    "twin": {"twin"},
    "profiling": {"profiling", "twin"},
    "surrogates": {"surrogates", "twin"},
    "placement": {"placement", "surrogates", "twin"},
    "benchmarks": {"benchmarks", "placement", "profiling", "surrogates", "twin"},
}

#: Where a heavy library may be imported: files, or folders ending in `/`.
HEAVY = {
    "vllm": ("profiling/",),
    # vLLM's own classes are made of torch.
    "torch": (
        "surrogates/training/networks.py",
        "surrogates/training/train.py",
        "profiling/vllm/adapters.py",
        "profiling/vllm/scheduler.py",
    ),
    "pytorch_lightning": ("surrogates/training/networks.py", "surrogates/training/train.py"),
    "lightning": (),
    "ortools": ("placement/solvers/assignment.py",),
    "pyomo": ("placement/solvers/perspective.py",),
    "highspy": ("placement/solvers/highs.py",),
}

#: Modules that turn a command line into plain values; no other module knows Hydra or OmegaConf.
ENTRY_MODULES = ("twin/config/driver.py", "twin/config/entry.py", "twin/config/mistakes.py")
HEAVY |= {"hydra": ENTRY_MODULES, "omegaconf": ENTRY_MODULES}

TORCH_MODULES = HEAVY["torch"]
SOLVER_LIBRARIES = ("ortools", "pyomo", "highspy")
FILES = sorted(path.relative_to(ROOT) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(source: str) -> Iterator[str]:
    """Dotted names of the modules that a source file imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            yield node.module or ""
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name | ast.Attribute)
            and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def forbidden_imports(path: Path, source: str) -> list[str]:
    """What a file of this repository imports although it may not."""
    package = path.parts[0]
    found = []
    for name in imported(source):
        top = name.split(".")[0]
        if top in MAY_IMPORT and top not in MAY_IMPORT[package]:
            found.append(f"{path} imports {name}: {package} may only use {', '.join(sorted(MAY_IMPORT[package]))}")
        places = HEAVY.get(top)
        if places is not None and package != "benchmarks":
            allowed = any(path.as_posix().startswith(p) if p.endswith("/") else path.as_posix() == p for p in places)
            if not allowed:
                found.append(f"{path} imports {name}, which belongs in {', '.join(places) or 'no module'}")
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    assert forbidden_imports(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("twin/simulation.py", "from surrogates.model.planning import OptionModel"),
        ("twin/simulation.py", "def f():\n    import placement.problem.problem"),
        ("surrogates/training/sampling.py", "import profiling"),
        ("surrogates/model/prediction.py", "import torch.nn"),
        ("surrogates/model/prediction.py", "import importlib\nimportlib.import_module('torch')"),
        ("placement/pipeline.py", "from profiling.fit.calibration import fit"),
        ("placement/solvers/certificate.py", "import highspy"),
        ("placement/problem/objectives.py", "from omegaconf import DictConfig"),
        ("surrogates/model/planning.py", "from placement.problem.problem import Term"),
    ],
)
def test_the_check_sees_a_forbidden_import(path: str, source: str) -> None:
    assert len(forbidden_imports(Path(path), source)) == 1


def test_the_room_of_configuration_knows_no_concept() -> None:
    """Every command is read by it, so it may use nothing of theirs."""
    for path in (p for p in FILES if p.parts[:2] == ("twin", "config")):
        own = {n for n in imported((ROOT / path).read_text(encoding="utf-8")) if n.split(".")[0] in MAY_IMPORT}
        outside = {n for n in own if not n.startswith("twin.config.")}
        assert outside <= {"twin.errors", "twin.files", "twin.wording"}, path


def test_the_twin_names_no_class_of_placement() -> None:
    for path in (p for p in FILES if p.parts[0] == "twin"):
        assert not re.search(r"placement(\.\w+)*\.[A-Z]", (ROOT / path).read_text(encoding="utf-8")), path


def test_a_solver_module_uses_one_modelling_library() -> None:
    """HiGHS may be called from Pyomo models, but CP-SAT and the linear solvers do not share a module."""
    for path in FILES:
        libraries = {name.split(".")[0] for name in imported((ROOT / path).read_text(encoding="utf-8"))}
        assert not ("ortools" in libraries and libraries & {"pyomo", "highspy"}), path


def modules_loaded_by(statements: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter after some statements."""
    script = f"{statements}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}}, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_main_job_loads_no_torch() -> None:
    names = [
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.parts[0] in ("twin", "surrogates", "placement") and path.as_posix() not in TORCH_MODULES
    ]
    assert names, "no modules found"
    loaded = modules_loaded_by("\n".join(f"import {name}" for name in names))
    assert loaded & {"torch", "pytorch_lightning", "vllm"} == set()


@pytest.mark.parametrize("package", ["twin", "surrogates", "placement", "profiling"])
def test_importing_a_package_is_cheap(package: str) -> None:
    assert modules_loaded_by(f"import {package}") & (set(HEAVY) | {"numba", "scipy", "pandas"}) == set()


def test_reading_the_command_line_loads_no_solver() -> None:
    """A mistake in the configuration is reported before any solver is paid for."""
    assert modules_loaded_by("import placement.__main__") & set(SOLVER_LIBRARIES) == set()
