"""A recording is complete run by run, goes on where it stopped, and says what is wrong with a server."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.tiny_model import write_tiny_model
from profiling.__main__ import main
from profiling.derive.architecture import read_config
from profiling.record import probe
from profiling.record.adapters import layers_of, make_adapter
from profiling.record.files import STEP_COLUMNS, lines_between, read_records, recorded, write_run
from profiling.record.plan import Design, requests_of, runs_of, servers_of
from profiling.record.server import engine_facts, plugin_folder
from twin.errors import InputError

DESIGN = Design(servers_of((4, 8), (8, 16), 12), (1, 4, 16), (16, 64), 3, 2, 10.0, 32, 32, (0.3, 0.6))


def test_slots_and_rank_vary_independently() -> None:
    assert {(s.max_loras, s.max_lora_rank) for s in DESIGN.servers} == {(4, 8), (4, 16), (8, 8), (8, 16)}
    assert all(max(s.ranks) <= s.max_lora_rank for s in DESIGN.servers)
    runs = [r for i in range(4) for r in runs_of(DESIGN, i)]
    assert len({r.name for r in runs}) == len(runs)
    work = [r for r in runs if r.kind == "workload"]
    assert any(r.adapters < r.server.max_loras for r in work) and any(r.adapters > r.server.max_loras for r in work)
    assert sum(r.held_out for r in runs) == 8 and sum(bool(r.repeats) for r in runs) == 4


def test_a_batch_arrives_together_and_a_workload_as_drawn() -> None:
    batch = next(r for r in runs_of(DESIGN, 0) if r.kind == "batch" and r.adapters > 1)
    adapters, requests = requests_of(batch, 1.0, 1024)
    assert len(requests) == batch.size and np.all(requests.arrival_s == 0)
    assert set(requests.adapter.tolist()) == set(range(len(adapters)))
    work = next(r for r in runs_of(DESIGN, 0) if r.kind == "workload")
    _, drawn = requests_of(work, 20.0, 1024)
    assert 100 < len(drawn) < 300 and np.all(np.diff(drawn.arrival_s) >= 0)


def test_random_adapters_have_the_shapes_of_the_model(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    model = read_config(write_tiny_model(tmp_path / "m"))
    folder = make_adapter(tmp_path / "a", model, 8, 0)
    weights = load_file(folder / "adapter_model.safetensors")
    assert len(weights) == 2 * model.layers * len(layers_of(model))
    assert weights["base_model.model.model.layers.3.mlp.down_proj.lora_A.weight"].shape == (8, model.intermediate)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 8


def table(rows: int) -> dict[str, pd.DataFrame]:
    zeros = np.zeros(rows)
    requests = dict.fromkeys(("arrival_s", "adapter", "prompt", "output", "first_token_s", "finish_s"), zeros)
    return {
        "requests": pd.DataFrame(requests),
        "steps": pd.DataFrame(dict.fromkeys(STEP_COLUMNS, zeros)),
        "loads": pd.DataFrame({"start_s": zeros}),
    }


def test_a_killed_recorder_leaves_no_half_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "session.json").write_text(json.dumps({"schema_version": 1, "model": "m", "gpu": "g"}))
    write_run(tmp_path, "one", {"kind": "batch"}, table(3))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("profiling.record.files.write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        write_run(tmp_path, "two", {"kind": "batch"}, table(3))
    assert recorded(tmp_path) == ["one"] and len(read_records(tmp_path)) == 1
    monkeypatch.undo()
    write_run(tmp_path, "two", {"kind": "batch"}, table(2))
    assert recorded(tmp_path) == ["one", "two"]


def test_a_half_written_line_of_the_probe_is_left_out(tmp_path: Path) -> None:
    whole = json.dumps([1.0, 1.5, 0, 1, 0, 0, 1, 1, 0, 0, 0.0, 0])
    (tmp_path / "steps-7.jsonl").write_text(whole + "\n" + whole.replace("1.0", "9.0") + "\n[1.2, 1.")
    steps = lines_between(tmp_path, "steps", STEP_COLUMNS, 0.5, 2.0)
    assert steps["start_s"].tolist() == [0.5] and steps["end_s"].tolist() == [1.0]


def record(tmp_path: Path, *words: str) -> int:
    model = write_tiny_model(tmp_path / "m")
    return main(["record", f"model={model}", f"out={tmp_path / 'rec'}", "slots=[4]", "ranks=[8]", "adapters=2", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vllm=/nowhere/vllm"], "'/nowhere/vllm' cannot be started"),
        ([f"vllm={sys.executable}"], "the server ended with code"),
        (["url=http://127.0.0.1:1"], "no server answers at http://127.0.0.1:1"),
        (["minutes=0"], "minutes"),
    ],
)
def test_mistakes_are_explained(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(tmp_path, *words) == 2
    assert said in capsys.readouterr().err


def test_a_missing_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "model=/nowhere", f"out={tmp_path}"]) == 2
    assert "/nowhere" in capsys.readouterr().err


def test_a_used_port_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert record(tmp_path, f"port={port}") == 2
    assert f"port {port} is in use" in capsys.readouterr().err


def test_a_recording_of_another_model_is_not_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec" / "session.json").write_text(json.dumps({"schema_version": 1, "model": "other", "gpu": "gpu"}))
    assert record(tmp_path) == 2
    assert "is of model 'other'" in capsys.readouterr().err


def test_another_version_of_vllm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "refused.json").write_text(json.dumps({"version": "0.40.1"}))
    with pytest.raises(InputError, match=r"the server is vLLM 0\.40\.1"):
        engine_facts(tmp_path)


def test_a_server_without_the_probe_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=probe.FOLDER):
        engine_facts(tmp_path)


def test_vllm_finds_the_probe_by_its_entry_points(tmp_path: Path) -> None:
    from importlib.metadata import distributions

    (found,) = distributions(path=[str(plugin_folder(tmp_path))])
    groups = {e.group: e.value for e in found.entry_points}
    assert groups["vllm.general_plugins"] == "adapter_placement_probe:install"
    assert groups["vllm.stat_logger_plugins"] == "adapter_placement_probe:EngineFacts"
