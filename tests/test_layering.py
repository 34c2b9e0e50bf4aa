"""The packages, and the rooms inside each, depend on each other in one direction; heavy libraries have one place each.

Imports are read from the syntax tree, function-level ones included, so that nothing slips in lazily either.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

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
    "aiohttp": ("twin/client/load.py",),
    "aiconfigurator_core": ("profiling/derive/operators.py",),
    # vLLM's own classes are made of torch.
    "torch": (
        "surrogates/residual/networks.py",
        "surrogates/residual/training.py",
        "profiling/vllm/adapters.py",
        "profiling/vllm/scheduler.py",
    ),
    "pytorch_lightning": ("surrogates/residual/training.py",),
    "lightning": (),
    "sklearn": ("surrogates/tree.py",),
    "ortools": ("placement/solvers/assignment.py",),
    "pyomo": ("placement/solvers/perspective.py",),
    "highspy": ("placement/solvers/highs.py",),
}

#: Modules that turn a command line into plain values; no other module knows Hydra or OmegaConf.
ENTRY_MODULES = (
    "twin/config/compose.py",
    "twin/config/driver.py",
    "twin/config/entry.py",
    "twin/config/mistakes.py",
    "twin/config/together.py",
)
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
        ("surrogates/residual/mixes.py", "import profiling"),
        ("surrogates/model/analytic.py", "import torch.nn"),
        ("surrogates/model/analytic.py", "import importlib\nimportlib.import_module('torch')"),
        ("placement/pipeline/job.py", "from profiling.fit.calibration import fit"),
        ("placement/solvers/certificate.py", "import highspy"),
        ("placement/problem/objectives.py", "from omegaconf import DictConfig"),
        ("surrogates/model/planning.py", "from placement.problem.problem import Term"),
    ],
)
def test_the_check_sees_a_forbidden_import(path: str, source: str) -> None:
    assert len(forbidden_imports(Path(path), source)) == 1


def rooms_of(document: str, package: str) -> dict[str, set[str]]:
    """The table of a package's rooms in docs/architecture.md, in order: room -> rooms that it imports."""
    section = document.split(f"\n### `{package}`\n")[1].split("\n#")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): set(re.findall(r"`(\w+)`", row[2] if len(row) > 2 else "")) for row in rows}


def module_of(path: Path) -> tuple[str, ...]:
    return path.with_suffix("").parts[: -1 if path.stem == "__init__" else None]


def modules_imported(path: Path, known: Collection[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Modules of this project that a file imports; `from package import module` names the module."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for parts in (tuple(name.split(".")) for name in names):
            found |= {parts if parts in known else parts[:-1]} & set(known)
    return found - {module_of(path)}


def rooms_imported(package: str) -> dict[str, set[str]]:
    """What each room of a package imports of its own package, by the code."""
    known = {module_of(path) for path in FILES}
    found: dict[str, set[str]] = {}
    for path in (p for p in FILES if p.parts[0] == package and len(module_of(p)) > 1):
        room = module_of(path)[1]
        others = {m[1] for m in modules_imported(path, known) if m[0] == package and len(m) > 1}
        found.setdefault(room, set()).update(others - {room})
    return found


@pytest.mark.parametrize("package", sorted(MAY_IMPORT.keys() - {"benchmarks"}))
def test_rooms_are_those_of_the_architecture_page(package: str) -> None:
    table = rooms_of((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), package)
    assert rooms_imported(package) == table
    below: set[str] = set()
    for room, imports in table.items():
        assert imports <= below, f"{package}.{room} imports {imports - below}, which the table lists further down"
        below.add(room)


def circles(imports: Mapping[Any, set[Any]]) -> set[Any]:
    """Modules that import each other in a circle, and those that import one of these."""
    left = dict(imports)
    while leaves := {module for module, wanted in left.items() if not wanted & left.keys()}:
        left = {module: wanted for module, wanted in left.items() if module not in leaves}
    return set(left)


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a", "b", "c"}


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {module_of(path) for path in FILES}
    assert circles({module_of(path): modules_imported(path, modules) for path in FILES}) == set()


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
