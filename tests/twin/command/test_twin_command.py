"""`python -m twin`: what it accepts, prints and writes, and its exit codes."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from twin.__main__ import HIDDEN, main
from twin.command.options import load_command
from twin.errors import InputError
from twin.server.calibration import load_calibration
from twin.server.column import Column
from twin.server.settings import EngineSetting
from twin.simulation import simulate
from twin.sources.adapter_file import read_adapters

ROOT = Path(__file__).resolve().parents[3]
HEADER = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens"
#: A window in which every test below shows what it is about, half an hour so that no note about its length appears.
SHORT = ["horizon_s=1800", "hydra.run.dir=out"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Twelve adapters, 1.5 requests/s, and some requests to the base model."""
    rows = [f"a{i},{(8, 16)[i % 2]},{(0.05, 0.2)[i % 2]},200,100" for i in range(12)]
    (tmp_path / "adapters.csv").write_text("\n".join([HEADER, *rows, "base,0,0.3,200,100"]) + "\n")
    return ["workload=file", "workload.path=adapters.csv", "engine.max_lora_rank=16", *SHORT]


def document(folder: str = "out") -> dict[str, Any]:
    data = json.loads(Path(folder, "metrics.json").read_text())
    assert isinstance(data, dict)
    return data


def test_figures_are_those_of_the_twin(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*small, "engine.max_loras=8", "seed=3"]) == 0
    data = document()
    calibration = load_calibration("llama-3.1-8b-h100-64gb")
    column = Column(read_adapters("adapters.csv").adapters, EngineSetting("h100-64gb", 8, 16))
    expected = simulate(column, calibration, horizon_s=1800, seed=3)
    assert data["metrics"] == pytest.approx(expected.row, nan_ok=True)
    assert data["runs"][0]["arrivals"] == expected.arrivals
    assert data["queue"] == "STABLE"
    assert data["warnings"] == []
    out = capsys.readouterr().out
    for text in ("8 slots of rank 16", "12 + base model", "constraint=stable: healthy", "limit", "metrics.json"):
        assert text in out


