"""Configuration: every option composes and can be built, and bad values are refused with their place."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from placement.config import COMPONENTS, NOT_PLACED, config_hash, load_run, with_default_objective
from twin.config.folder import conf_dir
from twin.config.instantiate import build
from twin.config.ranges import Range
from twin.config.schema import parse
from twin.errors import InputError
from twin.server.flags import GRID_FLAGS, setting_choices
from twin.server.groups import HardwareConfig
from twin.server.settings import DEFAULT_MAX_LORA_RANKS, DEFAULT_MAX_LORAS, EngineSetting

CONF = conf_dir()
#: Groups of other programs.
OTHERS = {"commands"}
OPTIONS = sorted((p.parent.name, p.stem) for p in CONF.glob("*/*.yaml") if p.parent.name not in OTHERS)
#: Workloads read from measured traces, with their folder in the measured data.
TRACES = {"azure": "azure_llm_2023", "mooncake": "mooncake", "servegen": "servegen"}


def composed(overrides: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides)
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(k): v for k, v in config.items()}


def overrides_for(group: str, option: str, tmp_path: Path) -> list[str]:
    """The option with what it needs to be built: files for a workload, a surrogate without weights."""
    chosen = [f"{'+' if group == 'objective' else ''}{group}={option}"]
    if group != "surrogate":
        chosen.append("surrogate=analytic")
    if group == "calibration":
        chosen.append(f"model={option.removesuffix('-h100-64gb')}")
    if (group, option) == ("workload", "file"):
        (tmp_path / "a.csv").write_text("adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens\na,8,1,200,200\n")
        chosen.append(f"workload.path={tmp_path}/a.csv")
    if (group, option) == ("workload", "access_log"):
        (tmp_path / "log.csv").write_text(
            "timestamp,adapter_id,prompt_tokens,output_tokens\n"
            + "".join(f"{t},a,100,50\n" for t in range(0, 3600, 60))
        )
        (tmp_path / "registry.csv").write_text("adapter_id,rank\na,8\n")
        chosen += [f"workload.path={tmp_path}/log.csv", f"workload.registry={tmp_path}/registry.csv"]
    if (group, option) == ("workload", "trace"):
        (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,9,9\n9,9,9\n")
        chosen.append(f"workload.path={tmp_path}/trace.csv")
    if (group, option) == ("workload", "prometheus"):
        (tmp_path / "registry.csv").write_text("adapter_id,rank\na,8\n")
        chosen += [f"workload.registry={tmp_path}/registry.csv", "workload.url=http://localhost:9090"]
    if group in ("model", "hardware"):
        # Derived from the data sheet: with or without the package of operator times.
        chosen.append("hardware.system=null")
        if option in ("gemma-2-27b", "llama-3.1-70b", "llama-3.3-70b", "qwen2.5-32b", "qwen2.5-72b", "qwen3-32b"):
            chosen.append("engine.tensor_parallel_size=4")
    if (group, option) == ("hardware", "spec"):
        chosen += [f"hardware.{k}" for k in ("memory_gib=44.4", "bandwidth=864", "flops=362", "pcie=32")]
    if (group, option) == ("model", "hf"):
        sizes = {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 5504}
        (tmp_path / "config.json").write_text(
            json.dumps(sizes | {"vocab_size": 32000, "max_position_embeddings": 4096, "model_type": "llama"})
        )
        chosen.append(f"model.config={tmp_path}/config.json")
    return chosen


@pytest.fixture(autouse=True)
def derived_here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derived calibrations are kept in a folder of this test run."""
    monkeypatch.setenv("ADAPTER_PLACEMENT_CALIBRATIONS", str(tmp_path_factory.getbasetemp() / "derived"))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_builds(
    group: str, option: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = overrides_for(group, option, tmp_path)
    if group == "workload" and option in TRACES:
        folder = request.getfixturevalue("measured_data") / "traces" / TRACES[option]
        overrides.append(f"workload.path={folder}")
    if (group, option) == ("workload", "prometheus"):
        answer = [{"metric": {"model_name": "a"}, "value": [0, "9"]}]
        monkeypatch.setattr("twin.sources.prometheus.Server._ask", lambda *_: answer)
        overrides.append("workload.counters=vllm")
    config = composed(overrides)
    run = load_run(config)
    assert run.workload.adapters
    assert run.settings
    assert run.objective.terms


def test_every_group_has_a_checked_default() -> None:
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    named = {next(iter(d)).removeprefix("optional ") for d in defaults if isinstance(d, dict)}
    folders = {p.name for p in CONF.iterdir() if p.is_dir() and not p.name.startswith("_")} - OTHERS
    assert named == folders - {"objective"}


def test_calibration_follows_model_and_hardware() -> None:
    assert composed(["model=qwen2.5-7b"])["calibration"]["name"] == "qwen2.5-7b-h100-64gb"


def test_default_objective_is_said() -> None:
    config, notes = with_default_objective({})
    assert list(config["objective"]["terms"]) == ["gpu_count"]
    assert "gpu_count" in notes[0]
    assert with_default_objective({"objective": {"terms": {}}}) == ({"objective": {"terms": {}}}, ())


def test_hash_ignores_key_order_and_sees_values() -> None:
    assert config_hash({"a": 1, "b": {"c": 2, "d": 3}}) == config_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})


