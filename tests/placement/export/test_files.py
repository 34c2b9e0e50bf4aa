"""Deployment files: every name is served as it is, what cannot be is said before solving, nothing stale stays."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from placement.__main__ import main
from placement.config import load_run
from placement.export.files import DeploymentFiles, VllmExport, remove_old
from placement.export.names import DNS_LABEL, dns_name
from tests.placement.export.documents import ODD_NAMES, document, gpu
from tests.placement.synthetic import adapter
from tests.placement.test_config import composed
from twin.errors import InputError
from twin.server.calibration import load_calibration
from twin.server.groups import ModelConfig
from twin.server.settings import EngineSetting
from twin.workload.workload import Workload

URL = "http://{}:8000/v1"
MODEL = ModelConfig("llama", "org/llama")
HELD = [(name, 8) for name in ODD_NAMES]
HEADER = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens"


def written(tmp_path: Path, formats: dict[str, Any], gpus: list[dict[str, Any]], **options: Any) -> Path:
    DeploymentFiles(MODEL, formats=formats, **options).write(document(gpus), tmp_path)
    return tmp_path / "deploy"


def objects(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [o for f in sorted(folder.glob("kubernetes/*.yaml")) for o in yaml.safe_load_all(f.read_text())]
    return [o for o in found if o["kind"] == kind]


@pytest.mark.parametrize("name", [*ODD_NAMES, "x" * 300, "Ünï"])
def test_a_name_in_a_cluster_is_a_label_and_its_own(name: str) -> None:
    assert DNS_LABEL.fullmatch(dns_name(name))
    assert dns_name(name) != dns_name(name + "'")
    assert dns_name("support-de") == "support-de"


@pytest.mark.parametrize(
    ("adapters", "formats", "said"),
    [
        ([("llama", 8)], {"vllm": {}}, "has a name of the base model"),
        ([("../x", 8)], {"vllm": {}}, "column `path`"),
        ([("/x", 8)], {"vllm": {}}, "column `path`"),
        ([("a\nb", 8)], {"vllm": {}}, "control character"),
        ([("-base", 0)], {"vllm": {}}, "begin with a dash"),
        ([("gpt-*", 8)], {"litellm": {}}, "star"),
        ([("org/a", 8)], {"kubernetes": {"adapters_by": "aibrix"}}, "adapters_by=vllm"),
    ],
)
def test_what_cannot_be_served_is_said_before_solving(
    adapters: list[tuple[str, int]], formats: dict[str, Any], said: str
) -> None:
    workload = Workload(tuple(replace(adapter("a", 1.0), adapter_id=n, rank=r) for n, r in adapters))
    settings = [EngineSetting("h100-64gb", 8, 16)]
    with pytest.raises(InputError) as caught:
        DeploymentFiles(MODEL, formats=formats).for_run(workload, settings, {})
    assert said in str(caught.value)


def test_a_configuration_is_refused_before_it_is_solved(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER}\n../a,8,1,200,100\n")
    with pytest.raises(InputError, match="no path below"):
        load_run(composed(["workload=file", f"workload.path={path}", "export=vllm", "surrogate=analytic"]))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("export.formats.vllm.x=1", "vllm"),
        ("export.url='http://{x}'", "unknown field"),
        ("export.port=65535", "ends at"),
    ],
)
def test_wrong_options_are_named(override: str, said: str, small: list[str]) -> None:
    with pytest.raises(InputError, match=said):
        load_run(composed([*small, "export=vllm", "export.servers_per_host=8", f"++{override}"]))


def test_several_formats_are_one_export(small: list[str]) -> None:
    run = load_run(composed([*small, "export=[vllm,litellm]", "export.formats.litellm.retries=5", "export.port=9000"]))
    assert isinstance(run.exporter, DeploymentFiles)
    assert set(run.exporter.formats) == {"vllm", "litellm"}
    assert run.exporter.port == 9000
    assert load_run(composed([*small, "export=none"])).exporter is None


def test_a_path_of_the_workload_comes_before_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER},path\n../a,8,1,200,100,/data/a=1\nb,8,1,200,100,\n")
    run = load_run(composed(["workload=file", f"workload.path={path}", "export=vllm", "surrogate=analytic"]))
    assert run.exporter is not None
    run.exporter.write(document([gpu("gpu000", [("../a", 8), ("b", 8)])]), tmp_path)
    text = (tmp_path / "deploy" / "gpu000.sh").read_text()
    modules = [json.loads(m) for m in re.findall(r"'(\{.*?\})'", text)]
    assert modules == [{"name": "../a", "path": "/data/a=1"}, {"name": "b", "path": "/adapters/b"}]


def test_servers_that_share_a_gpu_or_a_machine_do_not_collide(tmp_path: Path) -> None:
    two = gpu("gpu000", [("a", 8)], servers_per_gpu=2, gpu_memory_utilization=0.45)
    folder = written(
        tmp_path, {"vllm": {}}, [two, gpu("gpu001", [("b", 8)])], servers_per_host=2, url="http://{gpu_id}:{port}"
    )
    assert {p.name for p in folder.glob("*.sh")} == {"gpu000-0.sh", "gpu000-1.sh", "gpu001.sh"}
    ports = [re.search(r"--port (\d+)", p.read_text())[1] for p in sorted(folder.glob("*.sh"))]  # type: ignore[index]
    assert len(set(ports)) == 3
    assert "CUDA_VISIBLE_DEVICES=1" in (folder / "gpu001.sh").read_text()
    routes = json.loads((folder / "routes.json").read_text())["routes"]
    assert [r["weight"] for r in routes["a"]] == [0.5, 0.5]


def test_an_earlier_run_leaves_nothing_and_other_files_stay(tmp_path: Path) -> None:
    written(tmp_path, {"vllm": {}, "kubernetes": {}}, [gpu("gpu000", HELD), gpu("gpu001", [("z", 8)])])
    mine = tmp_path / "deploy" / "kubernetes" / "mine.yaml"
    mine.write_text("mine")
    folder = written(tmp_path, {"vllm": {}}, [gpu("gpu000", HELD)])
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        ".written.json", "gpu000.sh", "routes.json", "kubernetes/mine.yaml",
    }  # fmt: skip
    mine.unlink()
    remove_old(tmp_path)
    assert not list(folder.rglob("*.sh"))


def test_a_listing_cannot_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "precious").write_text("x")
    (tmp_path / "deploy" / ".written.json").write_text('["../precious", 5, "gone"]')
    remove_old(tmp_path)
    assert (tmp_path / "precious").exists()


def test_the_plan_is_saved_where_an_export_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Adapters that a ConfigMap cannot hold are known only when they are placed."""
    path = tmp_path / "many.csv"
    long = "x" * 20_000
    path.write_text("\n".join([HEADER, *(f"{long}{i},8,0.01,50,20" for i in range(30))]) + "\n")
    out = tmp_path / "out"
    code = main(
        [
            "workload=file", f"workload.path={path}", "surrogate=analytic", "solver=greedy", "verify=none",
            "engine.max_loras=[8]", "engine.max_lora_rank=[8]", "export=kubernetes", f"hydra.run.dir={out}",
        ]
    )  # fmt: skip
    assert code == 2
    assert "the plan is saved in" in capsys.readouterr().err
    assert json.loads((out / "placement.json").read_text())["gpus"]
    assert not (out / "deploy").exists()


