"""The advisor's command line: files, exit codes, errors, and what the twin says of its advice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from placement.__main__ import main as placement_main
from placement.batching.__main__ import main

QUICK = ["requests=400", "batches=[1,16,32,64,96,128,192,256]"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def advice(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("**/advice.json")
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def test_advice_is_printed_and_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "slo=relaxed"]) == 0
    data = advice(tmp_path)
    best, memory = data["b_opt"], data["memory"]
    assert {p["batch"] for p in data["curve"]["points"]} == {1, 16, 32, 64, 96, 128, 192, 256}
    assert best["itl_ms"] <= data["slo"]["ms"]
    assert data["recommended"]["max_num_seqs"] == best["batch"]
    assert data["recommended"]["gpu_memory_utilization"] < 0.9
    assert memory["needed_tokens"] >= memory["peak_tokens"]
    assert memory["freed_bytes"] > 0
    png = next(tmp_path.glob("**/advice.png")).read_bytes()
    assert png.startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert f"B_opt = {best['batch']}" in out
    assert f"--max-num-seqs {best['batch']}" in out
    assert "replicas at B_opt" in out


def test_recommended_memory_holds_the_peak(tmp_path: Path) -> None:
    """The whole point: the server started with the advised share must not preempt at the advised batch."""
    assert main([*QUICK, "slo=strict"]) == 0
    data = advice(tmp_path)
    share, batch = data["recommended"]["gpu_memory_utilization"], data["recommended"]["max_num_seqs"]
    again = tmp_path / "again"
    again.mkdir()
    arguments = [*QUICK[:1], f"batches=[1,32,{batch}]", f"gpu_memory_utilization={share}", f"hydra.run.dir={again}"]
    assert main([*arguments, "slo=strict", "max_servers=1"]) == 0
    repeated = advice(again)
    assert repeated["curve"]["dropped_preempting"] == []
    assert repeated["b_opt"]["throughput_req_per_s"] == pytest.approx(data["b_opt"]["throughput_req_per_s"], rel=1e-6)


def test_same_command_gives_the_same_advice(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        assert main([*QUICK, f"hydra.run.dir={tmp_path / name}"]) == 0
        texts.append((tmp_path / name / "advice.json").read_text())
    assert texts[0] == texts[1]


def test_it_is_a_subcommand_of_the_main_job(tmp_path: Path) -> None:
    assert placement_main(["batching", *QUICK]) == 0
    assert advice(tmp_path)["model"] == "opt-1.3b"


@pytest.mark.parametrize("rule", ["strict", "relaxed"])
def test_advised_batch_holds_in_the_twin_against_its_neighbours(rule: str, tmp_path: Path) -> None:
    """Same requests, same orders: in the twin the advised batch meets the SLO and the next larger one does not pay."""
    arguments = ["prefill=chunked", "requests=1000", f"slo={rule}", "max_servers=1"]
    assert main([*arguments, f"hydra.run.dir={tmp_path / 'law'}"]) == 0
    law = advice(tmp_path / "law")
    grid = [p["batch"] for p in law["curve"]["points"]]
    batch = law["b_opt"]["batch"]
    near = grid[grid.index(batch) - 1 : grid.index(batch) + 2]
    batches = f"batches={sorted({1, 32, *near})}".replace(" ", "")
    assert main([*arguments, "curve=twin", batches, f"hydra.run.dir={tmp_path / 'twin'}"]) == 0
    twin = advice(tmp_path / "twin")
    assert twin["b_opt"]["batch"] == batch
    points = {p["batch"]: p for p in twin["curve"]["points"]}
    below, best, above = (points[b] for b in near)
    assert best["itl_ms"] <= twin["slo"]["ms"]
    assert below["throughput_req_per_s"] < best["throughput_req_per_s"]
    assert above["itl_ms"] > twin["slo"]["ms"] or above["efficiency"] <= 0.1


def test_measured_curve_from_a_file(tmp_path: Path) -> None:
    rows = ["model,max_num_seqs,req_throughput_rps,itl_mean_ms,tpot_mean_ms,preemptions"]
    rows += ["opt-1.3b,1,0.95,3.6,3.6,0", "opt-1.3b,32,14.2,7.5,7.5,0", "opt-1.3b,96,22.4,13.9,14.3,0"]
    rows += ["opt-1.3b,128,23.6,17.3,17.6,0", "opt-1.3b,768,27.4,72.9,79.9,5", "other,1,1,1,1,0"]
    (tmp_path / "runs.csv").write_text("\n".join(rows) + "\n")
    assert main(["curve=measured", f"data={tmp_path / 'runs.csv'}", "requests=400", "max_servers=1"]) == 0
    data = advice(tmp_path)
    assert data["b_opt"]["batch"] == 96
    assert data["curve"]["dropped_preempting"] == [768]
    assert any("768" in note for note in data["notes"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["epsilon=0"], 2, "epsilon = 0.0 is out of range"),
        (["epsilon=1.5"], 2, "a number above 0 and below 1"),
        (["slo=1"], 3, "no batch meets an SLO of 1 ms"),
        (["slo=quick"], 2, "'quick' is not an SLO"),
        (["model=llama-2-13b", "gpu_memory_utilization=0.3"], 3, "llama-2-13b does not fit on h100-64gb"),
        (["slo=relaxed", "servers=16"], 3, "16 servers at a batch of 192 do not fit"),
        (["model=llama-3.1-8b", "servers=2", "max_model_len=4096"], 2, "no measurement of servers"),
        (["modle=opt-1.3b"], 2, "did you mean 'model'?"),
        (["lengths.promt_mean=3"], 2, "valid in lengths"),
        (["model=opt-66b"], 2, "opt-1.3b"),
        (["batches=[]"], 2, "batches is empty"),
        (["batches=[0]"], 2, "batches = 0 is out of range"),
        (["requests=1.5"], 2, "not a whole number"),
        (["curve=measured"], 2, "data=<folder>"),
        (["curve=measured", "data=nowhere.csv"], 2, "nowhere.csv"),
        (["curve=twin", "prefill=separate"], 2, "prefills in chunks"),
        (["curve=twin", "sharing=time_sharing"], 2, "share a GPU under MPS"),
        (["lengths.output_mean=4000"], 2, "exceeds max_model_len 2048"),
        (["calibration=opt-2.7b-h100-64gb"], 2, "was measured with 'opt-2.7b', not with 'opt-1.3b'"),
    ],
)
def test_mistakes_end_with_a_clear_message(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "remedy" in error
    assert "Traceback" not in error


def test_sweep_prints_one_row_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *QUICK, "max_servers=1", "slo=strict,relaxed"]) == 0
    out = capsys.readouterr().out
    assert "slo=strict" in out
    assert "slo=relaxed" in out
