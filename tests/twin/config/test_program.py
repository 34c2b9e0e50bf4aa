"""Commands without groups: surrogates, profiling and benchmarks are read by the reader of the main job."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from profiling.__main__ import COMMANDS as PROFILING, main as profiling
from surrogates.__main__ import COMMANDS as SURROGATES, main as surrogates
from twin.config.entry import App, run_app
from twin.config.program import command, run_subcommand
from twin.config.ranges import Range
from twin.errors import InfeasibleError, InputError, NoSolutionError

ROOT = Path(__file__).resolve().parents[3]
BENCHMARKS = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if "\nAPP = command(" in p.read_text())
log = logging.getLogger("twin.tests")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True, slots=True)
class Options:
    data: str
    every: Annotated[int, Range(1, unit="runs")] = 1
    share: float = 0.5
    names: tuple[str, ...] = ()
    out: str = ""


def app(run: Callable[[Options], int | None]) -> App:
    return command("things count", Options, run, about="Counts things.")


def seen(words: Sequence[str]) -> Options:
    options: list[Options] = []
    assert run_app(app(options.append), words) == 0
    (found,) = options
    return found


def test_defaults_types_and_text_as_it_stands(tmp_path: Path) -> None:
    assert seen(["data=x"]) == Options("x")
    assert seen(["data=/no where,b", "every=3", "share=1", "names=[a,b]"]) == Options("/no where,b", 3, 1.0, ("a", "b"))
    assert seen(["+data=2026", "out="]) == Options("2026")
    assert seen(["data=it's"]).data == "it's"
    assert not list(tmp_path.iterdir()), "such a command has no output folder"


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ([], ["data is missing", "set data=..."]),
        (["data=x", "every=0"], ["every = 0 is out of range", "where:  every", "at least 1 runs"]),
        (["data=x", "every=many"], ["every = 'many' is not a whole number"]),
        (["data=x", "evry=2"], ["'evry'", "valid: data", "did you mean 'every'"]),
        (["data"], ["'data'", "key=value"]),
        (["data=x", "names=[a"], ["names=[a", "cannot be read"]),
    ],
)
def test_bad_words_are_named_with_place_and_remedy(
    words: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(app(lambda options: None), words) == 2
    captured = capsys.readouterr()
    for text in (*texts, "remedy"):
        assert text in captured.err
    assert "Traceback" not in captured.err
    assert not captured.out


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (InputError("bad"), 2), (InfeasibleError("none"), 3), (NoSolutionError("not found"), 4),
        (KeyboardInterrupt(), 130), (ZeroDivisionError(), 1),
    ],
)  # fmt: skip
def test_exit_codes(raised: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: Options) -> None:
        raise raised

    assert run_app(app(fail), ["data=x"]) == code
    assert capsys.readouterr().err


def test_a_sweep_runs_every_job_and_ends_with_the_worst_code() -> None:
    runs: list[Options] = []

    def run(options: Options) -> int:
        runs.append(options)
        return 4 if options.every == 1 else 0

    assert run_app(app(run), ["-m", "data=a,b", "every=1,2"]) == 4
    assert [(o.data, o.every) for o in runs] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app(lambda options: None), ["--help"]) == 0
    out = capsys.readouterr().out
    assert "Counts things." in out
    assert "data=... every=1 share=0.5" in out


@pytest.mark.parametrize(
    ("flag", "levels"), [(None, ["warn"]), ("-v", ["warn", "done"]), ("-vv", ["warn", "done", "x"])]
)
def test_verbosity_decides_what_stderr_shows(
    flag: str | None, levels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: Options) -> None:
        log.warning("warn")
        log.info("done")
        log.debug("x")
        logging.getLogger("numba").debug("noise")
        print("table")

    assert run_app(app(run), [*([flag] if flag else []), "data=x"]) == 0
    captured = capsys.readouterr()
    shown = [line for line in captured.err.splitlines() if "twin.tests" in line]
    assert [line.rpartition(" ")[2] for line in shown] == levels
    assert captured.out == "table\n"
    assert "noise" not in captured.err


def test_verbosity_reaches_the_jobs_of_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app(lambda options: log.info("at work")), ["-v", "-m", "data=x", "every=1,2"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("INFO twin.tests: at work") == 2
    assert not captured.out


def test_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {"count": app(lambda options: None)}
    for words, code, text in (
        ([], 2, "use one of count"),
        (["cuont"], 2, "did you mean 'count'"),
        (["--help"], 0, "All about things"),
        (["count", "--help"], 0, "Counts things"),
        (["-v", "count", "data=x"], 0, ""),
    ):
        assert run_subcommand("python -m things", commands, words, about="All about things.") == code
        captured = capsys.readouterr()
        assert text in captured.out + captured.err


@pytest.mark.parametrize(
    ("main", "words", "text"),
    [
        (profiling, ["fit"], "data is missing"),
        (profiling, ["crossvalidate", "data=x", "folds=1"], "folds = 1 is out of range"),
        (profiling, ["memory_gap", "date=x"], "data is missing"),
        (surrogates, ["optimum", "source=oracle"], "source 'oracle' is unknown"),
        (surrogates, ["rays", "spec.rays=-1"], "spec.rays = -1 is out of range"),
        (surrogates, ["rays", "spec.ray=1"], "did you mean 'rays'"),
        (surrogates, ["rays", "spec.grid.max_loras=[0]"], "max_loras = 0 is out of range"),
        (surrogates, ["rays", "threads=0"], "threads = 0 is out of range"),
        (surrogates, ["rays", "spec.calibrations=[nowhere]"], "'nowhere' does not exist"),
        (profiling, ["fit", "data=.", "model=nowhere"], "is not in the data folder"),
        (surrogates, ["residual", "simulat=x"], "did you mean 'simulate'"),
        (surrogates, ["residual", "training.folds=9"], "training.members 5 is below training.folds 9"),
        (surrogates, ["residual", "simulate=false", "rays.out=nowhere"], "no rays in 'nowhere'"),
    ],
)
def test_the_real_commands_name_what_is_wrong(
    main: Callable[[Sequence[str]], int], words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_read_by_the_same_reader(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.main(["--help"]) == 0
    assert "Options: " in capsys.readouterr().out
    assert module.main(["nonsense=1"]) == 2
    assert "valid: " in capsys.readouterr().err


def test_every_command_is_covered_above() -> None:
    assert len(BENCHMARKS) >= 9
    assert set(PROFILING) >= {"fit", "crossvalidate", "memory_gap"}
    assert set(SURROGATES) == {"optimum", "rays", "residual", "tree"}
    assert "hydra" in sys.modules
