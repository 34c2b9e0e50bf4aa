"""Workloads whose placements once went wrong: what each is placed on now, or refused with, by the default solver."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from placement.__main__ import main

TABLE = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens"
UNCHECKED = ("verify=none", "surrogate=physics")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ended(rows: list[str], *overrides: str, header: str = TABLE) -> int:
    """Exit code of the main command for a table of adapters; its files lie in `out`."""
    Path("adapters.csv").write_text("\n".join([header, *rows]) + "\n")
    return main(["workload=file", "workload.path=adapters.csv", "hydra.run.dir=out", *overrides])


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("out/placement.json").read_text())
    return found


@pytest.mark.parametrize("base", ["base-model", "meta-llama/Llama-3.1-8B-Instruct"])
@pytest.mark.parametrize("names", [("acme/support-bot", "acme/sql-writer@v2"), ("support-bot", "sql-writer")])
def test_every_name_that_requests_use_is_served(base: str, names: tuple[str, str]) -> None:
    """Adapters called `org/name@v2`, and base-model traffic under another name than the model's own."""
    rows = [f"{names[0]},16,2.5,400,150", f"{names[1]},8,0.8,900,60", f"{base},0,1.0,250,200"]
    assert ended(rows, *UNCHECKED, "export=vllm") == 0
    assert {a["adapter_id"] for gpu in document()["gpus"] for a in gpu["adapters"]} == {*names, base}
    [script] = Path("out/deploy").glob("*.sh")
    words = shlex.split(script.read_text().replace("\\\n", " "), comments=True)
    served = words.index("--served-model-name")
    modules = [json.loads(w)["name"] for w in words[words.index("--lora-modules") + 1 :]]
    assert base in words[served + 1 : words.index("--port")]
    assert sorted(modules) == sorted(names)
    assert set(json.loads(Path("out/deploy/routes.json").read_text())["routes"]) >= {*names, base}


def test_few_adapters_get_few_slots() -> None:
    """Nine adapters do not reserve memory for hundreds."""
    assert ended([f"a{i},8,0.2,200,100" for i in range(9)], "verify=none") == 0
    [gpu] = document()["gpus"]
    assert gpu["setting"]["max_loras"] <= 16
    assert gpu["setting"]["max_lora_rank"] == 8


def test_thousands_of_cold_adapters_share_a_gpu() -> None:
    """2,000 adapters, 1 request/s in all: what counts is how many are busy at once."""
    assert ended([f"t{i:05d},8,0.0005,220,200" for i in range(2000)], *UNCHECKED, "solver=greedy") == 0
    [gpu] = document()["gpus"]
    assert len(gpu["adapters"]) == 2000
    assert gpu["setting"]["max_cpu_loras"] >= 2000


@pytest.mark.parametrize("solver", ["portfolio", "greedy", "milp", "cpsat"])
def test_a_request_a_day_is_placed_on_the_smallest_setting(solver: str) -> None:
    """No load that the workload could reach is too much for any setting: there is nothing to divide it by."""
    rows = ["a,8,0.00001,100,50", "b,16,0.000005,100,50"]
    assert ended(rows, *UNCHECKED, f"solver={solver}") == 0
    [gpu] = document()["gpus"]
    assert (gpu["setting"]["max_loras"], gpu["setting"]["max_lora_rank"]) == (8, 16)


def test_a_request_a_day_is_tested_in_windows_in_which_requests_arrive() -> None:
    assert ended(["a,8,0.00001,100,50", "b,16,0.000005,100,50"]) == 0
    found = document()
    [gpu], [verdict] = found["gpus"], found["verification"]["gpus"]
    assert (found["status"], verdict["untested"]) == ("verified", False)
    assert verdict["window_s"] > 86_400
    for metric in ("ttft_mean_s", "ttft_p99_s", "itl_mean_ms", "e2e_mean_s"):
        assert gpu["simulated"][metric] > 0
        if metric in gpu["predicted"]:
            assert gpu["predicted"][metric] > 0


@pytest.mark.parametrize("surrogate", ["neural", "physics", "analytic", "twin"])
def test_a_prompt_that_the_model_cannot_take_is_named(surrogate: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["a,8,0.5,1000000,50"], f"surrogate={surrogate}") == 2
    error = capsys.readouterr().err
    assert "adapter 'a'" in error
    assert "1000000 is not below max_model_len 131072" in error
    assert "Traceback" not in error


def test_a_promise_that_an_idle_gpu_breaks_is_infeasible_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """20 ms for prompts of 2,000 tokens."""
    rows = [f"a{i},16,0.2,2000,200,0.02" for i in range(4)]
    assert ended(rows, header=f"{TABLE},slo_ttft_p99_s") == 3
    error = capsys.readouterr().err
    assert "take longer alone on an idle GPU" in error
    assert "promise 'a0' a TTFT p99 of at least" in error
    found = document()
    assert (found["status"], found["gpus"], found["verification"]["rounds"]) == ("infeasible", [], 0)