def test_the_real_command_runs_and_says_what_is_wrong(small: list[str]) -> None:
    """Once as users start it: through the interpreter, with exit code, table on stdout and errors on stderr."""
    command = [sys.executable, "-m", "twin"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    good = subprocess.run([*command, *small], env=environment, capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    assert "constraint=stable" in good.stdout
    bad = subprocess.run([*command, "engine.max_lora=3"], env=environment, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "did you mean 'max_loras'" in bad.stderr


def test_the_same_command_writes_the_same_bytes(small: list[str]) -> None:
    for folder, threads in (("one", 1), ("two", 2)):
        files = ["adapters_csv=true", "plot=true", "chrome_trace=true"]
        assert main([*small, "seeds=3", f"hydra.run.dir={folder}", f"threads={threads}", *files]) == 0
    for name in ("adapters.csv", "timeseries.csv", "timeseries.png", "trace.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name
    one, two = document("one"), document("two")
    # The number of threads is part of the configuration, and changes nothing else.
    assert one["provenance"].pop("config_hash") != two["provenance"].pop("config_hash")
    assert one == two


def test_several_seeds_give_means_and_intervals(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*small, "seeds=[5,7,9]"]) == 0
    data = document()
    values = [run["metrics"]["e2e_mean_s"] for run in data["runs"]]
    assert data["seeds"] == [5, 7, 9]
    assert len(set(values)) == 3
    assert data["metrics"]["e2e_mean_s"] == pytest.approx(sum(values) / 3)
    low, high = data["intervals"]["e2e_mean_s"]
    assert low < data["metrics"]["e2e_mean_s"] < high
    assert "±" in capsys.readouterr().out
    assert main([*small, "seeds=2", "seed=4"]) == 0
    assert document()["seeds"] == [4, 5]


def test_json_prints_the_file_and_nothing_else(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*small, "json=true"]) == 0
    assert capsys.readouterr().out == Path("out/metrics.json").read_text()


def test_adapters_csv_has_every_adapter_and_every_request(small: list[str]) -> None:
    assert main([*small, "adapters_csv=true"]) == 0
    with Path("out/adapters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["adapter_id"] for r in rows] == [*(f"a{i}" for i in range(12)), "base"]
    assert sum(int(r["requests"]) for r in rows) == document()["runs"][0]["arrivals"]


def test_plot_is_an_image_with_its_numbers_beside_it(small: list[str]) -> None:
    assert main([*small, "plot=true"]) == 0
    assert Path("out/timeseries.png").read_bytes().startswith(b"\x89PNG\r\n")
    with Path("out/timeseries.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    running = sum(float(r["running"]) for r in rows) / len(rows)
    # The last step reaches beyond the window.
    assert running == pytest.approx(document()["metrics"]["running"], rel=1e-4)


def test_overheads_are_all_of_the_time_and_curves_beside_it(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*small, "overheads=true"]) == 0
    assert "A step and the window: base model" in capsys.readouterr().out
    row = document()["overheads"]
    assert sum(value for name, value in row.items() if name.endswith("_share")) == pytest.approx(1.0, abs=1e-9)
    assert row["base_model_ms"] > row["distinct_adapters_ms"] > 0
    assert Path("out/overheads.png").read_bytes().startswith(b"\x89PNG\r\n")
    with Path("out/overheads.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["curve"] for r in rows} == {"adapters", "max_loras", "max_lora_rank"}
    slots = [r for r in rows if r["curve"] == "max_loras"]
    lost = [float(r["kv_tokens_lost"]) for r in slots]
    assert lost == sorted(lost) and lost[-1] > lost[0] >= 0
    per_slot = [float(r["slots_ms"]) for r in slots]
    assert per_slot == sorted(per_slot)
    ranks = [float(r["rank_ms"]) for r in rows if r["curve"] == "max_lora_rank"]
    assert ranks == sorted(ranks)


def test_plot_without_matplotlib_names_an_extra_that_exists(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*small, "plot=true"]) == 2
    extra = re.search(r"pip install 'adapter-placement\[(\w+)\]'", capsys.readouterr().err)
    assert extra is not None
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(name.startswith("matplotlib") for name in extras[extra[1]])
    assert not Path("out/metrics.json").exists()


def test_require_healthy_asks_the_rule_of_the_constraint(small: list[str]) -> None:
    crowded = [*small, "engine.max_loras=1", "require_healthy=true", "constraint.slo.ttft_p99_s=0.2"]
    assert main(crowded) == 4
    assert document()["verdicts"]["stable"]["healthy"] is False
    assert main([*crowded, "constraint=published"]) == 0
    assert document()["rule"] == "published"
    assert main([o for o in crowded if not o.startswith("require")]) == 0


def test_a_late_adapter_is_named(small: list[str]) -> None:
    assert main([*small, "engine.max_loras=1", "constraint.slo.ttft_p99_s=0.2"]) == 0
    late = document()["late"]
    assert late["starving"]
    assert {a["adapter_id"] for a in late["starving"]} <= {f"a{i}" for i in range(12)}
    assert sum(a["late"] for a in late["starving"]) <= late["requests"] <= late["judged_requests"]


def test_settings_outside_the_calibration_are_mentioned(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*small, "engine.max_loras=4", "engine.max_lora_rank=64", "horizon_s=600"]) == 0
    warnings = "\n".join(document()["warnings"])
    assert "max_loras 4 is outside" in warnings
    assert "max_lora_rank 64 is outside" in warnings
    assert "biased" in warnings
    assert "note: max_loras 4" in capsys.readouterr().out


def test_disk_loads_without_a_load_time_are_mentioned(small: list[str]) -> None:
    assert main([*small, "engine.max_loras=2", "engine.max_cpu_loras=4"]) == 0
    data = document()
    assert data["runs"][0]["disk_loads"] > 0
    free = load_calibration("llama-3.1-8b-h100-64gb").load.disk_ms(16) == 0
    assert any("from disk" in w for w in data["warnings"]) == free


def test_sweep_has_a_row_a_job_and_the_worst_exit_code(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rest = [o for o in small if not o.startswith(("hydra", "engine", "workload.path"))]
    jobs = ["-m", "engine.max_lora_rank=16", "engine.max_loras=4,8,9000", "hydra.sweep.dir=sweep"]
    assert main([*rest, f"workload.path={Path('adapters.csv').resolve()}", *jobs]) == 2
    captured = capsys.readouterr()
    assert len(list(Path("sweep").glob("*/metrics.json"))) == 2
    for text in ("engine.max_loras=4", "engine.max_loras=8", "engine.max_loras=9000", "wrote"):
        assert text in captured.out
    assert "engine.max_loras = 9000 is out of range" in captured.err
    assert "KV cache" not in captured.out


def test_an_option_of_ones_own_folder(small: list[str]) -> None:
    folder = Path("my_conf/engine")
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("max_loras: 2\nmax_lora_rank: 16\n")
    rest = [o for o in small if not o.startswith("engine")]
    assert main(["--config-dir", "my_conf", "engine=tiny", *rest]) == 0
    assert document()["server"]["setting"]["max_loras"] == 2


#: Mistakes that Hydra or the command line sees.
BAD: dict[str, tuple[list[str], str]] = {
    "typo in a group": (["enigne=grid"], "did you mean 'engine'"),
    "unknown option": (["engine=huge"], "server"),
    "option of another command": (["solver=milp"], "valid: adapters"),
    "unknown key in a group": (["engine.max_lora=3"], "did you mean 'max_loras'"),
    "added unknown key": (["+foo=1"], "unknown option 'foo'"),
    "broken override": (["seed=[1"], "'seed=[1'"),
    "grid": (["engine=grid"], "-m engine.max_loras=8,16"),
    "slots beyond memory": (["engine.max_loras=4000"], "KV cache"),
    "rank below an adapter's": (["engine.max_lora_rank=8"], "rank 16"),
    "too many adapters": (["adapters=13"], "12 adapters"),
    "unknown adapter": (["adapters=[a1,a99]"], "'a99'"),
    "adapters as text": (["adapters=all"], "adapters.take = 'all' is not a number"),
    "plot of a month": (["horizon_s=2592000", "plot=true"], "leave plot=true out"),
    "calibration of another model": (["calibration=qwen2.5-7b-h100-64gb"], "qwen-2.5-7b-instruct"),
    "missing workload": (["workload.path=nowhere.csv"], "nowhere.csv"),
    "missing placement": (["placement=nowhere.json"], "nowhere.json"),
    "missing folder": (["--config-dir", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_screen_and_exit_code_2(
    case: str, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD[case]
    replaced = {a.partition("=")[0] for a in arguments}
    assert main([*arguments, *(o for o in small if o.partition("=")[0] not in replaced)]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert "remedy" in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert len(captured.err.splitlines()) <= 40
    assert not list(Path().glob("**/metrics.json"))


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The composed default configuration."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("twin"), resolve=True)
    assert isinstance(config, dict)
    return {str(k): v for k, v in config.items()}


#: Option, value, and what the error says: mistakes that the command sees in a composed configuration.
BAD_VALUES: list[tuple[str, Any, str]] = [
    ("engine.max_loras", [8, 16], "simulates one server"),
    ("engine.max_loras", "many", "a whole number"),
    ("engine.servers_per_gpu", 2, "the GPU to itself"),
    ("engine.max_cpu_loras", 4, "max_cpu_loras 4"),
    ("engine.version", "9.9.9", "9.9.9"),
    ("seed", -1, "at least 0"),
    ("seeds", 0, "at least 1 and at most 1000 simulations"),
    ("seeds", [], "empty"),
    ("seeds", [-1], "out of range"),
    ("threads", 0, "at least 1"),
    ("horizon_s", 0, "above 0"),
    ("horizon_s", math.inf, "out of range"),
    ("horizon_s", math.nan, "out of range"),
    ("rate_scale", -1, "above 0"),
    ("adapters", 3, "not a group"),
    ("adapters.take", 2.5, "neither a whole number nor a share"),
    ("adapters.take", 0, "above 0"),
    ("adapters.by", "best", "busiest"),
    ("adapters", {"take": 2, "ids": ["a1"]}, "both given"),
    ("trace_from_s", 3600, "within the simulated window"),
    ("trace_for_s", 0, "above 0"),
    ("constraint.late_share", 0.5, "leave it out"),
    ("constraint.slo.ttft_p99_s", -1, "above 0 seconds"),
    ("constraint._target_", "os.system", "not a component that belongs here"),
    ("constraint", {"_target_": "twin.workload.adapter.Slo"}, "not a component that belongs here"),
    ("workload._target_", "twin.files.write_text", "not a component that belongs here"),
    ("router", "best", "least_loaded"),
    ("router", "least_loaded", "placement=placement.json"),
    ("failures", [{"gpu": 0, "at_s": 1}], "placement=placement.json"),
    ("failures", [{"gpu": 0, "at": 1}], "did you mean 'at_s'"),
    ("json", "yes please", "true or false"),
]


@pytest.mark.parametrize(("option", "value", "expected"), BAD_VALUES)
def test_bad_values_are_refused_with_a_remedy(option: str, value: Any, expected: str, defaults: dict[str, Any]) -> None:
    config = copy.deepcopy(defaults) | {"chrome_trace": True}
    *way, last = option.split(".")
    node = config
    for key in way:
        node = node[key]
    node[last] = value
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        load_command(config)
    assert caught.value.remedy


def test_interrupt_is_130_and_a_bug_is_not_hidden(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(error: type[BaseException]) -> Any:
        def broken(*_: object, **__: object) -> None:
            raise error

        return broken

    monkeypatch.setattr("twin.simulation.simulate", fails(KeyboardInterrupt))
    assert main(small) == 130
    monkeypatch.setattr("twin.simulation.simulate", fails(ZeroDivisionError))
    assert main(small) == 1
    assert "internal error" in capsys.readouterr().err


def test_help_names_every_key_and_only_groups_that_the_command_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    primary = yaml.safe_load((ROOT / "conf" / "twin.yaml").read_text())
    groups = {next(iter(d)).removeprefix("optional ") for d in primary["defaults"] if isinstance(d, dict)}
    shown = {line.partition(":")[0] for line in text.splitlines() if re.match(r"[a-z]+: \S", line)}
    assert shown == groups
    folders = {p.name for p in (ROOT / "conf").iterdir() if p.is_dir() and not p.name.startswith("_")}
    assert folders == groups | set(HIDDEN)
    # `trace_from_s` and the like are in the example of the documentation.
    for key in set(primary) - {"defaults", "hydra", "debug", "allow_modules", "trace_from_s", "trace_for_s"}:
        assert key in text, key


def test_documented_commands_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tagged blocks of docs/twin_command.md and the commands of its recipes, on a quarter of an hour."""
    page = (ROOT / "docs" / "twin_command.md").read_text()
    (tmp_path / "adapters.csv").write_text(f"{HEADER}\na,64,0.5,200,100\n")
    (tmp_path / "log.csv").write_text("timestamp,model,prompt_tokens,completion_tokens\n0,a,200,100\n1,a,200,100\n")
    blocks = re.findall(r"^```bash test\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    recipes = [line.split("`")[1] for line in page.splitlines() if line.startswith("| ") and "`python -m twin" in line]
    commands = [line for block in blocks for line in block.splitlines()] + recipes
    assert len(commands) >= 15
    for command in commands:
        words = shlex.split(command)
        assert words[:2] == ["python", "-m"]
        if words[2] == "placement":
            from placement.__main__ import main as place

            assert place(words[3:]) == 0, command
        else:
            expected = 4 if "require_healthy=true" in words else 0
            assert main([*words[3:], "horizon_s=900"]) == expected, command
    assert "Limited by" in capsys.readouterr().out


def test_promises_are_judged_and_shown(small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*small, "adapters_csv=true", "constraint.slo.tpot_mean_ms=5", "require_healthy=true"]) == 4
    out = capsys.readouterr().out
    assert "promises" in out and "mean TPOT to 13 adapters: at most" in out and "13 beyond" in out
    assert "constraint=stable: NOT healthy: 13 adapters break promises" in out
    (path,) = tmp_path.glob("**/metrics.json")
    entry = json.loads(path.read_text())["promises"]["tpot_mean_ms"]
    assert entry["worst"]["promised"] == 5.0 and entry["worst"]["use"] == entry["worst"]["simulated"] / 5.0 > 1
    rows = list(csv.DictReader(io.StringIO((path.parent / "adapters.csv").read_text())))
    assert {(row["slo_ttft_p99_s"], row["slo_tpot_mean_ms"], row["slo_e2e_mean_s"]) for row in rows} == {
        ("5.0", "5.0", "")
    }


def test_names_are_text_whatever_brackets_they_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An overloaded server names the adapters that starve."""
    names = ("support[v2]", "team[/prod]", "[bold]a[/bold]", "<b>x</b>")
    table = tmp_path / "hot.csv"
    header = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens"
    table.write_text("\n".join([header, *(f"{name},8,40,400,200" for name in names)]) + "\n")
    arguments = [f"workload.path={table}", "engine.max_loras=8", "horizon_s=300", f"hydra.run.dir={tmp_path}/out"]
    assert main(["workload=file", *arguments]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in names)
