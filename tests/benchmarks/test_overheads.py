"""Overheads beside measured tables: synthetic tables that the laws meet, or miss by a known factor."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.overheads import SHAPES, SHOWN, TABLES, main
from tests.twin.columns import LLAMA
from twin.server.slots import reserved_bytes

#: The folder of measured tables, if there is one: `ADAPTER_DATA`, as for `.ci/full`.
DATA = Path(os.environ.get("ADAPTER_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def memory_table(folder: Path, factor: float) -> None:
    """Blocks that the shape of Llama-2-7B leaves; slots take `1 / factor` of what the law says."""
    shape = SHAPES["llama-2-7b"]
    first, block = reserved_bytes(shape, 1, 8), 8 * 1024**2
    rows = []
    for slots, rank in ((1, 8), (64, 16), (128, 8)):
        lost = (reserved_bytes(shape, slots, rank) - first) / block / factor
        rows.append(["llama-2-7b", "mean", True, slots, rank, 5000 - lost, 20.0])
    columns = ["model", "dataset", "lora_enabled", "max_loras", "max_lora_rank", "gpu_blocks", "itl_mean_ms"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "performance_analysis_memory_overhead.csv", index=False)


def loading_table(folder: Path, late_ms: float) -> None:
    """Loads of the law, those into a slot later by `late_ms`."""
    law = LLAMA.load
    rows = [
        ["llama-3.1-8b-instruct", 8, 8, "cpu_memory", False, law.equal_rank_ms + late_ms, 0.0],
        ["llama-3.1-8b-instruct", 8, 16, "cpu_memory", False, law.lower_rank_ms + late_ms, 0.0],
        ["llama-3.1-8b-instruct", 8, 16, "cpu_memory", True, 99.0, 0.0],
        ["llama-3.1-8b-instruct", 16, 16, "disk", False, 99.0, law.disk_ms(16)],
    ]
    columns = ["model", "adapter_rank", "max_lora_rank", "source", "during_server_init", "mean", "median"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "calibration_adapter_loading_summary.csv", index=False)


def summary(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, float]]:
    assert main([f"data={folder}"]) == 0
    found: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_what_the_laws_say_has_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory_table(tmp_path, 1.0)
    loading_table(tmp_path, 0.0)
    found = summary(tmp_path, capsys)
    assert {score["mape_pct"] for score in found.values()} == {0.0}
    assert found["KV blocks lost to slots, llama-2-7b"]["rows"] == 2
    assert found["load into a slot, llama-3.1-8b-instruct"]["rows"] == 2


def test_errors_are_relative_to_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory_table(tmp_path, 1.25)
    found = summary(tmp_path, capsys)
    assert found["KV blocks lost to slots, llama-2-7b"]["mape_pct"] == pytest.approx(25.0, abs=0.01)


def test_what_cannot_be_scored_is_shown_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory_table(tmp_path, 1.0)
    rows = [
        ["llama-2-7b", rank, phase, 0.05, 0.0086] for rank in (8, 16) for phase in ("first_load", "consecutive_loads")
    ]
    columns = ["model", "rank", "phase", "disk_to_cpu_s", "cpu_to_gpu_s"]
    pd.DataFrame(rows, columns=columns).to_csv(
        tmp_path / "performance_analysis_loading_overhead_loads.csv", index=False
    )
    assert main([f"data={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "into a slot at rank 8, 16: 8.6, 8.6 ms" in shown and "no score" in shown
    assert "without an adapter in the batch" in shown
    assert "calibration_lora_overhead.csv: left out" in shown


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    assert main([f"data={tmp_path}"]) == 2


@pytest.mark.skipif(
    not all((DATA / "adapter_serving" / name).is_file() for name in (*TABLES, *SHOWN)),
    reason="the measured tables are not there; ADAPTER_DATA=... names their folder",
)
def test_the_laws_are_near_the_measured_tables(capsys: pytest.CaptureFixture[str]) -> None:
    found = summary(DATA, capsys)
    near = [name for name in found if not name.startswith("scheduler")]
    assert len(near) == 10
    assert all(found[name]["mape_pct"] < 8 for name in near)
