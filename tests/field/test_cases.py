"""Situations of public bug reports and file formats, rebuilt as small inputs: what each one ends in.

Inputs of placements (`placed`) are solved by the quick solver without verification: the subject is what was read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from twin.__main__ import main as twin_main
from twin.errors import InputError
from twin.sources.access_log import read_access_log
from twin.sources.adapter_file import read_adapters
from twin.workload.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
TABLE = "adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens"
LOG = "timestamp,adapter_id,prompt_tokens,output_tokens"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def log(text: str, ranks: str = "a,8\nb,16\nbase-model,0\n", **options: Any) -> Workload:
    return read_access_log(write("log", text), write("ranks.csv", f"adapter_id,rank\n{ranks}"), **options)


def refused(text: str, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        log(text, **options)
    return caught.value


def placed(*overrides: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output and placement.json of the main command."""
    command = [sys.executable, "-m", "placement", "solver=greedy", "verify=none", "hydra.run.dir=out", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    file = Path("out/placement.json")
    return done.returncode, done.stdout + done.stderr, json.loads(file.read_text()) if file.exists() else {}


# --- Failed requests --------------------------------------------------------------------------------------------------


def test_requests_that_failed_are_no_one_token_requests() -> None:
    """A third of the rows are 429s with 0 tokens."""
    rows = [f"{i},a,500,400,200" if i % 3 else f"{i},a,0,0,429" for i in range(300)]
    workload = log("\n".join([f"{LOG},status", *rows]), duration_s=300)
    adapter = workload.adapters[0]
    assert adapter.rate_req_per_s == pytest.approx(200 / 300)
    assert (adapter.prompt_tokens.mean, adapter.output_tokens.mean) == (500, 400)
    assert workload.reading is not None
    assert workload.reading.left_out == {"failed": 100}
    assert "100 left out (100 failed), 200 planned for" in workload.reading.sentences()[0]


def test_rows_without_token_counts_are_left_out_and_counted() -> None:
    text = f"{LOG}\n1700000000,a,100,50\n1700000100,b,,\n1700000200,b,NULL,NULL\n"
    assert "2 left out (2 without token counts)" in refused(text).problem, "one request has no rate"
    workload = log(text, duration_s=3600)
    assert workload.reading is not None
    assert workload.reading.left_out == {"without token counts": 2}


# --- Spellings of numbers, times and tables ---------------------------------------------------------------------------


def test_a_byte_order_mark_and_trailing_commas() -> None:
    workload = log(f"\ufeff{LOG},\n1700000000,a,100,50,\n1700000100,b,100,50,\n")
    assert [a.adapter_id for a in workload.adapters] == ["a", "b"]


def test_semicolons_and_decimal_commas() -> None:
    workload = log(f"{LOG.replace(',', ';')}\n1700000000,25;a;100;50\n1700000002,75;a;100;50\n")
    assert workload.reading is not None
    assert workload.reading.span_s == 2.5


def test_thousands_separators() -> None:
    workload = log(f'{LOG}\n1700000000,a,"1,024",50\n1700000005,a,1024,50\n')
    assert workload.adapters[0].prompt_tokens.mean == 1024


def test_milliseconds_from_zero_are_doubted_and_can_be_said() -> None:
    text = f"{LOG}\n0,a,100,50\n60000,b,100,50\n120000,a,100,50\n"
    workload = log(text)
    assert workload.reading is not None
    assert any("say workload.time_unit=ms" in text for text in workload.reading.sentences())
    said = log(text, time_unit="ms")
    assert said.total_rate_req_per_s == pytest.approx(1000 * workload.total_rate_req_per_s)
    assert said.reading is not None
    assert said.reading.notes == ()


def test_what_a_spreadsheet_rounded_is_refused_with_the_reason() -> None:
    error = refused(f"{LOG}\n1.70E+09,a,100,50\n1.70E+09,b,100,50\n")
    assert "'1.70E+09' has lost its digits" in error.problem
    assert "line 2" in error.where


def test_days_of_a_spreadsheet_are_refused_with_the_reason() -> None:
    text = f"{LOG}\n45986.68935,a,100,50\n45986.68940,b,100,50\n45987.1,b,100,50\n"
    error = refused(text)
    assert "days of a spreadsheet" in error.problem
    assert "workload.time_unit=excel" in error.remedy
    workload = log(text, time_unit="excel")
    assert workload.reading is not None
    assert workload.reading.span_s == pytest.approx(86_400 * 0.41065)


def test_json_lines_with_openai_names() -> None:
    line = '{"timestamp":1700000000,"model":"a","prompt_tokens":100,"completion_tokens":50}\n'
    workload = log(line, duration_s=60)
    assert workload.adapters[0].output_tokens.mean == 50
    assert workload.reading is not None
    assert workload.reading.columns == {"adapter_id": "model", "output_tokens": "completion_tokens"}


# --- Adapters ---------------------------------------------------------------------------------------------------------


def test_all_registered_adapters_are_deployed_and_that_is_said() -> None:
    """Five are registered, two have traffic."""
    write("log.csv", LOG + "\n" + "".join(f"{2 * i},{'ab'[i % 2]},200,100\n" for i in range(400)))
    write("ranks.csv", "adapter_id,rank\na,8\nb,16\nc,16\nd,16\ne,32\n")
    code, output, document = placed("workload=access_log", "workload.path=log.csv", "workload.registry=ranks.csv")
    assert code == 0, output
    hosted = {a["adapter_id"] for gpu in document["gpus"] for a in gpu["adapters"]}
    assert hosted == {"a", "b", "c", "d", "e"}
    assert document["workload"]["reading"]["adapters_without_requests"] == ["c", "d", "e"]
    assert "3 adapters without requests (c, d, e): deployed all the same" in " ".join(output.split())
    assert "3 adapters without requests (c, d, e)" in Path("out/report.html").read_text()


@pytest.mark.parametrize(
    ("more", "rank"),
    [
        ({}, 8),
        ({"rank_pattern": {"q_proj": 32}, "alpha_pattern": {"q_proj": 64}}, 32),
        ({"rank_pattern": {"q_proj": 4}}, 8),
        ({"use_rslora": True, "target_modules": "all-linear"}, 8),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias 'all'"),
        ({"peft_type": "IA3"}, "type IA3"),
        ({"r": 0}, "r is 0"),
        ({"rank_pattern": {"q_proj": 1024}}, "rank_pattern of q_proj is 1024"),
        ({"target_modules": None}, "target_modules"),
    ],
)
def test_ranks_come_from_the_adapters_themselves(more: dict[str, Any], rank: int | str) -> None:
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    for name, extra in (("acme/a", more), ("b", {})):
        folder = Path("adapters", name)
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps({**config, **extra}))
    write("log.csv", f"{LOG}\n0,acme/a,10,10\n9,b,10,10\n")
    if isinstance(rank, int):
        workload = read_access_log("log.csv", "adapters")
        assert {a.adapter_id: a.rank for a in workload.adapters} == {"acme/a": rank, "b": 8}
        assert any("rank_pattern" in note for note in workload.notes) == bool("rank_pattern" in more)
        named = read_access_log("log.csv", ["adapters/acme/a", "adapters/b"], cold="leave_out", columns=None,
                                base_names=["acme/a"])  # fmt: skip
        assert {a.adapter_id: a.rank for a in named.adapters} == {"acme/a": 0, "b": 8}
        write("rates.csv", "adapter_id,rate_req_per_s,prompt_tokens,output_tokens\nacme/a,1,10,10\nb,1,10,10\n")
        assert [a.rank for a in read_adapters("rates.csv", registry="adapters").adapters] == [rank, 8]
    else:
        with pytest.raises(InputError, match=re.escape(rank)) as caught:
            read_access_log("log.csv", "adapters")
        assert "'acme/a'" in caught.value.problem


