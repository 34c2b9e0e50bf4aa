"""`python -m twin placement=...`: a placement is read strictly and simulated as a fleet."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from placement.__main__ import main as place
from twin.__main__ import main
from twin.command.placement_file import read_placement
from twin.errors import InputError
from twin.fleet.node import Server
from twin.fleet.simulate import Fleet, simulate_fleet
from twin.server.calibration import load_calibration
from twin.server.settings import EngineSetting
from twin.sources.synthetic import discrete_rates
from twin.workload.workload import Workload

ROOT = Path(__file__).resolve().parents[3]
GPU = "h100-64gb"
SETTING = EngineSetting(GPU, 8, 16, max_cpu_loras=8)
WORKLOAD = discrete_rates(12, [0.2, 0.1], [8, 16])
#: The same as overrides.
SAME = [
    "workload=published", "workload.n_adapters=12", "workload.rates=[0.2,0.1]", "workload.ranks=[8,16]",
    "horizon_s=1800", "hydra.run.dir=out",
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def entry(index: int, share: float = 1.0) -> dict[str, Any]:
    adapter = WORKLOAD.adapters[index]
    return {
        "adapter_id": adapter.adapter_id, "rank": adapter.rank, "share": share,
        "rate_req_per_s": share * adapter.rate_req_per_s,
    }  # fmt: skip


def placement() -> dict[str, Any]:
    """Two GPUs; the first adapter is split over both."""
    halves = [[entry(0, 0.5), *(entry(i) for i in part)] for part in (range(1, 6), range(6, 12))]
    return {
        "schema_version": 1,
        "status": "verified",
        "gpus": [
            {"gpu_id": f"gpu{k:03d}", "gpu_type": GPU, "setting": SETTING.flags(), "adapters": half}
            for k, half in enumerate(halves)
        ],
        "provenance": {"calibration": {"name": "llama-3.1-8b-h100-64gb"}},
    }


def written(data: Any) -> Path:
    path = Path("placement.json")
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def read(data: Any, workload: Workload = WORKLOAD) -> Any:
    return read_placement(written(data), workload, gpu_type=GPU, calibration="llama-3.1-8b-h100-64gb")


def simulated() -> dict[str, Any]:
    data = json.loads(Path("out/metrics.json").read_text())
    assert isinstance(data, dict)
    return data


def test_a_placement_becomes_a_fleet() -> None:
    file = read(placement())
    assert file.notes == ()
    assert [s.name for s in file.fleet.servers] == ["gpu000", "gpu001"]
    assert file.fleet.servers[0].setting == SETTING
    shared = WORKLOAD.adapters[0].adapter_id
    assert [s.shares[shared] for s in file.fleet.servers] == [0.5, 0.5]


def test_figures_are_those_of_the_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    written(placement())
    assert main([*SAME, "placement=placement.json", "seed=2", "workload.seed=0"]) == 0
    data = simulated()
    half = {a.adapter_id for a in WORKLOAD.adapters[1:6]}
    shared = WORKLOAD.adapters[0].adapter_id
    others = WORKLOAD.adapters[1:]
    servers = (
        Server("gpu000", SETTING, {shared: 0.5, **{a.adapter_id: 1.0 for a in others if a.adapter_id in half}}),
        Server("gpu001", SETTING, {shared: 0.5, **{a.adapter_id: 1.0 for a in others if a.adapter_id not in half}}),
    )
    calibrations = {GPU: load_calibration("llama-3.1-8b-h100-64gb")}
    expected = simulate_fleet(Fleet(WORKLOAD.adapters, servers), calibrations, horizon_s=1800, seed=2)
    assert data["metrics"] == pytest.approx(expected.row)
    assert [g["metrics"]["running"] for g in data["gpus"]] == pytest.approx(
        [s.row["running"] for s in expected.servers]
    )
    assert sum(g["requests_per_s"] for g in data["gpus"]) == pytest.approx(expected.arrivals / 1800)
    out = capsys.readouterr().out
    for text in ("gpu000", "gpu001", "whole", "constraint=stable: healthy"):
        assert text in out


def test_what_the_main_job_writes_can_be_simulated() -> None:
    arguments = [o for o in SAME if o.startswith("workload")]
    options = ["surrogate=analytic", "solver=greedy", "verify=none", "hydra.run.dir=placed"]
    assert place([*arguments, *options]) == 0
    jsonschema.validate(
        json.loads(Path("placed/placement.json").read_text()),
        json.loads((ROOT / "docs" / "placement.schema.json").read_text()),
    )
    assert main([*SAME, "placement=placed/placement.json"]) == 0
    assert simulated()["warnings"] == []


def test_a_gpu_that_dies_delays_its_requests(capsys: pytest.CaptureFixture[str]) -> None:
    written(placement())
    fails = "failures=[{gpu: 1, at_s: 300, back_s: 600}]"
    assert main([*SAME, "placement=placement.json"]) == 0
    calm = simulated()
    assert main([*SAME, "placement=placement.json", fails, "router=least_loaded", "seeds=2"]) == 0
    broken = simulated()
    assert [g["down_s"] for g in broken["gpus"]] == [0, 300]
    assert broken["resent"] > 0
    assert broken["metrics"]["ttft_mean_s"] > 10 * calm["metrics"]["ttft_mean_s"]
    assert not broken["healthy"]
    assert "gpu001 was down for 300 s" in capsys.readouterr().out
    assert main([*SAME, "placement=placement.json", "failures=[{gpu: 1, at_s: 300}]"]) == 0
    assert simulated()["gpus"][1]["down_s"] == 1500
    assert simulated()["failures"] == [{"gpu": 1, "at_s": 300.0, "back_s": None, "detect_s": 0.0}]


def test_growth_is_no_difference_but_other_rates_are() -> None:
    written(placement())
    assert main([*SAME, "placement=placement.json", "rate_scale=1.5"]) == 0
    assert not any("rates differ" in w for w in simulated()["warnings"])
    assert main([*SAME, "placement=placement.json", "workload.rates=[0.3,0.1]"]) == 0
    (warning,) = (w for w in simulated()["warnings"] if "rates differ" in w)
    assert "7 of 13 entries, by up to 50.0 %" in warning


def test_another_calibration_is_mentioned() -> None:
    data = placement()
    data["provenance"]["calibration"]["name"] = "older"
    assert read(data).notes == (
        "the placement was made with calibration older, it is simulated with llama-3.1-8b-h100-64gb",
    )


def changed(path: str, value: Any) -> dict[str, Any]:
    """The placement with one value replaced; `...` removes it."""
    data = copy.deepcopy(placement())
    *way, last = [int(k) if k.isdigit() else k for k in path.split(".")]
    node: Any = data
    for key in way:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


BAD: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "not JSON"),
    "a list": ([], "is not a placement.json"),
    "another file": ({"metrics": 1}, "is not a placement.json"),
    "another version": (changed("schema_version", 2), "schema_version 2"),
    "no placement found": ({**changed("gpus", []), "status": "infeasible"}, "'infeasible'"),
    "no adapters": (changed("gpus.0.adapters", ...), "no list of adapters"),
    "no setting": (changed("gpus.0.setting", ...), "gpus[0].setting"),
    "unknown flag": (changed("gpus.0.setting.max_lora", 3), "did you mean 'max_loras'"),
    "flag of another type": (changed("gpus.0.setting.max_loras", "8"), "a whole number"),
    "another GPU type": (changed("gpus.1.gpu_type", "a100"), "'a100'"),
    "another adapter": (changed("gpus.0.adapters.1.adapter_id", "adapter-1"), "not in workload"),
    "another rank": (changed("gpus.0.adapters.1.rank", 64), "rank 64 in the placement"),
    "missing adapter": (changed("gpus.0.adapters.1", ...), "lacks 1 adapter"),
    "adapter twice": (changed("gpus.0.adapters.1.adapter_id", WORKLOAD.adapters[0].adapter_id), "twice"),
    "shares": (changed("gpus.0.adapters.0.share", 0.4), "add up to 0.9"),
    "no share": (changed("gpus.0.adapters.0.share", 0), "above 0"),
    "no memory": (changed("gpus.0.setting.max_loras", 4000), "max_cpu_loras"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_placement_of_this_workload_is_refused(case: str) -> None:
    data, expected = BAD[case]
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        read(data)
    assert caught.value.remedy


def test_a_refused_placement_is_one_screen_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    written(changed("gpus.0.adapters.1", ...))
    assert main([*SAME, "placement=placement.json"]) == 2
    err = capsys.readouterr().err
    assert "lacks 1 adapter" in err
    assert "Traceback" not in err
    assert not Path("out/metrics.json").exists()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("adapters=3", "leave adapters"),
        ("plot=true", "one server"),
        ("overheads=true", "one server"),
        ("router=best", "least_loaded"),
        ("failures=[{gpu: 2, at_s: 0}]", "GPUs 0 to 1"),
        ("failures=[{gpu: 0, at_s: 9, back_s: 9}]", "not after"),
        ("failures=[{gpu: 0}]", "at_s is missing"),
        ("failures=[{gpu: 0, at: 9}]", "did you mean 'at_s'"),
        ("failures=[{gpu: 0, at_s: 9, back_s: 99},{gpu: 0, at_s: 50}]", "while it is down"),
        ("failures=[1]", "failures[0]"),
    ],
)
def test_options_that_do_not_fit_a_fleet(option: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(placement())
    assert main([*SAME, "placement=placement.json", option]) == 2
    assert expected in capsys.readouterr().err
