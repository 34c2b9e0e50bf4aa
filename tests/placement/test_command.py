"""The command line: what it accepts, what it writes, and its exit codes."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from placement.__main__ import main
from placement.command import normalised
from placement.problem.solver import SolveReport
from placement.verify import ColumnVerdict, Decision, Verification
from tests.placement.conftest import HEADER
from twin.server.column import Column

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def documents(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(p.read_text()) for p in sorted(tmp_path.glob("**/placement.json"))]


def test_objective_may_be_given_with_and_without_plus() -> None:
    assert normalised(["objective=latency", "solver=milp"]) == ["+objective=latency", "solver=milp"]
    assert normalised(["objective=[a,b]"]) == ["+objective=[a,b]"]
    assert normalised(["-m", "objective=a,b", "+objective=c", "objective.terms.x.weight=2"]) == [
        "-m", "+objective=a,b", "+objective=c", "objective.terms.x.weight=2",
    ]  # fmt: skip


@pytest.mark.parametrize("spelling", ["+objective=latency", "objective=latency"])
def test_run_writes_verified_placement(
    spelling: str, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([spelling, "solver=greedy", *small]) == 0
    (data,) = documents(tmp_path)
    assert data["status"] == "verified"
    assert set(data["terms"]) == {"latency"}  # type: ignore[call-overload]
    assert 0 < data["bound"] <= data["objective"]  # type: ignore[operator]
    out = capsys.readouterr().out
    assert "verified" in out
    assert "placement.json" in out


def test_no_objective_means_gpu_count_and_says_so(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify=none", *small]) == 0
    (data,) = documents(tmp_path)
    assert data["status"] == "unverified"
    assert data["terms"] == {"gpu_count": 1.0}
    assert "no objective given: gpu_count" in capsys.readouterr().out


def test_two_objectives_merge(small: list[str], tmp_path: Path) -> None:
    assert main(["objective=[gpu_count,latency]", "solver=greedy", "verify=none", *small]) == 0
    assert set(documents(tmp_path)[0]["terms"]) == {"gpu_count", "latency"}  # type: ignore[call-overload]


def test_same_config_and_seed_give_same_placement(small: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["objective=latency", "verify=none", f"hydra.run.dir={tmp_path}/{_}", *small]) == 0
    first, second = documents(tmp_path)
    for volatile in ("runtime_s", "total_runtime_s"):
        first.pop(volatile), second.pop(volatile)
    assert first == second


def test_sweep_runs_every_job_and_exits_with_worst_code(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["-m", "objective=gpu_count,latency", "seed=-1,0", "verify=none", "solver=greedy", *small])
    assert code == 2
    assert len(documents(tmp_path)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("seed = -1 is out of range") == 2
    assert captured.out.count("seed=-1") >= 2


def test_own_objective_from_config_dir(small: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "my_conf" / "objective"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "_target_: placement.problem.objectives.objective\n"
        "terms:\n  slow:\n    _target_: placement.problem.objectives.MeanItl\n    scale: 0.02\n"
    )
    arguments = ["--config-dir", str(tmp_path / "my_conf"), "+objective=mine", "verify=none", "solver=greedy"]
    assert main([*arguments, *small]) == 0
    assert set(documents(tmp_path)[0]["terms"]) == {"slow"}  # type: ignore[call-overload]


BAD = {
    "typo in a group": (["solvr=milp"], "did you mean 'solver'"),
    "unknown option": (["solver=simplex"], "milp"),
    "unknown objective": (["objective=latncy"], "latency"),
    "unknown level of verification": (["verify=quik"], "remedy: choose one of the options listed"),
    "unknown key in a group": (["workload.pth=x"], "valid in workload"),
    "added unknown key": (["+foo=1"], "unknown option 'foo'"),
    "unknown argument of a part": (["+constraint.foo=1"], "slo"),
    "broken override": (["seed=[1"], "'seed=[1'"),
    "negative seed": (["seed=-1"], "at least 0"),
    "zero time limit": (["time_limit_s=0"], "above 0"),
    "text for a number": (["constraint.late_share=x"], "constraint.late_share"),
    "share above one": (["constraint.late_share=2"], "constraint.late_share = 2.0 is out of range"),
    "negative promise": (["constraint.slo.ttft_p99_s=-1"], "above 0 seconds"),
    "margin of one": (["constraint.margin=1"], "margin"),
    "too few hours": (["verify=twin", "verify.hours=28"], "50 good hours are the fewest"),
    "slots beyond memory": (["engine.max_loras=[4000]"], "memory"),
    "no slots": (["engine.max_loras=[]"], "empty"),
    "missing path": (["workload=file", "workload.path=nowhere.csv"], "nowhere.csv"),
    "path not given": (["workload=file", "workload.path=???"], "workload.path is missing"),
    "calibration of another model": (
        ["model=qwen2.5-7b", "calibration=llama-3.1-8b-h100-64gb"],
        "llama-3.1-8b-instruct",
    ),
    "calibration of another engine": (["engine.version=9.9.9"], "9.9.9"),
    "foreign target": (["solver._target_=os.system"], "not a component that belongs here"),
    "target behind a project module": (["solver._target_=twin.files.os.remove"], "placement.solvers.milp.MilpSolver"),
    "foreign target deep down": (["+objective.terms.x._target_=shutil.rmtree"], "allow_modules"),
    "port": (["export=vllm", "export.port=0"], "at least 1 and at most 65535"),
    "solver that refuses the objective": (["objective=tail", "solver=milp"], "solver=greedy"),
    "missing folder": (["--config-dir", "nowhere"], "nowhere"),
    "unknown subcommand": (["chekc"], "unknown subcommand"),
    "weights that do not exist": (["surrogate=neural", "surrogate.weights=nowhere"], "nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_screen_and_exit_code_2(
    case: str, small: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments, expected = BAD[case]
    replaced = {a.partition("=")[0].lstrip("+") for a in arguments}
    rest = [o for o in ("verify=none", *small) if o.partition("=")[0] not in replaced]
    code = main([*arguments, *(rest if case != "unknown subcommand" else [])])
    captured = capsys.readouterr()
    assert code == 2
    assert expected in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert len(captured.err.splitlines()) <= 40
    assert not documents(tmp_path)


@pytest.mark.parametrize(
    ("rows", "code", "expected"),
    [
        ("a,8,-1,200,200", 2, "line 2"),
        ("a,8,1,200,200\na,8,1,200,200", 2, "appears twice"),
        ("a,8,1", 2, "line 2"),
        ("", 2, "no rows"),
        ("a,8,1,0,200", 2, "prompt"),
        ("a,64,1,200,200", 3, "rank 64"),
        ("a,8,1e6,200,200", 3, "replicas"),
    ],
)
def test_bad_adapter_file(
    rows: str, code: int, expected: str, small: list[str], adapters_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters_csv.write_text(f"{HEADER}\n{rows}\n")
    assert main(["verify=none", *small]) == code
    err = capsys.readouterr().err
    assert expected in err
    assert "remedy" in err
    assert "Traceback" not in err


def test_infeasible_fleet_is_explained_and_written(
    small: list[str], adapters_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters_csv.write_text("\n".join([HEADER, *(f"a{i},8,8,200,200" for i in range(6))]) + "\n")
    assert main(["hardware.count=1", "verify=none", *small]) == 3
    assert "hardware.count" in capsys.readouterr().err
    assert documents(tmp_path)[0]["status"] == "infeasible"


def test_unexpected_exception_is_not_hidden(
    small: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("placement.pipeline.job.build_problem", broken)
    assert main(["verify=none", *small]) == 1
    err = capsys.readouterr().err
    assert "internal error" in err
    assert "ZeroDivisionError: a bug" in err


def test_debug_shows_the_traceback_of_an_input_error(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug=true", "constraint.late_share=2", *small]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_saves_the_incumbent(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("placement.verify.TwinVerifier.columns", interrupted)
    assert main(["solver=greedy", *small]) == 130
    (data,) = documents(tmp_path)
    assert data["termination"] == "interrupted"
    assert data["status"] == "unverified"
    assert data["gpus"]


def test_interrupt_before_the_first_placement(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = SolveReport("no_solution", "interrupted", None, math.nan, None, None, 0.1, "greedy")
    monkeypatch.setattr("placement.solvers.greedy.Greedy.solve", lambda *_, **__: report)
    assert main(["solver=greedy", *small]) == 130
    assert not documents(tmp_path)


def test_nothing_found_is_not_called_infeasible(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = SolveReport("no_solution", "time_limit", None, math.nan, None, None, 0.1, "greedy")
    monkeypatch.setattr("placement.solvers.greedy.Greedy.solve", lambda *_, **__: report)
    assert main(["solver=greedy", *small]) == 4
    assert documents(tmp_path)[0]["status"] == "no_solution"
    assert "raise time_limit_s" in capsys.readouterr().err


def test_failed_verification_is_exit_code_4_and_tightening_is_bounded(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twin that accepts nothing ends after the allowed rounds, with the last placement saved."""
    rounds: list[int] = []

    def refuse(self: object, columns: list[Column], *_: object, round_: int, **__: object) -> Verification:
        rounds.append(round_)
        metrics = {"e2e_mean_s": 1.0, "itl_mean_ms": 10.0}
        return Verification(tuple(ColumnVerdict("refuted", "never healthy", (1, 2, 3), metrics) for _ in columns))

    monkeypatch.setattr("placement.verify.TwinVerifier.columns", refuse)
    assert main(["objective=latency", "solver=greedy", "verify.max_rounds=2", *small]) == 4
    (data,) = documents(tmp_path)
    assert 1 <= len(rounds) <= 3
    assert rounds == list(range(len(rounds)))
    assert data["status"] == "unverified"
    assert data["gpus"]
    assert any("the twin refuted" in w for w in data["warnings"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(("decision", "words"), [("untested", "no request arrived"), ("undecided", "could not decide")])
def test_what_was_not_decided_is_neither_verified_nor_refuted(
    decision: Decision, words: str, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsure(self: object, columns: list[Column], *_: object, **__: object) -> Verification:
        metrics = {"e2e_mean_s": 1.0, "itl_mean_ms": 10.0}
        return Verification(tuple(ColumnVerdict(decision, "who knows", (1,), metrics) for _ in columns))

    monkeypatch.setattr("placement.verify.TwinVerifier.columns", unsure)
    assert main(["objective=gpu_count", "solver=greedy", "verify.max_rounds=1", *small]) == 4
    (data,) = documents(tmp_path)
    assert data["status"] == "unverified"
    checked: Any = data["verification"]
    assert checked["history"][0]["refuted"] == 0
    assert {g["decision"] for g in checked["gpus"]} == {decision}
    assert {g["untested"] for g in checked["gpus"]} == {decision == "untested"}
    assert any(words in w for w in data["warnings"])  # type: ignore[attr-defined]


def test_placement_that_passes_after_tightening_keeps_the_first_bound(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round is refuted, the second accepted: verified, and the gap is measured against the first bound."""

    def second_time(self: object, columns: list[Column], *_: object, round_: int, **__: object) -> Verification:
        metrics = {"e2e_mean_s": 1.0, "itl_mean_ms": 10.0}
        return Verification(
            tuple(ColumnVerdict("accepted" if round_ else "refuted", "", (1, 2, 3), metrics) for _ in columns)
        )

    monkeypatch.setattr("placement.verify.TwinVerifier.columns", second_time)
    assert main(["objective=gpu_count", "solver=greedy", *small]) == 0
    (data,) = documents(tmp_path)
    assert data["status"] == "verified"
    assert data["verification"]["rounds"] == 2  # type: ignore[index]
    assert data["bound"] <= data["bound_tightened"] <= data["objective"]  # type: ignore[operator]
    gap = (data["objective"] - data["bound"]) / data["objective"]  # type: ignore[operator]
    assert data["gap"] == pytest.approx(gap)


def test_cfg_shows_configuration_without_running(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["objective=latency", "--cfg", "job"]) == 0
    out = capsys.readouterr().out
    assert "placement.problem.objectives.MeanE2E" in out
    assert not documents(tmp_path)


def program(*arguments: str, imports: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-X", "importtime"] if imports else []), "-m", "placement", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [("--help",), ("solvr=x",), ("objective=nothing",)])
def test_help_and_typos_pay_for_no_solver(arguments: tuple[str, ...]) -> None:
    result = program(*arguments, imports=True)
    assert result.returncode == (0 if arguments == ("--help",) else 2)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if "import time:" in line}
    heavy = {"numba", "pandas", "pyomo", "ortools", "highspy", "torch", "scipy"}
    assert not {name for name in loaded if name.split(".")[0] in heavy}


def test_help_names_groups_and_exit_codes() -> None:
    result = program("--help")
    assert result.returncode == 0
    for text in ("objective: gpu_count, latency", "solver:", "Exit codes"):
        assert text in result.stdout
    assert len(result.stdout.splitlines()) <= 40


def test_names_of_an_older_configuration_run_with_a_warning(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my_conf" / "objective"
    folder.mkdir(parents=True)
    (folder / "old.yaml").write_text(
        "_target_: placement.objectives.objective\nterms: {itl: {_target_: placement.objectives.MeanItl}}\n"
    )
    old = ["constraint._target_=placement.constraints.Stable", "constraint.slo._target_=twin.workload.Slo"]
    arguments = ["--config-dir", str(tmp_path / "my_conf"), "+objective=old", "verify=none", "solver=greedy", *old]
    assert main([*arguments, *small]) == 0
    err = capsys.readouterr().err
    for new in ("objectives.objective", "objectives.MeanItl", "health.Stable", "workload.adapter.Slo"):
        assert f"{new}: change it in your configuration" in err


def test_v_says_what_is_done_on_stderr_and_leaves_stdout_alone(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for flags in ([], ["-v"], ["-vv"]):
        assert main([*flags, "objective=gpu_count", "solver=greedy", "hydra.run.dir=out", *small]) == 0
        shown[" ".join(flags)] = capsys.readouterr()
    assert shown[""].err == ""
    for text in ("INFO placement.verify", "solver greedy", "INFO twin.files: wrote"):
        assert text in shown["-v"].err
    assert "DEBUG" not in shown["-v"].err
    assert "DEBUG twin.config.instantiate: solver: placement.solvers.greedy.Greedy" in shown["-vv"].err
    assert "numba" not in shown["-vv"].err
    assert all(
        "INFO" not in s.out and len(s.out.splitlines()) == len(shown[""].out.splitlines()) for s in shown.values()
    )


def test_whole_program_as_a_process(small: list[str], tmp_path: Path) -> None:
    result = program("+objective=gpu_count", "export=vllm", *small)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (script,) = tmp_path.glob("outputs/**/deploy/*.sh")
    assert "vllm serve" in script.read_text()
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_two_runs_in_one_second_do_not_share_a_folder(small: list[str], tmp_path: Path) -> None:
    """Hydra names folders by the second; here the pattern knows the day only."""
    base = f"{tmp_path}/out/${{now:%Y}}"
    folder = ["--config-dir", str(tmp_path / "my_conf"), "experiment=place"]
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_conf" / "experiment" / "place.yaml").write_text(
        f"# @package _global_\nhydra: {{run: {{dir: '{base}'}}, sweep: {{dir: '{base}'}}}}\n"
    )
    quick = ["verify=none", "solver=greedy", "+objective=gpu_count", *small]
    for extra in ((), (), ("-m", "seed=0,1")):
        assert main([*folder, *extra, *quick]) == 0
    year = next(p.name for p in (tmp_path / "out").iterdir() if p.name.isdigit())
    found = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/placement.json")}
    assert found == {f"{year}/placement.json", f"{year}-2/placement.json"} | {
        f"{year}-3/{k}/placement.json" for k in (0, 1)
    }
    assert {p.name for p in (tmp_path / "out" / f"{year}-3").glob("*.*")} >= {"sweep.html", "sweep.csv", "pareto.png"}


def test_a_place_that_cannot_be_written_to_is_an_input_error(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("twin.files._write", full)
    assert main(["verify=none", "solver=greedy", f"hydra.run.dir={tmp_path / 'out'}", *small]) == 2
    said = capsys.readouterr().err
    assert "No space left" in said and "free some space" in said and "Traceback" not in said
    (tmp_path / "file").write_text("")
    assert main(["verify=none", f"hydra.run.dir={tmp_path / 'file' / 'out'}", *small]) == 2
    assert "name a folder" in capsys.readouterr().err


def test_the_version_is_that_of_the_product(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("adapter-placement ")


@pytest.mark.parametrize("width", [60, 200])
def test_tables_fit_the_width_and_show_names_as_they_are(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    table = tmp_path / "[bold]shop.csv"
    table.write_text(f"{HEADER}\nteam[/prod],8,0.2,200,100\n<b>x</b>,8,0.2,200,100\n[bold]a[/bold],8,0.2,200,100\n")
    arguments = ["workload=file", f"workload.path='{table}'", "surrogate=analytic", "solver=greedy"]
    assert main([*arguments, "verify=quick", "engine.max_loras=[8]", f"hydra.run.dir={tmp_path}/o"]) in (0, 4)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width for line in lines if not line.startswith("wrote"))
    assert any("[bold]shop" in line for line in lines)
    assert any("verified" in line for line in lines)