def test_an_adapter_of_another_model_is_refused_by_name() -> None:
    bases = {"a": "meta-llama/Llama-3.1-8B-Instruct", "b": "/models/Llama-3.1-8B-Instruct", "c": "Qwen/Qwen2.5-7B"}
    for name, base in bases.items():
        Path(name).mkdir()
        config = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "base_model_name_or_path": base}
        Path(name, "adapter_config.json").write_text(json.dumps(config))
    write("log.csv", f"{LOG}\n0,a,10,10\n9,b,10,10\n")
    assert len(read_access_log("log.csv", ["a", "b"], base="unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit").adapters) == 2
    for served in (None, bases["a"]):
        with pytest.raises(InputError, match=r"'c' was trained on 'Qwen/Qwen2\.5-7B'"):
            read_access_log("log.csv", ["a", "b", "c"], base=served)
    code, output, _ = placed("workload=access_log", "workload.path=log.csv", "workload.registry=[a,c]")
    assert code == 2, output
    assert "'c' was trained on" in output


def test_ranks_between_and_beyond_the_usual_slots_are_placed() -> None:
    write("rank256.csv", f"{TABLE}\nbig,256,0.5,400,150\nsmall,4,0.8,900,60\nodd,12,0.8,900,60\n")
    code, output, document = placed("workload=file", "workload.path=rank256.csv")
    assert code == 0, output
    for gpu in document["gpus"]:
        assert gpu["setting"]["max_lora_rank"] in (8, 16, 32, 64, 256)
        assert gpu["setting"]["max_lora_rank"] >= max(a["rank"] for a in gpu["adapters"])
    assert "max_lora_rank 256 is a choice too" in output
    for rank in (12, 48):
        code, output, _ = placed("workload=file", "workload.path=rank256.csv", f"engine.max_lora_rank=[8,{rank}]")
        assert code == 2, output
        assert f"max_lora_rank {rank} is no value that vLLM takes" in output