@pytest.mark.parametrize(
    ("key", "value"),
    [("count", 0), ("count", 1.5), ("price_per_hour", 0), ("price_per_hour", float("nan")), ("host_memory_gib", -1)],
)
def test_hardware_out_of_range(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"hardware\.{key}"):
        parse(HardwareConfig, {"name": "h100-64gb", key: value}, "hardware")


def test_engine_lists_are_ranges_of_each_element() -> None:
    def choices(**flags: Any) -> list[tuple[int, int]]:
        settings = setting_choices(flags, "x", lists=GRID_FLAGS, without=NOT_PLACED)
        return [(s.max_loras, s.max_lora_rank) for s in settings]

    assert choices(max_loras=[8, 16, 8], max_lora_rank=8) == [(8, 8), (16, 8)]
    for flags, problem in (
        ({"max_loras": [8, 0], "max_lora_rank": 8}, "engine.max_loras = 0 is out of range"),
        ({"max_loras": [], "max_lora_rank": 8}, "engine.max_loras is empty"),
        ({"max_lora_rank": 8}, "engine.max_loras is missing"),
        ({"max_loras": 8, "max_lora_rank": 8, "max_num_seqs": [8, 16]}, "engine.max_num_seqs"),
        ({"max_loras": 8, "max_lora_rank": 8, "max_cpu_loras": 8}, "unknown option 'max_cpu_loras'"),
        ({"max_loras": 8, "max_lora_rnk": 8}, "did you mean 'max_lora_rank'"),
    ):
        with pytest.raises(InputError, match=re.escape(problem)):
            choices(**flags)


def test_engine_options_repeat_the_one_table_of_flags() -> None:
    """YAML has to name every key that may be overridden; values and names are those of `EngineSetting`."""
    grid = yaml.safe_load((CONF / "engine" / "grid.yaml").read_text())
    defaults = {f.name: f.default for f in fields(EngineSetting) if f.default is not MISSING}
    assert {k: v for k, v in grid.items() if k not in (*GRID_FLAGS, "version")} == {
        k: v for k, v in defaults.items() if k not in NOT_PLACED
    }
    assert (tuple(grid["max_loras"]), tuple(grid["max_lora_rank"])) == (DEFAULT_MAX_LORAS, DEFAULT_MAX_LORA_RANKS)
    assert set(yaml.safe_load((CONF / "twin.yaml").read_text())["engine"]) == set(NOT_PLACED)
    batching = yaml.safe_load((CONF / "batching.yaml").read_text())
    assert {k: batching[k] for k in batching if k in defaults} == {k: defaults[k] for k in batching if k in defaults}


@dataclass(frozen=True)
class Example:
    share: Annotated[float, Range(above=0, high=1)] = 0.5
    names: tuple[str, ...] = ()
    flag: bool = False
    limit: int | None = None


def test_parse_converts_plain_data_and_keeps_types() -> None:
    parsed = parse(Example, {"share": 1, "names": ["a"], "limit": 3.0}, "x")
    assert parsed == Example(1.0, ("a",), False, 3)
    assert isinstance(parsed.share, float)
    assert isinstance(parsed.limit, int)


@pytest.mark.parametrize(
    "data",
    [
        {"share": 0},
        {"share": True},
        {"share": "1"},
        {"names": "a"},
        {"names": [1]},
        {"flag": 1},
        {"limit": 1.5},
        {"shre": 1},
    ],
)
def test_parse_refuses(data: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        parse(Example, data, "x")


def test_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'share'"):
        parse(Example, {"shre": 1}, "x")


def test_context_fills_what_the_node_leaves_open() -> None:
    node = {"_target_": "twin.workload.adapter.Slo"}
    assert build(node, "constraint.slo", COMPONENTS, ttft_p99_s=2.0, unknown=1).ttft_p99_s == 2.0
    assert build({**node, "ttft_p99_s": 3.0}, "constraint.slo", COMPONENTS, ttft_p99_s=2.0).ttft_p99_s == 3.0


def test_nested_nodes_are_built_and_errors_name_their_place() -> None:
    node = {
        "_target_": "twin.figures.health.Stable",
        "slo": {"_target_": "twin.workload.adapter.Slo", "ttft_p99_s": -1.0},
    }
    with pytest.raises(InputError) as caught:
        build(node, "constraint", COMPONENTS)
    assert caught.value.where == "constraint.slo.ttft_p99_s"
    with pytest.raises(InputError, match=r"constraint\.late_share = 'x' is not a number"):
        build({"_target_": "twin.figures.health.Stable", "late_share": "x"}, "constraint", COMPONENTS)
    with pytest.raises(InputError, match="unknown option 'late'"):
        build({"_target_": "twin.figures.health.Stable", "late": 1}, "constraint", COMPONENTS)


def test_high_ranks_get_slots_where_the_choices_are_the_default(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens\nbig,256,0.5,400,150\nodd,100,0.8,900,60\n"
    )
    asked = ["workload=file", f"workload.path={path}", "surrogate=analytic"]
    run = load_run(composed(asked))
    assert {s.max_lora_rank for s in run.settings} == {8, 16, 32, 64, 256}
    assert any("max_lora_rank 256 is a choice too" in note for note in run.notes)
    chosen = load_run(composed([*asked, "engine.max_lora_rank=[64]"]))
    assert {s.max_lora_rank for s in chosen.settings} == {64}
