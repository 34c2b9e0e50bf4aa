"""The single-GPU task: which slots serve the most without starvation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import optimum as benchmark
from surrogates import optimum as room
from surrogates.__main__ import main
from surrogates.optimum import OptimumCommand, Point, best_points, column_of, optimum
from twin.errors import InfeasibleError
from twin.server.calibration import load_calibration
from twin.server.column import Column

LLAMA = load_calibration("llama-3.1-8b-h100-64gb")


def capacities(monkeypatch: pytest.MonkeyPatch, most: dict[int, int]) -> None:
    """A server that holds so many adapters under so many slots."""

    def verdict(column: Column) -> tuple[bool, float]:
        n = len(column.adapters)
        return n <= most[column.setting.max_loras], 10.0 * n

    monkeypatch.setattr(room, "judge_of", lambda options, calibration: verdict)


def test_adapters_are_added_until_the_first_that_starve(monkeypatch: pytest.MonkeyPatch) -> None:
    capacities(monkeypatch, {16: 70, 32: 100, 64: 40})
    options = OptimumCommand(slots=(64, 32, 16), adapters=(16, 32, 64, 96, 128), ranks=(8,))
    points = best_points(options, LLAMA)
    assert points == [Point(16, 64, 640.0, 96), Point(32, 96, 960.0, 128), Point(64, 0, 0.0, 64)]
    assert optimum(points).slots == 32


def test_fewest_slots_among_equals_and_nothing_at_all() -> None:
    assert optimum([Point(64, 96, 960.0, None), Point(32, 96, 960.0, None)]).slots == 32
    with pytest.raises(InfeasibleError, match="without starvation"):
        optimum([Point(64, 0, 0.0, 64), Point(384, 0, 0.0, None, crashes=True)])


def test_a_server_without_memory_is_no_candidate() -> None:
    options = OptimumCommand(slots=(384,), adapters=(384,), ranks=(32,), rates=(0.001,))
    assert best_points(options, LLAMA) == [Point(384, 0, 0.0, None, crashes=True)]


def test_adapters_have_the_published_shape() -> None:
    options = OptimumCommand(rates=(0.4, 0.1), ranks=(8, 32))
    column = column_of(6, 16, options, LLAMA.stamp.gpu_type)
    assert [a.rate_req_per_s for a in column.adapters] == [0.4, 0.1] * 3
    assert column.setting.max_lora_rank == 32


@pytest.mark.parametrize("source", ["twin", "neural", "physics"])
def test_every_source_finds_a_best(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rule=stable", "slots=[16,64]", "adapters=[64,128]", "ranks=[8]", f"source={source}"]
    assert main(["optimum", *words, "rates=[0.1,0.05]"]) == 0
    best = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert best["adapters"] in (64, 128)


@pytest.mark.parametrize("name", ["slots", "adapters"])
def test_nothing_to_choose_from_is_not_starvation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimum", f"{name}=[]"]) == 2
    assert f"{name} lists nothing to choose from" in capsys.readouterr().err


def test_what_the_steady_state_knows_only_roughly_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimum", "source=physics"]) == 2
    assert "use source=twin" in capsys.readouterr().err


def test_the_benchmark_scores_what_a_choice_gives_on_the_real_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / benchmark.OPTIMA).write_text(
        "model,workload,rates,ranks,strict_throughput_tps,strict_served_adapters,strict_slots,optimum_is_non_starved\n"
        "llama-3.1-8b-instruct,w,0.1 0.1,8 8,1000,32,32,True\n"
    )
    (tmp_path / benchmark.RUNS).write_text(
        "model,workload,max_loras,num_adapters,total_throughput_tps\nllama-3.1-8b-instruct,w,16,32,900\n"
    )

    def points(options: OptimumCommand, calibration: Any) -> list[Point]:
        return [Point(16, 32, 950.0, 64), Point(32, 32, 940.0, 64)]

    monkeypatch.setattr(benchmark, "best_points", points)
    assert benchmark.main([f"data={tmp_path}"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["same_adapters"] == 1.0 and summary["same_adapters_and_slots"] == 0.0
    assert summary["mean_regret"] == pytest.approx(0.1)
    assert benchmark.main(["data=nowhere"]) == 2
