"""Today's placement beside the plan: the same hours, figures by hand, and what reaches the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from placement import InputError, place
from placement.report.html import render
from placement.report.table import print_report
from placement.report.today import today_rows, today_text
from placement.today.comparison import WINDOWS, figures_of
from tests.placement.synthetic import adapter
from twin.config.folder import conf_dir
from twin.figures.health import Stable
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate

SCHEMA = json.loads((conf_dir().parent / "docs" / "placement.schema.json").read_text())
CALIBRATION = load_calibration("llama-3.1-8b-h100-64gb")


@pytest.fixture
def document(small: list[str], tmp_path: Path) -> dict[str, Any]:
    """A plan on fewer GPUs than today's four, one of which gets a crowd in one slot."""
    path = tmp_path / "current.csv"
    path.write_text(
        "adapter_id,gpu_id,max_loras\n" + "".join(f"a{i},gpu{i % 4},{8 if i % 4 else 1}\n" for i in range(12))
    )
    overrides = [*small[2:], f"today={path}", "verify.horizon_s=1200"]
    workload = small[1].removeprefix("workload.path=")
    return json.loads(json.dumps(place(workload, "gpu_count", overrides=overrides).to_dict()))  # type: ignore[no-any-return]


def test_the_entry_follows_the_schema_and_reaches_people(
    document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    jsonschema.validate(document, SCHEMA)
    today = document["today"]
    assert [g["gpu_id"] for g in today["gpus"]] == ["gpu0", "gpu1", "gpu2", "gpu3"]
    assert [g["setting"]["max_loras"] for g in today["gpus"]] == [1, 8, 8, 8]
    assert (today["figures"]["gpus"], today["plan"]["gpus"]) == (4, len(document["gpus"]))
    assert "3 GPUs fewer" in today_text(document)
    assert [row[:2] for row in today_rows(document)] == [["today", "4"], ["plan", "1"]]
    print_report(document, [])
    assert "worst adapter" in capsys.readouterr().out
    assert "Today and planned" in render(document)


def test_hours_are_those_of_the_plan(document: dict[str, Any]) -> None:
    seeds = document["today"]["seeds"]
    assert len(seeds) == WINDOWS
    assert set(seeds) <= {s for g in document["gpus"] for s in g["seeds"]}


def test_without_today_nothing_is_said(small: list[str]) -> None:
    result = place(small[1].removeprefix("workload.path="), "gpu_count", overrides=small[2:], verify="none")
    found = result.to_dict()
    assert found["today"] is None
    assert "Today and planned" not in render(found)


def test_an_unverified_plan_is_not_compared(small: list[str], tmp_path: Path) -> None:
    path = tmp_path / "current.csv"
    path.write_text("adapter_id,gpu_id\n" + "".join(f"a{i},gpu0\n" for i in range(12)))
    workload = small[1].removeprefix("workload.path=")
    result = place(workload, "gpu_count", overrides=[*small[2:], f"today={path}"], verify="none")
    assert result.today is None
    assert any("not judged" in w for w in result.warnings)
    path.write_text("adapter_id,gpu_id\na0,gpu0\n")
    with pytest.raises(InputError, match="have no GPU"):
        place(workload, "gpu_count", overrides=[*small[2:], f"today={path}"], verify="none")


def test_an_interrupt_leaves_the_plan(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("placement.today.comparison.compared", interrupted)
    path = tmp_path / "current.csv"
    path.write_text("adapter_id,gpu_id\n" + "".join(f"a{i},gpu0\n" for i in range(12)))
    overrides = [*small[2:], f"today={path}", "verify.horizon_s=600"]
    result = place(small[1].removeprefix("workload.path="), "gpu_count", overrides=overrides)
    assert (result.status, result.today) == ("verified", None)
    assert any("interrupted before today's placement" in w for w in result.warnings)


def test_figures_are_means_over_requests_and_replicas() -> None:
    setting = EngineSetting(CALIBRATION.stamp.gpu_type, 8, 8)
    columns = [
        Column((adapter("short", 0.5, output=50.0), adapter("long", 0.2, output=400.0)), setting),
        Column((adapter("long", 0.1, output=400.0),), setting),
    ]
    results = [[simulate(c, CALIBRATION, seed=s) for s in (1, 2)] for c in columns]
    found = figures_of(columns, results, Stable())
    of_long = [r.adapter_sums[2] for of_gpu in results for r in of_gpu]
    total = sum(float(s[2, -1]) for s in of_long)
    requests = sum(float(s[1, -1]) for s in of_long)
    assert found.worst_adapter == "long"
    assert found.worst_adapter_e2e_s == pytest.approx(total / requests)
    weights = [[float(r.adapter_sums[2, 1].sum()) for r in of_gpu] for of_gpu in results]
    means = [[r.row["e2e_mean_s"] for r in of_gpu] for of_gpu in results]
    expected = sum(w * m for a, b in zip(weights, means, strict=True) for w, m in zip(a, b, strict=True))
    assert found.e2e_mean_s == pytest.approx(expected / sum(map(sum, weights)))
    assert (found.gpus, found.starved_gpus) == (2, 0)


def test_a_crowd_on_one_slot_starves() -> None:
    setting = EngineSetting(CALIBRATION.stamp.gpu_type, 1, 8)
    crowd = Column(tuple(adapter(f"a{i}", 0.5) for i in range(30)), setting)
    calm = Column((adapter("calm", 0.1),), setting)
    results = [[simulate(c, CALIBRATION, seed=1)] for c in (crowd, calm)]
    found = figures_of([crowd, calm], results, Stable())
    assert found.starved_gpus == 1
    assert found.worst_adapter != "calm"
    assert found.late_fraction > 0.5
