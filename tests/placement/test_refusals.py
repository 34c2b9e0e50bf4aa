"""Inputs that cannot be placed, through the command: cause, remedy, exit code, and nothing else on the screen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from placement.__main__ import main
from placement.pipeline import job
from tests.placement import synthetic
from tests.placement.conftest import HEADER
from twin.errors import InputError


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def placed(rows: str, *arguments: str, column: str = "") -> int:
    Path("w.csv").write_text(f"{HEADER.strip()}{column and ','}{column}\n{rows}\n")
    options = ["workload=file", "workload.path=w.csv", "solver=greedy", "verify=none", "hydra.run.dir=out"]
    return main([*options, *arguments])


@pytest.mark.parametrize("surrogate", ["neural", "analytic"])
@pytest.mark.parametrize(
    ("rows", "column", "code", "said", "remedy"),
    [
        ("a,8,0.5,1000000,50", "", 2, "mean prompt length 1000000 is not below max_model_len 131072", "cut the"),
        ("big,256,0.5,400,150\nodd,12,0.8,900,60", "", 3, "'big' has rank 256", "[8,16,32,64,256]"),
        ("a,8,3000,300,200", "", 3, "'a' at 3000 req/s is too much for 64 GPUs", "lower its rate to "),
        ("a,8,60,300,200,gpu-3", "pinned_gpu", 3, "pinned to 'gpu-3'", "pin it to a GPU type"),
        (
            "a,16,0.2,2000,200,0.02",
            "slo_ttft_p99_s",
            3,
            "'a' is promised the first token within 0.02 s",
            "least 0.45 s",
        ),
        ("a,16,0.2,200,200,9", "slo_itl_mean_ms", 3, "'a' is promised a mean ITL of 9 ms", "at least 14 ms"),
        ("a,16,0.2,200,200,9", "slo_tpot_mean_ms", 3, "'a' is promised a mean TPOT of 9 ms", "at least 14 ms"),
        ("a,16,0.2,200,200,2", "slo_e2e_mean_s", 3, "'a' is promised a mean E2E of 2 s", "at least 2.7 s"),
    ],
    ids=["prompt", "rank", "rate", "pin", "ttft", "itl", "tpot", "e2e"],
)
def test_the_cause_is_named(
    surrogate: str, rows: str, column: str, code: int, said: str, remedy: str, capfd: pytest.CaptureFixture[str]
) -> None:
    verify = "verify=twin"  # a twin that warms up must not be heard
    assert placed(rows, f"surrogate={surrogate}", verify, column=column) == code
    error = capfd.readouterr().err
    assert said in error and remedy in error
    assert "Traceback" not in error and "Thread" not in error


def test_an_unattainable_promise_is_refused_before_anything_is_solved(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The field case: a TTFT promise of 20 ms and prompts of 2,000 tokens."""

    def solved(*_: Any, **__: Any) -> None:
        raise AssertionError("a solver was asked")

    monkeypatch.setattr(job, "first_placement", solved)
    rows = "\n".join(f"a{i},16,0.2,2000,200,0.02" for i in range(4))
    assert placed(rows, "surrogate=neural", "verify=twin", column="slo_ttft_p99_s") == 3
    error = capfd.readouterr().err
    assert "'a0' (and 3 more)" in error and "slo_ttft_p99_s: 'a0', 'a1', 'a2', 'a3'" in error
    assert '"status": "infeasible"' in Path("out/placement.json").read_text()


@pytest.mark.parametrize("cv", [8, 20])
def test_bursts_are_not_a_matter_of_length(cv: int, capfd: pytest.CaptureFixture[str]) -> None:
    rows = f"a,16,0.5,200,200,{cv}\nb,16,1,300,150,{cv}"
    assert placed(rows, column="arrival_cv") == 0
    error = capfd.readouterr().err
    assert "request_tokens" not in error and "longest" not in error


def test_following_the_advice_on_a_rank_works() -> None:
    rows = "big,256,0.5,400,150\nsmall,4,0.8,900,60\nodd,12,0.8,900,60"
    assert placed(rows, "surrogate=analytic", "engine.max_lora_rank=[8,16,32,64,256]") == 0


@pytest.mark.parametrize("solver", ["greedy", "milp"])
def test_more_adapters_than_the_gpus_hold_are_counted(solver: str, capfd: pytest.CaptureFixture[str]) -> None:
    rows = "\n".join(f"a{i},8,0.0001,200,200" for i in range(800))
    assert placed(rows, "hardware.count=2", f"solver={solver}", "surrogate=analytic") == 3
    error = capfd.readouterr().err
    assert "800 adapters need at least 3 GPUs, because one holds at most 384; hardware.count allows 2" in error
    assert "leave out 32 adapters" in error and "traffic" not in error


def test_an_adapter_pinned_to_a_gpu_type_is_split_as_without_the_pin() -> None:
    row, extra = "a,8,60,300,200", ("+objective=gpu_count", "hardware.count=3")
    assert placed(row, *extra) == 0
    free = Path("out/placement.csv").read_text()
    assert placed(f"{row},h100-64gb", *extra, column="pinned_gpu") == 0
    assert Path("out/placement.csv").read_text() == free


def test_a_twin_that_cannot_warm_up_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise InputError("no such column")

    monkeypatch.setattr("twin.simulation.simulate", refuse)
    problem = synthetic.problem([synthetic.adapter("a", 1.0)])
    run: Any = SimpleNamespace(verifier=object(), calibration_of=lambda _: None)
    job.warm_up(run, problem).join()
