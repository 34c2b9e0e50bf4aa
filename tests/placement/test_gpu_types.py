"""Several types of GPU in one run: each has its calibration, price, stock and servers, and the plan mixes them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from placement.command import APP, normalised, place
from placement.config import Run, load_run
from placement.verify.ends import BothEnds
from placement.verify.verdict import ColumnVerdict, Verification
from twin.config.compose import compose
from twin.config.folder import conf_dir
from twin.errors import InputError
from twin.server.calibration import Calibration, load_calibration
from twin.server.column import Column

BOTH = ("hardware=[h100-64gb,l40s]", "hardware.l40s.system=null", "surrogate=physics")
SMALL = (
    "workload=power_law", "workload.n_adapters=40", "workload.total_rate_req_per_s=16", "workload.ranks=[8,16]",
    "engine.max_loras=[16,32]", "engine.max_lora_rank=[16]", "solver.effort=1", "time_limit_s=60",
)  # fmt: skip


@pytest.fixture(autouse=True)
def kept(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "derived"
    monkeypatch.setenv("ADAPTER_PLACEMENT_CALIBRATIONS", str(folder))


def run_of(*more: str) -> Run:
    return load_run(compose(APP, normalised([*BOTH, *more])))


def test_each_type_has_its_calibration_price_and_stock() -> None:
    run = run_of("hardware.l40s.price_per_hour=0.4", "hardware.l40s.count=3")
    assert list(run.calibrations) == ["h100-64gb", "l40s"]
    measured, derived = run.calibrations.values()
    assert measured.derived is None and derived.derived is not None
    assert measured.step == load_calibration("llama-3.1-8b-h100-64gb").step
    assert [(t.price_per_hour, t.count) for t in run.gpu_types] == [(1.0, None), (0.4, 3)]
    assert {s.gpu_type for s in run.settings} == {"h100-64gb", "l40s"}
    assert {t.unit for t in run.objective.terms} == {"per hour"}
    assert isinstance(run.verifier, BothEnds) and list(run.verifier.hopeful) == ["l40s"]


def test_types_side_by_side_leave_the_options_of_other_commands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra keeps what is made for `hardware=[a,b]` as long as the process lives."""
    from profiling.__main__ import main as profiling

    words = ["fit", "records=nowhere", "hardware=l4"]
    assert profiling(words) == 2
    before = capsys.readouterr().err
    assert "nowhere" in before
    normalised(["hardware=[h100-64gb,l4]"])
    assert profiling(words) == 2
    assert capsys.readouterr().err == before
    assert compose(APP, normalised(["hardware=[h100-64gb,l4]", "model=qwen2.5-7b"]))["hardware"].keys() == {
        "h100-64gb",
        "l4",
    }


def test_one_type_in_brackets_is_one_type() -> None:
    assert normalised(["hardware=[l40s]"]) == ["hardware=l40s"]
    with pytest.raises(InputError, match="twice"):
        normalised(["hardware=[l40s,l40s]"])


def test_the_model_may_be_chosen_as_well() -> None:
    run = load_run(compose(APP, normalised(["hardware=[h100-64gb,l4]", "model=qwen2.5-7b", "surrogate=physics"])))
    assert run.calibrations["h100-64gb"].name == "qwen2.5-7b-h100-64gb"


def test_servers_of_one_type_may_span_gpus() -> None:
    run = run_of("hardware.l40s.tensor_parallel_size=2", "hardware.l40s.count=5")
    assert {(s.gpu_type, s.tensor_parallel_size) for s in run.settings} == {("h100-64gb", 1), ("l40s", 2)}
    assert (run.gpu_types[1].price_per_hour, run.gpu_types[1].count) == (2.0, 2)
    assert any("each server on l40s spans 2 GPUs" in note for note in run.notes)


def test_a_type_on_which_the_model_does_not_fit_is_left_out_and_said() -> None:
    big = ("model=llama-3.1-70b", "hardware.h100-64gb.system=null")
    run = run_of(*big, "hardware.h100-64gb.tensor_parallel_size=4")
    assert list(run.calibrations) == ["h100-64gb"]
    (note,) = (n for n in run.notes if n.startswith("l40s is left out"))
    assert "GiB of weights" in note and "hardware.l40s.tensor_parallel_size=4" in note
    with pytest.raises(InputError, match="do not fit"):
        run_of(*big)


def test_a_type_that_lacks_something_else_is_an_error() -> None:
    with pytest.raises(InputError, match=r"hardware\.l40s"):
        run_of("hardware.l40s.memory_gib=null")