# --- Names are text ---------------------------------------------------------------------------------------------------

NAMES = ("team[/prod]", "support[v2]", "acme/sql@v2", "<b>bold</b>", "with blanks", "[bold]a[/bold]", "50%", "a&b")


def test_names_are_text_in_the_twin(capsys: pytest.CaptureFixture[str]) -> None:
    """Two slots for eight adapters: the late ones are named in the table and in the verdict."""
    write("ids.csv", TABLE + "\n" + "".join(f"{name},8,2,400,300\n" for name in NAMES))
    options = ["workload=file", "workload.path=ids.csv", "engine.max_loras=1", "engine.max_lora_rank=8"]
    assert twin_main([*options, "horizon_s=600", "hydra.run.dir=out"]) == 0
    output = capsys.readouterr().out
    late = json.loads(Path("out/metrics.json").read_text())["late"]["starving"]
    assert late, "an overloaded server names its late adapters"
    for entry in late[:4]:
        assert f"{entry['adapter_id']} {entry['late']} of" in " ".join(output.split())


def test_names_are_text_in_a_placement() -> None:
    write("ids.csv", TABLE + "\n" + "".join(f"{name},8,0.2,400,300\n" for name in NAMES))
    code, output, document = placed("workload=file", "workload.path=ids.csv")
    assert code == 0, output
    assert {a["adapter_id"] for gpu in document["gpus"] for a in gpu["adapters"]} == set(NAMES)
    html = Path("out/report.html").read_text()
    assert "<b>bold</b>" not in html
    assert r"\u003cb>bold\u003c/b>" in html or "&lt;b&gt;bold&lt;/b&gt;" in html


def test_a_wrong_rate_beside_a_name_with_markup_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write("brackets.csv", f"{TABLE}\n[bold]a[/bold],8,x,200,100\n")
    assert twin_main(["workload=file", "workload.path=brackets.csv"]) == 2
    assert "rate_req_per_s 'x' is not a number" in capsys.readouterr().err


# --- Overrides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adapters (1).csv", "run=3.csv", "~/x", "a,b.csv"])
def test_the_error_shows_how_to_quote_a_file_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert twin_main(["workload=file", f"workload.path={name}"]) == 2
    error = capsys.readouterr().err
    quoted = f'workload.path="{name}"'
    assert f"'{quoted}'" in error
    assert twin_main(["workload=file", quoted]) == 2
    assert "does not exist" in capsys.readouterr().err, "so written, it is a path"


def test_near_names_are_those_of_the_option_that_was_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert twin_main(["workload=file", "workload.pth=x.csv"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'path'?" in error
    assert "rates_path" in error
    assert twin_main(["workload=file", "path=x.csv"]) == 2
    assert "did you mean 'workload.path'?" in capsys.readouterr().err


# --- Finite loads -----------------------------------------------------------------------------------------------------


def test_a_result_of_a_benchmark_is_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    write("one.csv", f"{TABLE}\na,8,1,100,50\n")
    result = {"input_lens": [100] * 40, "output_lens": [50] * 40, "ttfts": [0.1] * 40, "errors": [""] * 40}
    write("result.json", json.dumps({**result, "start_times": [i / 8 for i in range(40)]}))
    options = ["workload=file", "workload.path=one.csv", "engine.max_lora_rank=8", "trace=result.json"]
    assert twin_main([*options, "hydra.run.dir=open"]) == 0
    assert "(vLLM bench serve)" in capsys.readouterr().out
    opened = json.loads(Path("open/metrics.json").read_text())
    assert opened["runs"][0]["arrivals"] == 40
    assert opened["horizon_s"] > 39 / 8
    assert opened["metrics"]["served_fraction"] == pytest.approx(1)
    assert twin_main([*options, "concurrency=4", "hydra.run.dir=closed"]) == 0
    closed = json.loads(Path("closed/metrics.json").read_text())
    assert closed["metrics"]["running"] + closed["metrics"]["waiting"] == pytest.approx(4, rel=0.1)
    assert "a finite load" in " ".join(closed["warnings"])
    assert twin_main([*options, "requests=41"]) == 2
    assert twin_main(["workload=file", "workload.path=one.csv", "concurrency=4"]) == 2
    assert "say how many" in capsys.readouterr().err
