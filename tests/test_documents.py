"""What the documents promise works: the program of docs/python.md, and every command line as far as its options go."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, *tags: str) -> list[str]:
    """Bodies of the fenced blocks of a page that have one of these tags, in order."""
    found: list[str] = []
    body: list[str] | None = None
    tag = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("```"):
            if body is not None:
                body.append(line)
        elif body is None:
            body, tag = [], line[3:].strip()
        else:
            if tag in tags:
                found.append("\n".join(body))
            body = None
    return found


def test_the_program_of_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an empty folder; its assertions hold, and it leaves what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    pytest.importorskip("matplotlib").use("agg")
    program = "\n".join(blocks(ROOT / "docs" / "python.md", "python"))
    names: dict[str, object] = {}
    exec(compile(program, "docs/python.md", "exec"), names)  # noqa: S102  our own page
    importlib.import_module("matplotlib.pyplot").close("all")
    assert {p.name for p in tmp_path.iterdir()} == {"latency.png", "growth.png", "out"}
    assert "3 GPUs" in capsys.readouterr().out


#: Packages whose commands are composed.
PROGRAMS = ("placement", "twin", "surrogates", "profiling", "benchmarks")
#: Where the configuration of the examples lies, from whichever folder a page speaks.
EXAMPLES = ROOT / "docs" / "examples" / "my_conf"


def command_lines(text: str) -> Iterator[list[str]]:
    """Words of each `python -m ...` of this project in a shell block, without comments, pipes and what follows `&&`."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for part in re.split(r"&&|\|(?= )|;(?= )", line.strip().removeprefix("$ ")):
            if "python -m" not in part:
                continue
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # environment
                words.pop(0)
            if words[:2] == ["python", "-m"] and words[2].partition(".")[0] in PROGRAMS:
                yield words[2:]


def documented() -> list[tuple[str, list[str]]]:
    """Page and words of every command line in a block of the documents, or in its text with arguments; each once."""
    found: dict[str, tuple[str, list[str]]] = {}
    for page in PAGES:
        outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        inline = [code for code in re.findall(r"`(python -m [^`]+)`", outside) if " " in code[len("python -m ") :]]
        for text in (*blocks(page, "", "bash", "bash test"), *inline):
            for words in command_lines(text):
                found.setdefault(" ".join(words), (page.relative_to(ROOT).as_posix(), words))
    return list(found.values())


def jobs(arguments: list[str]) -> list[list[str]]:
    """What stands for a value or may be left out is made plain; the first and the last job of a sweep."""
    words = [re.sub(r"^\[(?=\+?[a-z_.]+=)", "", w) for w in arguments]
    words = [w.removesuffix("]") if w.count("]") > w.count("[") else w for w in words]
    words = [w for w in words if w not in ("...", "key=value") and not w.endswith(("=...", "=…"))]
    for k in range(1, len(words)):
        if words[k - 1] == "--config-dir":
            words[k] = str(EXAMPLES)
    if not {"-m", "--multirun"} & set(words):
        return [words]
    swept = [w.partition("=") for w in words if w not in ("-m", "--multirun")]
    return [[f"{key}{equals}{value.split(',')[k]}" for key, equals, value in swept] for k in (0, -1)]