def test_a_calibration_of_ones_own_is_found_for_its_type(tmp_path: Path) -> None:
    """The measured one at half the speed, under the name of another GPU."""
    data = yaml.safe_load((conf_dir() / "calibration" / "llama-3.1-8b-h100-64gb.yaml").read_text())
    data["name"], data["stamp"]["gpu_type"] = "llama-3.1-8b-half", "half"
    for term, value in data["step"].items():
        data["step"][term] = 2 * value if isinstance(value, float) else value
    hardware = yaml.safe_load((conf_dir() / "hardware" / "h100-64gb.yaml").read_text())
    for folder, name, content in (
        ("calibration", "llama-3.1-8b-half", data),
        ("hardware", "half", {**hardware, "name": "half"}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    from placement.__main__ import main

    table = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens\n"
    (tmp_path / "a.csv").write_text(table + "".join(f"a{i},16,0.4,200,200\n" for i in range(50)))
    arguments = [
        "--config-dir", str(tmp_path), "hardware=[h100-64gb,half]", "hardware.half.price_per_hour=0.3",
        "hardware.half.count=2", "workload=file", f"workload.path={tmp_path / 'a.csv'}", "engine=server",
        "engine.max_loras=64", "engine.max_lora_rank=16", "solver=greedy", "solver.effort=1", "verify=none",
        f"hydra.run.dir={tmp_path / 'out'}",
        "surrogate=physics",
    ]  # fmt: skip
    assert main(arguments) == 0
    document = json.loads((tmp_path / "out" / "placement.json").read_text())
    told = document["provenance"]["calibrations"]
    assert told["half"]["name"] == "llama-3.1-8b-half" and told["half"]["hash"] != told["h100-64gb"]["hash"]
    used = Counter(gpu["gpu_type"] for gpu in document["gpus"])
    assert used["half"] <= 2
    assert document["objective"] == pytest.approx(0.3 * used["half"] + used["h100-64gb"])


@dataclass
class Strict:
    """Accepts what has few requests per second, and remembers which calibrations it was given."""

    most: dict[str, float]
    max_rounds: int = 6
    given: list[list[str]] = field(default_factory=list)

    def columns(
        self, columns: Sequence[Column], calibrations: Mapping[str, Calibration], *_: Any, **__: Any
    ) -> Verification:
        self.given.append(list(calibrations))
        bad = [c.rate_req_per_s > self.most[c.setting.gpu_type] for c in columns]
        return Verification(tuple(ColumnVerdict("refuted" if b else "accepted", "", (), {}) for b in bad))


def test_a_plan_mixes_types_within_their_stock_and_is_told_by_type(tmp_path: Path) -> None:
    judge = Strict({"h100-64gb": 100.0, "l40s": 100.0})
    prices = ("hardware.l40s.price_per_hour=0.2", "hardware.l40s.count=1", "workload.total_rate_req_per_s=20")
    result = place(objective="gpu_count", solver="greedy", verify=judge, overrides=[*BOTH, *SMALL, *prices])
    used = Counter(c.setting.gpu_type for c in result.columns)
    assert result.status == "verified" and used == {"h100-64gb": 1, "l40s": 1}
    assert result.objective == pytest.approx(1.2)
    assert result.bound is None or result.bound <= 1.2 + 1e-9
    assert all(c.rate_req_per_s <= judge.most[c.setting.gpu_type] for c in result.columns)
    assert ["h100-64gb", "l40s"] in judge.given and ["l40s"] in judge.given
    result.write(tmp_path)
    with (tmp_path / "placement.csv").open() as file:
        assert {row["gpu_type"] for row in csv.DictReader(file)} == {"h100-64gb", "l40s"}
    page = (tmp_path / "report.html").read_text()
    assert "1 x h100-64gb at 1 + 1 of 1 x l40s at 0.2, together 1.2 per hour" in page


def test_todays_placement_names_its_types(tmp_path: Path) -> None:
    table = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens\n"
    (tmp_path / "a.csv").write_text(table + "x,16,0.4,200,200\ny,16,0.4,200,200\n")
    own = ("workload=file", f"workload.path={tmp_path / 'a.csv'}", f"today={tmp_path / 't.csv'}")
    (tmp_path / "t.csv").write_text("adapter_id,gpu_id,gpu_type\nx,g0,l40s\ny,g1,h100-64gb\n")
    today = run_of(*own).today
    assert today is not None and [c.setting.gpu_type for c in today.columns] == ["l40s", "h100-64gb"]
    (tmp_path / "t.csv").write_text("adapter_id,gpu_id\nx,g0\ny,g1\n")
    with pytest.raises(InputError, match="add a column gpu_type"):
        run_of(*own)


def test_a_fleet_of_both_stocks_serves_a_latency_objective() -> None:
    counts = ("hardware.h100-64gb.count=1", "hardware.l40s.count=2")
    result = place(objective="latency", solver="greedy", verify="none", overrides=[*BOTH, *counts, *SMALL])
    used = Counter(c.setting.gpu_type for c in result.columns)
    assert used["h100-64gb"] == 1 and 1 <= used["l40s"] <= 2
