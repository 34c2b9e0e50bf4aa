"""The repository as a stranger gets it: what the documents promise exists, and nothing private or stray is in it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("twin", "profiling", "surrogates", "placement")
MAX_FILE_BYTES = 1 << 20

#: Hosts that a link in the repository may name; everything else is a slip.
LINK_HOSTS = {
    "arxiv.org", "doi.org", "docs.vllm.ai", "example.com", "github.com", "hydra.cc", "json-schema.org",
    "keepachangelog.com", "localhost", "semver.org", "www.apache.org", "www.w3.org",
}  # fmt: skip


def repository_files() -> list[Path]:
    """Files under version control or about to be, relative to the root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    return sorted(Path(name) for name in listing.stdout.split("\0") if name and (ROOT / name).is_file())


def text_files() -> dict[Path, str]:
    texts = {}
    for path in repository_files():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data:
            texts[path] = data.decode("utf-8")
    assert Path("pyproject.toml") in texts
    return texts


def readme_commands() -> ModuleType:
    """`scripts/readme-commands` as a module."""
    loader = importlib.machinery.SourceFileLoader("readme_commands", str(ROOT / "scripts" / "readme-commands"))
    spec = importlib.util.spec_from_loader("readme_commands", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_tagged_blocks_are_read_in_order_and_others_are_left_alone() -> None:
    text = "a\n```bash test\none\ntwo\n```\n```bash\nthree\n```\n```text\n```bash test\n```\n```bash test\nfour\n```\n"
    assert readme_commands().tagged_blocks(text) == ["one\ntwo", "four"]


def test_readme_starts_with_a_plain_install_and_goes_on_to_the_tests() -> None:
    install, test = readme_commands().tagged_blocks((ROOT / "README.md").read_text(encoding="utf-8"))[:2]
    assert install == "python -m pip install . && python -m placement +objective=latency"
    assert "[test]" in test
    assert "python -m pytest" in test


def test_modules_named_in_the_documents_exist() -> None:
    """`python -m name` in a document names a module of this project that is there."""
    checked = 0
    for path, text in text_files().items():
        if path.suffix != ".md":
            continue
        for name in re.findall(r"python -m ([a-z_][a-z_.]*[a-z_])", text):
            parts = name.split(".")
            if parts[0] not in (*PACKAGES, "benchmarks"):
                continue
            place = ROOT.joinpath(*parts)
            assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), f"{path}: python -m {name}"
            checked += 1
    assert checked


def test_links_between_documents_lead_somewhere() -> None:
    for path, text in text_files().items():
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
                if not re.match(r"[a-z]+:", target):
                    assert (ROOT / path.parent / target).exists(), f"{path} links to {target}"


def test_every_document_is_on_the_map() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [p for p in repository_files() if p.parts[0] == "docs" and p.name != "index.md"]
    assert [str(p) for p in pages if f"]({p.relative_to('docs').as_posix()})" not in index] == []


def test_links_name_known_hosts_only() -> None:
    found = {
        (str(path), host)
        for path, text in text_files().items()
        for host in re.findall(r"https?://([A-Za-z0-9.-]+)", text)
        if host not in LINK_HOSTS and not re.fullmatch(r"127\.0\.0\.1", host)
    }
    assert found == set()


def test_no_path_of_somebodys_machine() -> None:
    pattern = re.compile(r"(?<![\w./$}~:*-])/(?:home|root|Users|mnt|opt|work|scratch)/\w")
    found = [(str(path), m.group()) for path, text in text_files().items() for m in pattern.finditer(text)]
    assert found == []


def test_files_are_small_and_nothing_needs_unpickling() -> None:
    for path in repository_files():
        assert path.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".npy"}, path
        assert (ROOT / path).stat().st_size <= MAX_FILE_BYTES, path


def test_text_files_end_with_one_newline_and_have_no_trailing_space() -> None:
    for path, text in text_files().items():
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), path
        assert not re.search(r"[ \t]+$", text, flags=re.MULTILINE), path


def test_scripts_are_executable_and_stop_at_the_first_error() -> None:
    # Modules that another program imports have a suffix.
    scripts = [p for p in repository_files() if p.parts[0] in ("scripts", ".ci") and not p.suffix]
    expected = {".ci/full", ".ci/run", "scripts/check", "scripts/check-processors", "scripts/readme-commands"}
    assert expected <= {p.as_posix() for p in scripts}
    for path in scripts:
        assert os.access(ROOT / path, os.X_OK), path
        text = (ROOT / path).read_text(encoding="utf-8")
        assert text.startswith("#!"), path
        assert "bash" not in text.splitlines()[0] or "\nset -euo pipefail\n" in text, path


def test_version_has_an_entry_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(PROJECT['project']['version'])}\]", changelog, flags=re.MULTILINE)


def test_every_file_of_a_package_is_shipped() -> None:
    """A module needs an `__init__.py` beside it; any other file has to match `package-data`."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    for path in repository_files():
        package = path.parts[0]
        if package not in (*PACKAGES, "conf"):
            continue
        name = "twin.conf" if package == "conf" else package
        if path.suffix == ".py":
            assert (ROOT / path.parent / "__init__.py").is_file(), f"{path.parent} lacks __init__.py"
        elif path.name != "py.typed":
            inside, beside = path.relative_to(package), Path(path.name)  # "*" means every package, sub-packages too
            known = [(inside, p) for p in patterns.get(name, ())] + [(beside, p) for p in patterns["*"]]
            assert any(glob_matches(*pair) for pair in known), f"{path} is not in package-data"


def test_every_package_is_listed() -> None:
    """setuptools looks for no package that lies elsewhere, as `twin.conf` does, so a new folder is named by hand."""
    folders = {p.parent for p in repository_files() if p.name == "__init__.py" and p.parts[0] in PACKAGES}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(
        {".".join(folder.parts) for folder in folders} | {"twin.conf"}
    )


def glob_matches(path: Path, pattern: str) -> bool:
    """Whether a path matches a glob in which `**/` stands for any folders, none included."""
    regex = re.escape(pattern).replace(r"\*\*/", "(?:[^/]+/)*").replace(r"\*", "[^/]*")
    return re.fullmatch(regex, path.as_posix()) is not None


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("a.yaml", "**/*.yaml", True),
        ("x/y/a.yaml", "**/*.yaml", True),
        ("x/a.yml", "**/*.yaml", False),
        ("weights/m/a.json", "weights/**/*.json", True),
        ("other/a.json", "weights/**/*.json", False),
    ],
)
def test_globs_are_understood(path: str, pattern: str, matches: bool) -> None:
    assert glob_matches(Path(path), pattern) is matches


def test_the_plain_install_needs_no_training_library() -> None:
    names = {re.split(r"[\[<>=!~ ;]", entry)[0] for entry in PROJECT["project"]["dependencies"]}
    assert names & {"torch", "pytorch-lightning", "lightning", "vllm"} == set()
    assert "torch==2.13.*" in PROJECT["project"]["optional-dependencies"]["train"]
