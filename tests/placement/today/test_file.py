"""Today's placement as a file: what is read, what is assumed, and what is refused with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from placement.today.file import Today, read_today
from tests.placement.synthetic import adapter
from twin.errors import InputError
from twin.server.calibration import load_calibration
from twin.server.settings import setting_grid
from twin.workload.workload import Workload

CALIBRATION = load_calibration("llama-3.1-8b-h100-64gb")
CALIBRATIONS = {CALIBRATION.gpu.name: CALIBRATION}
SETTINGS = setting_grid((CALIBRATION.stamp.gpu_type,), (8, 16, 384), (8, 16, 32))
WORKLOAD = Workload((adapter("base", 1.0, rank=0), adapter("low", 0.5), adapter("wide", 0.25, rank=32)), "three")
ROWS = ("base,g0", "low,g0", "wide,g1")


def today(tmp_path: Path, *rows: str, header: str = "adapter_id,gpu_id", workload: Workload = WORKLOAD) -> Today:
    path = tmp_path / "current.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return read_today(path, workload, SETTINGS, CALIBRATIONS)


def labels(found: Today) -> list[str]:
    return [c.setting.label for c in found.columns]


def test_open_settings_are_the_smallest_that_hold_the_members(tmp_path: Path) -> None:
    found = today(tmp_path, *ROWS)
    assert found.gpu_ids == ("g0", "g1")
    assert [[a.adapter_id for a in c.adapters] for c in found.columns] == [["base", "low"], ["wide"]]
    assert labels(found) == ["8x8", "8x32"]
    many = Workload(tuple(adapter(f"a{i}", 0.1) for i in range(12)), "many")
    assert labels(today(tmp_path, *(f"a{i},g" for i in range(12)), workload=many)) == ["16x8"]


def test_ranks_that_vllm_does_not_take_are_rounded_up(tmp_path: Path) -> None:
    odd = Workload((adapter("a", 0.1, rank=12), adapter("b", 0.1, rank=40)), "odd")
    assert labels(today(tmp_path, "a,g0", "b,g1", workload=odd)) == ["8x16", "8x64"]


def test_more_adapters_than_slots_get_the_largest_choice_that_starts(tmp_path: Path) -> None:
    """384 slots of rank 32 leave no room for a request of this model: 16 are the most that start."""
    crowd = Workload(tuple(adapter(f"a{i}", 0.01, rank=32) for i in range(40)), "crowd")
    assert labels(today(tmp_path, *(f"a{i},g" for i in range(40)), workload=crowd)) == ["16x32"]


def test_stated_settings_are_kept_and_empty_cells_state_nothing(tmp_path: Path) -> None:
    header = "adapter_id,gpu_id,max_loras,max_lora_rank,max_num_seqs"
    found = today(tmp_path, "base,g0,,,", "low,g0,24,64,256", "wide,g1,,,", header=header)
    assert labels(found) == ["24x64 seqs 256", "8x32"]


@pytest.mark.parametrize(
    "header", ["\ufeffadapter_id,gpu_id", " Adapter_ID , GPU_ID", "adapter-id,gpu-id", "ADAPTER ID,gpu id"]
)
def test_marks_case_blanks_and_dashes_do_not_matter(tmp_path: Path, header: str) -> None:
    assert today(tmp_path, *(f"  {r.replace(',', ' ,  ')} " for r in ROWS), header=header).gpu_ids == ("g0", "g1")


def test_replicas_share_the_requests(tmp_path: Path) -> None:
    found = today(tmp_path, *ROWS, "low,g1")
    assert [a.rate_req_per_s for c in found.columns for a in c.adapters if a.adapter_id == "low"] == [0.25, 0.25]
    assert "equally ('low')" in found.notes[0]
    shares = today(tmp_path, "base,g0,1", "low,g0,0.8", "wide,g1,1", "low,g1,0.2", header="adapter_id,gpu_id,share")
    assert [a.rate_req_per_s for c in shares.columns for a in c.adapters if a.adapter_id == "low"] == [
        pytest.approx(0.4), pytest.approx(0.1),
    ]  # fmt: skip
    assert shares.notes == ()


def test_other_columns_are_noted(tmp_path: Path) -> None:
    assert (
        "columns not read: team" in today(tmp_path, *(f"{r},x" for r in ROWS), header="adapter_id,gpu_id,team").notes[0]
    )


@pytest.mark.parametrize(
    ("rows", "header", "problem", "where"),
    [
        ((*ROWS, "lw,g1"), "", "'lw' is not in the workload (did you mean 'low'?)", "line 5"),
        ((*ROWS, "low,g0"), "", "'low' is twice on GPU 'g0', on line 3 and line 5", "line 5"),
        (ROWS[:1], "", "2 adapters of the workload have no GPU: 'low', 'wide'", ""),
        (ROWS[:2], "", "1 adapter of the workload has no GPU: 'wide'", ""),
        (("base,g0,16", "low,g0,8", "wide,g1,8"), ",max_loras", "has max_loras 16 on line 2 and 8 on line 3", "line 3"),
        (("base,g0,8", "low,g0,12", "wide,g1,"), ",max_lora_rank", "max_lora_rank 8 on line 2 and 12", "line 3"),
        (("base,g0,", "low,g0,12", "wide,g1,"), ",max_lora_rank", "rank 12, which vLLM does not take", "line 3"),
        (("base,g0,", "low,g0,", "wide,g1,16"), ",max_lora_rank", "'wide' of rank 32 is on GPU 'g1'", "line 4"),
        (("base,g0,", "low,g0,", "wide,g1,384"), ",max_loras", "does not start with 384 slots of rank 32", "line 4"),
        (("base,g0,", "low,g0,0", "wide,g1,"), ",max_loras", "max_loras", "line 3"),
        (("base,g0,", "low,g0,2.5", "wide,g1,"), ",max_loras", "max_loras", "line 3"),
        (("base,g0,", "low,g0,many", "wide,g1,"), ",max_loras", "max_loras 'many' is not a number", "line 3"),
        (("base,g0,", "low,g0,150", "wide,g1,"), ",max_model_len", "mean prompt length 220 is not below", "line 2"),
        (("base,g0,a100", "low,g0,", "wide,g1,"), ",gpu_type", "of type 'a100'", "line 2"),
        (("base,g0,1", "low,g0,0.5", "wide,g1,1"), ",share", "shares of adapter 'low' add up to 0.5", "line 3"),
        (("base,g0", ",g0"), "", "adapter_id is empty", "line 3"),
        (("base,g0,8",), ",max_lora", "unknown column 'max_lora'", "line 1"),
    ],
)  # fmt: skip
def test_mistakes_name_the_line_and_the_remedy(
    tmp_path: Path, rows: tuple[str, ...], header: str, problem: str, where: str
) -> None:
    with pytest.raises(InputError) as caught:
        today(tmp_path, *rows, header=f"adapter_id,gpu_id{header}")
    assert problem in caught.value.problem
    assert where in caught.value.where
    assert "current.csv" in caught.value.where
    assert caught.value.remedy


def test_the_table_of_an_earlier_run_can_be_read(tmp_path: Path) -> None:
    gpu = CALIBRATION.stamp.gpu_type
    flags = "max_loras,max_lora_rank,max_num_seqs,max_num_batched_tokens,block_size,gpu_memory_utilization"
    rows = [f"gpu000,{gpu},16,8,2048,2048,16,0.9,1,16,{name},1.0" for name in ("base", "low")]
    rows.append(f"gpu001,{gpu},8,32,2048,2048,16,0.9,1,8,wide,1.0")
    found = today(tmp_path, *rows, header=f"gpu_id,gpu_type,{flags},servers_per_gpu,max_cpu_loras,adapter_id,share")
    assert labels(found) == ["16x8", "8x32"]
    assert [c.setting.max_cpu_loras for c in found.columns] == [16, 8]
    assert found.notes == ()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read_today(tmp_path / "nowhere.csv", WORKLOAD, SETTINGS, CALIBRATIONS)
