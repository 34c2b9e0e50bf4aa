"""The files of a run: valid, complete, consistent with each other, and never half written."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from placement.config import load_run
from placement.export import DeploymentFiles
from placement.pipeline import run_pipeline
from placement.report.document import failure, to_csv, to_json, write_outputs
from placement.report.html import render
from placement.report.progress import Silent
from placement.report.table import print_report, sweep_table
from placement.report.words import certificate_text, number, percent, verification_text
from tests.placement.test_config import composed
from twin.config.folder import conf_dir
from twin.files import write_text
from twin.server.groups import ModelConfig

SCHEMA = json.loads((conf_dir().parent / "docs" / "placement.schema.json").read_text())
HOT = "hot <b>&"


@pytest.fixture(scope="module")
def run_and_document(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """A verified run with base-model traffic, a split adapter and an id that HTML must escape."""
    folder = tmp_path_factory.mktemp("workload")
    rows = ["adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens", "base,0,0.5,200,100", f"{HOT},8,80,200,100"]
    rows += [f"a{i},{(8, 16)[i % 2]},0.1,200,100" for i in range(10)]
    (folder / "adapters.csv").write_text("\n".join(rows) + "\n")
    config = composed(
        [
            "+objective=latency", "workload=file", f"workload.path={folder}/adapters.csv", "surrogate=analytic",
            "engine.max_loras=[8,16]", "engine.max_lora_rank=[16]", "solver=greedy", "verify.horizon_s=600",
        ]
    )  # fmt: skip
    run = load_run(config)
    return run, run_pipeline(run, Silent()).to_dict()


@pytest.fixture
def data(run_and_document: tuple[Any, dict[str, Any]]) -> dict[str, Any]:
    return json.loads(to_json(run_and_document[1]))  # type: ignore[no-any-return]


def test_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_document_follows_the_schema(data: dict[str, Any]) -> None:
    jsonschema.validate(data, SCHEMA)
    assert data["status"] == "verified"


def test_failure_follows_the_schema(run_and_document: tuple[Any, dict[str, Any]]) -> None:
    for status in ("infeasible", "no_solution"):
        jsonschema.validate(json.loads(to_json(failure(run_and_document[0], status, "why"))), SCHEMA)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["status", "gpus", "bound", "provenance", "verification"])
def test_schema_notices_a_missing_key(data: dict[str, Any], key: str) -> None:
    del data[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_every_adapter_is_placed_with_all_its_traffic(
    data: dict[str, Any], run_and_document: tuple[Any, dict[str, Any]]
) -> None:
    shares: dict[str, float] = {}
    for gpu in data["gpus"]:
        ids = [a["adapter_id"] for a in gpu["adapters"]]
        assert len(set(ids)) == len(ids)
        for adapter in gpu["adapters"]:
            shares[adapter["adapter_id"]] = shares.get(adapter["adapter_id"], 0.0) + adapter["share"]
    assert set(shares) == {a.adapter_id for a in run_and_document[0].workload.adapters}
    assert all(share == pytest.approx(1.0) for share in shares.values())
    assert sum(HOT in [a["adapter_id"] for a in g["adapters"]] for g in data["gpus"]) > 1


def test_settings_can_be_started(data: dict[str, Any]) -> None:
    for gpu in data["gpus"]:
        loras = sum(a["rank"] > 0 for a in gpu["adapters"])
        assert gpu["setting"]["max_cpu_loras"] >= max(loras, gpu["setting"]["max_loras"])
        assert max(a["rank"] for a in gpu["adapters"]) <= gpu["setting"]["max_lora_rank"]


def test_objectives_are_means_over_requests(data: dict[str, Any]) -> None:
    """The mean latency of all requests is the mean over GPUs weighted by their rates, predicted and simulated."""
    rates = [g["predicted"]["rate_req_per_s"] for g in data["gpus"]]
    for source, key in (("predicted", "objective"), ("simulated", "simulated_objective")):
        mean = sum(r * g[source]["e2e_mean_s"] for r, g in zip(rates, data["gpus"], strict=True)) / sum(rates)
        assert data[key] == pytest.approx(mean, rel=1e-9)


def test_bounds_are_ordered(data: dict[str, Any]) -> None:
    assert data["bound_outer"] <= data["bound"] * (1 + 1e-9)
    assert data["bound"] <= data["objective"] * (1 + 1e-9)
    assert data["gap"] == pytest.approx((data["objective"] - data["bound"]) / data["objective"])


def test_provenance_names_everything(data: dict[str, Any]) -> None:
    p = data["provenance"]
    assert p["calibration"]["name"] == "llama-3.1-8b-h100-64gb"
    assert p["versions"]["numpy"]
    assert p["seeds"]["verification"] == sorted({s for g in data["gpus"] for s in g["seeds"]})
    assert p["surrogate"]["model"] == "surrogates.model.analytic.AnalyticSurrogate"


def test_csv_has_one_line_per_adapter_and_gpu(data: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(data))))
    assert len(rows) == sum(len(g["adapters"]) for g in data["gpus"])
    assert {r["adapter_id"] for r in rows} >= {"base", HOT, "a0"}
    assert rows[0]["max_loras"] == str(data["gpus"][0]["setting"]["max_loras"])


class Tags(HTMLParser):
    """Checks that tags are closed in order and that nothing is loaded from elsewhere; collects text and scripts."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert "src" not in given
        assert tag in ("a", "link") or "href" not in given
        assert not (given.get("href") or "").startswith(("http", "//"))
        assert not any(name.startswith("on") for name in given)
        self.names.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"] and data.startswith("{"):
            self.data = data


def test_html_is_well_formed_self_contained_and_escaped(data: dict[str, Any]) -> None:
    data["warnings"].append("<i>team[/prod]</i> & </script><img src=x>")
    text = render(data, files=["deploy/a b#.sh"])
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert not {"b", "i", "img"} & set(tags.names)
    assert tags.names.count("script") == 3
    assert "&lt;b&gt;&amp;" in text
    assert "plotly.js (basic - minified)" in text and "Licensed under the MIT license" in text
    assert 'href="deploy/a%20b%23.sh"' in text
    assert certificate_text(data).split(":")[0] in text
    for gpu in data["gpus"]:
        assert gpu["gpu_id"] in text
    shown = json.loads(tags.data)
    assert {row[0] for row in shown["adapters"]} == {a["adapter_id"] for g in data["gpus"] for a in g["adapters"]}
    assert len(shown["gpus"]) == len(data["gpus"])


def test_the_report_of_ten_thousand_adapters_is_small(data: dict[str, Any]) -> None:
    gpu = data["gpus"][0]
    kept = gpu["promises"]["ttft_p99_s"]["adapters"][0]
    some = [f"tenant-{i:05d}/{'x' * 20}" for i in range(10_000)]
    gpu["adapters"] = [gpu["adapters"][0] | {"adapter_id": a} for a in some]
    gpu["promises"]["ttft_p99_s"]["adapters"] = [kept | {"adapter_id": a} for a in some]
    gpu["promises"]["ttft_p99_s"]["worst_adapter"] = some[0]
    assert len(render(data).encode()) < 15e6


def test_terminal_report_says_objective_bound_and_verdict(
    data: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data["warnings"].append("max_loras 512 is outside 8..384")
    print_report(data, ["outputs/placement.json"])
    out = capsys.readouterr().out
    for text in ("latency", "bound", "gap", "verified", "gpu000", "max_loras 512", "outputs/placement.json"):
        assert text in out


def test_words_do_not_claim_what_is_not_known(data: dict[str, Any]) -> None:
    data |= {"bound": None, "gap": None, "bound_outer": None, "bound_tightened": None}
    assert "nothing is proven" in certificate_text(data)
    data["verification"] |= {"method": "none", "gpus": []}
    assert verification_text(data).startswith("Not verified")
    assert number(None) == number(float("nan")) == percent(None) == "-"
    assert render(data)


def test_only_an_exact_bound_makes_a_placement_optimal(data: dict[str, Any]) -> None:
    """A bound that rests on columns that were looked at, or on pieces below most of them, is met, not proof."""
    surrogate = data["provenance"]["surrogate"]
    data |= {"bound": data["objective"], "gap": 0.0, "bound_outer": None, "bound_columns": None}
    data["provenance"]["surrogate"] = surrogate | {"bound_level": None}
    assert "this one is optimal" in certificate_text(data)
    for columns, level, said in ((1234, 0.975, "1,234 columns"), (None, 0.975, "97.5 %")):
        data["bound_columns"] = columns
        data["provenance"]["surrogate"] = surrogate | {"bound_level": level}
        assert "optimal." not in certificate_text(data) and "meets it" in certificate_text(data)
        assert said in certificate_text(data)


def verified(**changes: Any) -> dict[str, Any]:
    """A GPU's entry in `verification`."""
    entry = {
        "decision": "accepted", "accepted": True, "hours": 60, "bad_hours": 0, "window_s": 3600.0, "gpus_alike": 1,
        "adapters_with_few_requests": 0,
    }  # fmt: skip
    return entry | changes


def test_the_verdict_is_told_with_its_claim_and_no_more(data: dict[str, Any]) -> None:
    checked = data["verification"]
    checked["gpus"] = [verified(), verified(hours=120, bad_hours=2, adapters_with_few_requests=3)]
    text = verification_text(data)
    assert "2 of 2 GPUs accepted by the twin: 60 to 120 simulated hours each, 2 of them bad." in text
    assert "10.0 % of the hours or more break the rule would be accepted with a probability of at most 5.0 %" in text
    assert "3 adapters had too few requests" in text
    undecided = verified(decision="undecided", accepted=False)
    untested = verified(decision="untested", accepted=False, window_s=86_400.0 * 30)
    checked["gpus"] = [undecided, untested]
    text = verification_text(data)
    assert "0 of 2 GPUs accepted by the twin, 1 undecided, 1 untested" in text
    assert "windows of up to 30 days" in text
    assert "would be accepted" not in text


def test_hours_of_gpus_alike_are_counted_once(data: dict[str, Any]) -> None:
    data["verification"]["gpus"] = [verified(hours=120, bad_hours=5, gpus_alike=40) for _ in range(40)]
    assert "120 simulated hours for each of 1 kind of GPUs, 5 of them bad." in verification_text(data)


def test_busiest_windows_are_told(data: dict[str, Any]) -> None:
    data["verification"]["gpus"] = [verified()]
    peak = {"source": "recording", "kept": True, "peak_to_mean": 2.5}
    data["verification"]["peaks"] = [peak, peak | {"kept": False}]
    assert "recorded requests (2.5 times the rate planned for): 1 of 2 break the rule" in verification_text(data)


def test_sweep_table_shows_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [(("solver=milp", "seed=1"), 0, "s/0", None), (("solver=greedy", "seed=1"), 3, "s/1", None)]
    sweep_table(jobs, ["s/sweep.html"], "no picture")
    out = capsys.readouterr().out
    assert out.splitlines()[0].strip() == "sweep seed=1"
    assert "solver=greedy" in out


def test_all_files_are_written(run_and_document: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    run, data = run_and_document
    files = write_outputs(run, data, tmp_path)
    assert {f.name for f in files} == {"placement.json", "placement.csv", "report.html"}
    assert all(f.read_text() for f in files)
    assert {p.name for p in tmp_path.iterdir()} == {f.name for f in files}


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "placement.json"
    write_text(path, "old")

    def broken(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["placement.json"]


def exported(data: dict[str, Any], tmp_path: Path) -> list[Path]:
    for gpu in data["gpus"]:
        for adapter in gpu["adapters"]:
            adapter["adapter_id"] = re.sub(r"\W", "", adapter["adapter_id"])
    return DeploymentFiles(ModelConfig("llama", "org/llama 8b"), port=9000).write(data, tmp_path)


def test_export_starts_every_server_with_its_setting(data: dict[str, Any], tmp_path: Path) -> None:
    *scripts, _ = exported(data, tmp_path)
    for script, gpu in zip(scripts, data["gpus"], strict=True):
        assert script.stat().st_mode & 0o100
        # The shell itself says what the command line is.
        shown = script.read_text().replace("exec vllm", "printf '%s\\n' vllm")
        words = subprocess.run(["sh"], input=shown, capture_output=True, text=True, check=True).stdout.splitlines()
        assert words[:3] == ["vllm", "serve", "org/llama 8b"]
        for flag in ("max_loras", "max_lora_rank", "max_num_seqs", "max_cpu_loras", "gpu_memory_utilization"):
            assert words[words.index(f"--{flag.replace('_', '-')}") + 1] == str(gpu["setting"][flag])
        modules = words[words.index("--lora-modules") + 1 :] if "--lora-modules" in words else []
        assert {json.loads(m)["name"] for m in modules} == {a["adapter_id"] for a in gpu["adapters"] if a["rank"] > 0}


def test_export_routes_all_traffic(data: dict[str, Any], tmp_path: Path) -> None:
    *_, table = exported(data, tmp_path)
    routes = json.loads(table.read_text())["routes"]
    assert all(sum(r["weight"] for r in servers) == pytest.approx(1.0) for servers in routes.values())
    assert len({r["url"] for r in routes["hotb"]}) > 1