def test_equal_gpus_are_one_deployment_with_replicas(tmp_path: Path) -> None:
    gpus = [gpu("gpu000", HELD, 0.5), gpu("gpu001", HELD, 0.5), gpu("gpu002", [("base model", 0), ("z", 12)])]
    folder = written(tmp_path, {"kubernetes": {"node_label": "gpu"}}, gpus)
    deployments = objects(folder, "Deployment")
    assert [(d["metadata"]["name"], d["spec"]["replicas"]) for d in deployments] == [("gpu000", 2), ("gpu002", 1)]
    for kind in ("Service", "ConfigMap", "InferencePool"):
        assert [o["metadata"]["name"] for o in objects(folder, kind)] == ["gpu000", "gpu002"]
    for d in deployments:
        chosen, pod = d["spec"]["selector"]["matchLabels"], d["spec"]["template"]
        assert chosen.items() <= pod["metadata"]["labels"].items()
        assert pod["spec"]["nodeSelector"] == {"gpu": "h100-64gb"}
        assert all(len(v) <= 63 for v in pod["metadata"]["labels"].values())
    start = objects(folder, "ConfigMap")[0]["data"]["start.sh"]
    assert start.count('"name":') == len(ODD_NAMES)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in json.dumps(deployments)


def test_every_name_has_one_route_to_the_groups_that_hold_it(tmp_path: Path) -> None:
    many = [(f"a{i}", 8) for i in range(150)]
    gpus = [gpu("gpu000", [*many, ("hot", 8)], 1.0), gpu("gpu001", [("hot", 8), ("base", 0)], 1.0)]
    for one in gpus:
        one["adapters"][[a["adapter_id"] for a in one["adapters"]].index("hot")]["share"] = 0.5
    routes: dict[str, list[str]] = {}
    for route in objects(written(tmp_path, {"kubernetes": {}}, gpus), "HTTPRoute"):
        (rule,) = route["spec"]["rules"]
        assert len(rule["matches"]) <= 64
        for match in rule["matches"]:
            name = match["headers"][0]["value"]
            assert name not in routes
            routes[name] = [b["name"] for b in rule["backendRefs"]]
    assert routes["hot"] == ["gpu000", "gpu001"]
    assert routes["base"] == ["gpu001"]
    assert routes["a149"] == ["gpu000"]
    assert routes["llama"] == ["gpu000", "gpu001"]