@pytest.mark.parametrize(
    ("page", "words"), [pytest.param(page, words, id=f"{page}: {' '.join(words)}") for page, words in documented()]
)
def test_options_of_documented_commands_exist(
    page: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command composes its configuration, and does not run."""
    # A command is a process of its own: what another one has added to Hydra's store is not there.
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", {name: node for name, node in store.repo.items() if name != "hardware"})
    monkeypatch.chdir(ROOT)
    module, arguments = words[0], words[1:]
    package = (ROOT / module.replace(".", "/")).is_dir()
    main = importlib.import_module(f"{module}.__main__" if package else module).main
    for own in jobs(arguments):
        assert main([*own, "--cfg", "job"]) == 0, f"{page}: {capsys.readouterr().err}"


def test_commands_are_found_in_blocks() -> None:
    text = "python -m placement +objective=latency a=b \\\n  c=d   # why\nX=1 python -m twin | tee x\n"
    assert list(command_lines(f"$ python -m pip install . && {text}")) == [
        ["placement", "+objective=latency", "a=b", "c=d"],
        ["twin"],
    ]
    assert jobs(["[out=<folder>]", "[a=1", "b=2]", "model=...", "x=[1,2]"]) == [
        ["out=<folder>", "a=1", "b=2", "x=[1,2]"]
    ]
    assert jobs(["-m", "+objective=a,b", "solver=c"]) == [["+objective=a", "solver=c"], ["+objective=b", "solver=c"]]


def test_the_example_of_the_readme_is_compared_with_a_run() -> None:
    """What the documents show may be off by rounding and by how far a bound got, and by nothing else."""
    loader = importlib.machinery.SourceFileLoader("readme_figures", str(ROOT / "scripts" / "readme-figures"))
    spec = importlib.util.spec_from_loader("readme_figures", loader)
    assert spec is not None
    figures = importlib.util.module_from_spec(spec)
    loader.exec_module(figures)
    simulated = {"ttft_p99_s": 0.2504, "itl_mean_ms": 37.9, "e2e_mean_s": 7.17, "throughput_tps": 2891.0}
    predicted = {**simulated, "itl_mean_ms": 37.8, "rate_req_per_s": 7.1, "load": 0.917}
    gpu = {
        "gpu_id": "gpu000", "setting": {"max_loras": 64, "max_lora_rank": 16}, "decision": "accepted",
        "adapters": [{"rank": 8}] * 178, "predicted": predicted, "simulated": simulated,
        "promises": {"ttft_p99_s": {"use": 0.0212}},
    }  # fmt: skip
    document = {
        "gpus": [gpu], "terms": {"latency": 5.92}, "objective_units": {"latency": "s"}, "objective": 5.92,
        "bound": 5.645, "bound_outer": None, "stopped_by_clock": [],
    }  # fmt: skip
    cells = (
        "gpu000 | 64 x 16 | 178 | 7.1 | 91.7 % | 0.25 | 37.8 / 37.9 | 7.17 / 7.17 | 2,891 / 2,891 | TTFT 2.1 % | yes"
    )
    row = f"| {cells} |"
    line = "latency 5.92 s   bound 5.657   gap 4.4 %   verified"
    assert list(figures.differences(f"{row}\n{line}", document)) == []
    for old, new in (
        (" 178 ", " 150 "),
        ("| yes", "| NO"),
        ("5.657", "6.1"),
        ("gap 4.4", "gap 2.4"),
        ("0.25 ", "0.29 "),
    ):
        wrong = f"{row}\n{line}".replace(old, new)
        assert len(list(figures.differences(wrong, document))) == 1, new
    slow = document | {"bound": 5.3, "stopped_by_clock": ["the bound"]}
    assert list(figures.differences(f"{row}\n{line}", slow)) == []
    assert len(list(figures.differences(f"{row}\n{line}", slow | {"stopped_by_clock": []}))) == 1
    assert len(list(figures.differences(f"{row}\n{line}", slow | {"bound": 5.0}))) == 1
    assert len(list(figures.differences(f"{row}\n{line.replace('gap 4.4', 'gap 2.4')}", slow))) == 1
    assert list(figures.differences(line, document)) == ["0 GPUs are shown, 1 were found"]
    assert len(list(figures.differences(row, document))) == 1


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    places = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", text, flags=re.MULTILINE)
    own = {page.name for page in PAGES if page.name != "README.md"} | {"CHANGELOG.md", "start.md"}
    assert sorted(places) == sorted(own), "README.md is start.md there"


def test_lists_and_tables_of_the_site_begin_after_a_blank_line() -> None:
    """GitHub reads them without one. What is inside a list or a fence stays as it is."""
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "scripts" / "site_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "Text:\n* one\n  more\n* two\n\nText\n| a |\n|---|\n```bash test\n* x\n```\n1. first"
    page = text.splitlines()
    spaced = ["Text:", "", *page[1:6], "", *page[6:8], "```bash", *page[9:11], "", page[11]]
    assert module.spaced(page) == spaced
