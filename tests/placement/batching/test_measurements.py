"""The shipped coefficients against the measured rows (skipped without the data)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.batching import main


@pytest.fixture(scope="module")
def folder(measured_data: Path) -> Path:
    path = measured_data / "memory_gap"
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path


def result(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(arguments) == 0
    data: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return data


def test_accuracy_on_the_shared_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = result([f"data={folder}", "dynamic=no"], capsys)
    for model in ("opt-1.3b", "opt-2.7b", "llama-2-7b", "llama-2-13b"):
        for choice in data["b_opt"][model].values():  # type: ignore[index]
            assert choice["predicted"] == choice["measured"]
        assert data["step_time_mape"][model] <= 4  # type: ignore[index]
    equal = data["b_opt_equal"]
    assert equal["equal"] / equal["of"] > 0.9  # type: ignore[index]
    replication = data["replication"]
    assert replication["throughput_error_pct"] <= 5  # type: ignore[index]
    assert replication["itl_error_pct"] <= 10  # type: ignore[index]
    gain = replication["gain"]["opt-1.3b"]  # type: ignore[index]
    assert (gain["recommended"], gain["over"]) == ("256 x 2", "768 x 1")
    assert 28 <= gain["predicted_pct"] <= 38


def test_missing_files_and_models_are_named_and_skipped(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (folder / "bca.csv").read_text().splitlines(keepends=True)
    model = lines[0].split(",").index("model")
    kept = [line for line in lines[1:] if line.split(",")[model] == "opt-2.7b"]
    stranger = kept[-3].replace("opt-2.7b", "opt-30b")
    (tmp_path / "bca.csv").write_text("".join([lines[0], *kept, stranger]))
    data = result([f"data={tmp_path}", "dynamic=no"], capsys)
    assert set(data["b_opt"]) == {"opt-2.7b@130", "opt-2.7b@260", "opt-2.7b@390"}  # type: ignore[call-overload]
    skipped = " | ".join(data["skipped"])  # type: ignore[arg-type]
    assert "background.csv: not in the folder" in skipped
    assert "opt-30b: no shipped calibration" in skipped
    assert data["replication"]["throughput_error_pct"] is None  # type: ignore[index]


def test_figures_are_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "replication.csv", tmp_path)
    header, *rows = (folder / "background.csv").read_text().splitlines(keepends=True)
    (tmp_path / "background.csv").write_text(header + "".join(r for r in rows if r.startswith("background/opt-1.3b")))
    result([f"data={tmp_path}", f"figures={tmp_path / 'out'}", "dynamic=no"], capsys)
    names = {p.stem for p in (tmp_path / "out").glob("*.png")}
    assert names == {"plateau", "step_parts", "b_opt", "kv_memory", "replication"}