@pytest.mark.parametrize(("by", "kind"), [("aibrix", "ModelAdapter"), ("production_stack", "LoraAdapter")])
def test_controllers_get_an_object_for_every_adapter_they_load(tmp_path: Path, by: str, kind: str) -> None:
    gpus = [gpu("gpu000", [("a-1", 8), ("shared", 8)]), gpu("gpu001", [("shared", 8), ("base", 0)])]
    folder = written(tmp_path, {"kubernetes": {"adapters_by": by}}, gpus)
    found = objects(folder, kind)
    assert len({o["metadata"]["name"] for o in found}) == len(found) == (2 if by == "aibrix" else 3)
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in objects(folder, "Deployment")]
    if by == "aibrix":
        shared = next(o for o in found if o["metadata"]["name"] == "shared")["spec"]["podSelector"]
        groups = shared["matchExpressions"][0]["values"]
        assert groups == [label["placement/group"] for label in labels]
        assert all(shared["matchLabels"].items() <= label.items() for label in labels)
    else:
        assert {o["spec"]["baseModel"] for o in found} == {label["model"] for label in labels}
    for text in (o["data"]["start.sh"] for o in objects(folder, "ConfigMap")):
        assert "--enable-lora" in text and "--lora-modules" not in text


def test_litellm_shares_the_load_as_planned(tmp_path: Path) -> None:
    gpus = [gpu("gpu000", [("hot", 8), ("org/x", 8)], 0.25), gpu("gpu001", [("hot", 8), ("base", 0)], 0.75)]
    folder = written(tmp_path, {"litellm": {"fallback_to_base": True}}, gpus)
    config = yaml.safe_load((folder / "litellm.yaml").read_text())
    weights = {
        (e["model_name"], e["litellm_params"]["api_base"]): e["litellm_params"]["weight"] for e in config["model_list"]
    }
    assert weights["hot", URL.format("gpu000")] == 0.25
    assert weights["hot", URL.format("gpu001")] == 0.75
    assert all(e["litellm_params"]["model"] == f"hosted_vllm/{e['model_name']}" for e in config["model_list"])
    assert {"hot": ["llama"]} in config["router_settings"]["fallbacks"]
    probed = [e for e in config["model_list"] if not e["model_info"]["disable_background_health_check"]]
    assert {e["litellm_params"]["api_base"] for e in probed} == {URL.format("gpu000"), URL.format("gpu001")}


def test_blis_gets_the_requests_that_the_twin_draws(tmp_path: Path) -> None:
    from twin.traffic.arrivals import draw_requests

    workload = Workload((replace(adapter("a=b", 2.0), rank=8), replace(adapter("base", 1.0), rank=0)))
    calibration = load_calibration("llama-3.1-8b-h100-64gb")
    export = DeploymentFiles(MODEL, formats={"blis": {"horizon_s": 60.0, "seed": 3}}).for_run(
        workload, [], {"h100-64gb": calibration}
    )
    export.write(document([gpu("gpu000", [("a=b", 8), ("base", 0)])]), tmp_path)
    folder = tmp_path / "deploy" / "blis" / "gpu000"
    rows = list(csv.DictReader((folder / "trace.csv").read_text().splitlines()))
    drawn = draw_requests(workload.adapters, horizon_s=60.0, seed=3, max_model_len=calibration.model.max_model_len)
    assert [int(r["input_tokens"]) for r in rows] == drawn.prompt.tolist()
    assert [r["adapter"] for r in rows] == [("a=b", "")[k] for k in drawn.adapter.tolist()]
    times = [int(r["arrival_time_us"]) for r in rows]
    assert times == sorted(times) and times[0] >= 0 and times[-1] < 60e6
    lora = yaml.safe_load((folder / "lora.yaml").read_text())["lora"]
    assert (lora["adapter_capacity"], lora["adapters"]) == (8, [{"id": "a=b", "rank": 8, "base_model": "org/llama"}])
    # One load of an adapter takes as long as measured.
    load_us = lora["load_base_latency_us"] + 16 * lora["footprint_bytes_per_rank"] / lora["load_bandwidth_bytes_us"]
    assert load_us == pytest.approx(1000 * calibration.load.equal_rank_ms)
    with pytest.raises(InputError, match="needs the workload"):
        written(tmp_path, {"blis": {}}, [gpu("gpu000", [("a", 8)])])


def test_the_old_name_writes_the_old_files(tmp_path: Path) -> None:
    files = VllmExport(MODEL, port=9000).write(document([gpu("gpu000", [("a", 8)])]), tmp_path)
    assert [f.name for f in files] == ["gpu000.sh", "routes.json"]
    assert "--port 9000" in files[0].read_text()


@pytest.mark.parametrize(
    "flags",
    ["--max-loras 4", "--max_loras=4", "--port 9", "--no-async-scheduling", "-tp 2", "--dtype bfloat16 --block-size=8"],
)  # fmt: skip
def test_further_flags_do_not_overrule_the_plan(flags: str) -> None:
    with pytest.raises(InputError, match="which the plan says itself"):
        DeploymentFiles(ModelConfig("tiny", "/m"), flags=flags)


def test_further_flags_are_passed_on() -> None:
    exporter = DeploymentFiles(ModelConfig("tiny", "/m"), flags="--dtype bfloat16 --no-enable-prefix-caching")
    assert exporter.flags.startswith("--dtype")
    with pytest.raises(InputError, match="close its quotes"):
        DeploymentFiles(ModelConfig("tiny", "/m"), flags="--x 'y")
