"""Files as others write them: each known format gives its requests, without those that were not served."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from twin.errors import InputError
from twin.sources.access_log import read_access_log, read_recording
from twin.sources.registry import as_form
from twin.sources.requests import RequestTable, read_requests
from twin.sources.tables.layout import Form
from twin.sources.traces.servegen import read_servegen
from twin.sources.traces.trace import read_trace

T0 = 1_780_000_000
#: Time after the start, prompt and output tokens of the requests that every file below holds.
SERVED = [(0.0, 100, 50), (1.5, 200, 10), (4.25, 300, 7)]


def rows(table: RequestTable) -> list[tuple[float, int, int]]:
    log = table.log
    order = log.time_s.argsort()
    since = log.time_s[order] - log.time_s.min()
    return [
        (round(float(t), 6), int(p), int(o))
        for t, p, o in zip(since, log.prompt_tokens[order], log.output_tokens[order], strict=True)
    ]


LITELLM = """id,call_type,spend,total_tokens,prompt_tokens,completion_tokens,startTime,endTime,model,cache_hit,status
r1,acompletion,0.1,150,100,50,2026-11-20 10:00:00.000000,2026-11-20 10:00:03,hosted_vllm/a,False,success
r2,acompletion,0.1,0,0,0,2026-11-20 10:00:01.000000,2026-11-20 10:00:03,hosted_vllm/a,False,failure
r3,acompletion,0.1,210,200,10,2026-11-20 10:00:01.500000,2026-11-20 10:00:03,hosted_vllm/b,,success
r4,acompletion,0.0,210,200,10,2026-11-20 10:00:02.000000,2026-11-20 10:00:02,hosted_vllm/b,True,success
r5,acompletion,0.1,307,300,7,2026-11-20 10:00:04.250000,2026-11-20 10:00:05,hosted_vllm/a,False,success
"""
AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 18:15:46.0000000,100,50\r
2023-11-16 18:15:47.5000000,200,10\r
2023-11-16 18:15:50.2500000,300,7"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,100,50
2024-05-10 00:00:01.509930+00:00,200,10
2024-05-10 00:00:04.259930+00:00,300,7
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,100,50,150,Conversation log
6,GPT-4,90,0,90,API log
6.5,GPT-4,200,10,210,API log
9.25,ChatGPT,300,7,307,Conversation log
"""
MOONCAKE = "".join(
    json.dumps({"timestamp": int(1000 * t), "input_length": p, "output_length": o, "hash_ids": [1, 2]}) + "\n"
    for t, p, o in SERVED
)
BENCH = json.dumps(
    {
        "date": "20261120-100000", "backend": "vllm", "model_id": "m", "completed": 3, "duration": 9.0,
        "input_lens": [100, 90, 200, 300], "output_lens": [50, 0, 10, 7], "ttfts": [0.1, 0.0, 0.1, 0.1],
        "itls": [[0.02], [], [0.02], [0.02]], "errors": ["", "Traceback", "", ""],
        "start_times": [71.0, 71.5, 72.5, 75.25],
    }
)  # fmt: skip


def aiperf() -> str:
    lines = []
    for (t, p, o), more in zip(
        [*SERVED, (2.0, 10, 10), (3.0, 10, 10), (3.5, 0, 0)],
        [{}, {}, {}, {"benchmark_phase": "warmup"}, {"was_cancelled": True}, {"error": {"code": 500}}],
        strict=True,
    ):
        metrics: dict[str, Any] = {"input_sequence_length": {"value": p, "unit": "tokens"}}
        metrics["output_sequence_length"] = {"value": o, "unit": "tokens"}
        times = {"request_start_ns": int(T0 * 1e9 + t * 1e9), "benchmark_phase": "profiling", "was_cancelled": False}
        error = more.get("error")
        metadata = {**times, **{k: v for k, v in more.items() if k != "error"}}
        lines.append(json.dumps({"metadata": metadata, "metrics": {} if error else metrics, "error": error}))
    return "\n".join(lines)


def guidellm() -> str:
    def request(t: float, p: int, o: int) -> dict[str, Any]:
        return {"request_id": "x", "request_start_time": T0 + t, "prompt_tokens": p, "output_tokens": o, "output": "hi"}

    requests = {
        "successful": [request(*row) for row in SERVED], "errored": [request(2.0, 10, 0)],
        "incomplete": [request(2.5, 10, 3)],
    }  # fmt: skip
    return json.dumps({"metadata": {"version": 1}, "benchmarks": [{"id": "b", "requests": requests}]}, indent=2)


def inference_perf() -> str:
    records: list[dict[str, Any]] = [
        {
            "start_time": 10 + t, "end_time": 12 + t, "request_data": "{}", "error": None,
            "info": {"lora_adapter": "ab"[i % 2], "input_tokens": p, "response_metrics": {"output_tokens": o}},
        }
        for i, (t, p, o) in enumerate(SERVED)
    ]  # fmt: skip
    failed = {**records[0], "info": {"lora_adapter": "a", "input_tokens": 5}, "error": {"error_type": "Timeout"}}
    return json.dumps([*records, failed], indent=1)


def openai_lines() -> str:
    return "\n".join(
        json.dumps(
            {
                "id": f"r{i}", "object": "chat.completion", "created": T0 + t, "model": "ab"[i % 2],
                "usage": {
                    "prompt_tokens": p, "completion_tokens": o, "total_tokens": p + o,
                    "prompt_tokens_details": {"cached_tokens": 5},
                },
            }
        )
        for i, (t, p, o) in enumerate(SERVED)
    )  # fmt: skip


def openai_batch() -> str:
    return "\n".join(
        json.dumps({"id": i, "response": {"status_code": code, "body": {
            "created": T0 + t, "model": "a", "usage": {"prompt_tokens": p, "completion_tokens": o},
        }}, "error": None})
        for i, ((t, p, o), code) in enumerate(zip([*SERVED, (2.0, 9, 9)], [200, 200, 200, 429], strict=True))
    )  # fmt: skip


FORMATS = {
    "LiteLLM spend log": (LITELLM, {"failed": 1, "answered from a cache": 1}),
    "Azure LLM inference trace": (AZURE_2023, {}),
    "Azure LLM inference trace 2024": (AZURE_2024, {}),
    "BurstGPT": (BURSTGPT, {"without output tokens": 1}),
    "Mooncake trace": (MOONCAKE, {}),
    "vLLM bench serve": (BENCH, {"failed": 1}),
    "AIPerf records": (aiperf(), {"of the warm-up": 1, "cancelled": 1, "failed": 1}),
    "GuideLLM report": (guidellm(), {"failed": 2}),
    "inference-perf records": (inference_perf(), {"failed": 1}),
    "": (openai_lines(), {}),
    " batch": (openai_batch(), {"failed": 1}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_known_format_is_recognised_and_its_requests_are_read(name: str, tmp_path: Path) -> None:
    text, left_out = FORMATS[name]
    file = tmp_path / "log"
    file.write_text(text, newline="")
    table = read_requests(file, Form())
    assert name.startswith(table.reading.format)
    assert rows(table) == SERVED
    assert dict(table.reading.left_out) == left_out
    assert table.reading.requests_read == len(SERVED) + sum(left_out.values())


def test_cached_tokens_of_openai_lines_count(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(openai_lines())
    assert read_requests(tmp_path / "log", Form()).log.cached_tokens.tolist() == [5, 5, 5]


def test_a_bench_result_without_times_says_so(tmp_path: Path) -> None:
    document = {k: v for k, v in json.loads(BENCH).items() if k != "start_times"}
    (tmp_path / "result.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="no start_times"):
        read_requests(tmp_path / "result.json", Form())
    (tmp_path / "result.json").write_text(json.dumps({"completed": 3, "duration": 9.0}, indent=1))
    with pytest.raises(InputError, match="without a list of requests") as caught:
        read_requests(tmp_path / "result.json", Form())
    assert "--save-detailed" in caught.value.remedy


def registry(tmp_path: Path, ids: str = "ab") -> Path:
    file = tmp_path / "ranks.csv"
    file.write_text("adapter_id,rank\n" + "".join(f"{i},8\n" for i in ids))
    return file


def test_a_provider_before_a_name_is_stripped_where_the_registry_knows_the_rest(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LITELLM)
    workload = read_access_log(tmp_path / "log.csv", registry(tmp_path))
    assert [a.adapter_id for a in workload.adapters] == ["a", "b"]
    (tmp_path / "plain.csv").write_text("timestamp,model,prompt_tokens,output_tokens\n0,x/a,1,1\n9,b,1,1\n")
    with pytest.raises(InputError, match="'x/a' is not in the registry"):
        read_access_log(tmp_path / "plain.csv", registry(tmp_path))


def test_columns_can_be_named_and_left_out(tmp_path: Path) -> None:
    text = "when;who;in;out;status\n" + "".join(f"{t};a;{p};{o};odd\n" for t, p, o in SERVED)
    (tmp_path / "log.csv").write_text(text)
    columns = {"timestamp": "when", "adapter_id": "who", "prompt_tokens": "in", "output_tokens": "out"}
    with pytest.raises(InputError, match="status 'odd' does not say") as caught:
        read_access_log(tmp_path / "log.csv", registry(tmp_path), columns=columns)
    assert "columns={status: null}" in caught.value.remedy
    workload = read_access_log(tmp_path / "log.csv", registry(tmp_path), columns={**columns, "status": None})
    assert workload.reading is not None
    assert workload.reading.columns == {
        "timestamp": "when",
        "adapter_id": "who",
        "prompt_tokens": "in",
        "output_tokens": "out",
    }
    with pytest.raises(InputError, match=r"'tokens' is missing; the file has 'when'"):
        read_access_log(tmp_path / "log.csv", registry(tmp_path), columns={**columns, "output_tokens": "tokens"})
    with pytest.raises(InputError, match=r"names 'adapter', which is no column .*did you mean 'adapter_id'"):
        read_access_log(tmp_path / "log.csv", registry(tmp_path), columns={"adapter": "who"})
    with pytest.raises(InputError, match="not a mapping"):
        as_form("when", None)


def test_rotated_files_are_one_log_and_a_pattern_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "timestamp,adapter_id,prompt_tokens,output_tokens\n"
    for i, (t, p, o) in enumerate(SERVED):
        (tmp_path / f"log.{i + 8}.csv").write_text(f"{header}{T0 + t},{'ab'[i % 2]},{p},{o}\n")
    whole = rows(read_requests(str(tmp_path / "log.*.csv"), Form()))
    assert whole == SERVED
    assert rows(read_requests([tmp_path / f"log.{i}.csv" for i in (10, 8, 9)], Form())) == SERVED
    text = header + "".join(f"{T0 + t},a,{p},{o}\n" for t, p, o in SERVED)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    table = read_requests("-", Form())
    assert rows(table) == SERVED
    assert table.reading.source == "standard input"
    with pytest.raises(InputError, match="no access log matches"):
        read_requests(str(tmp_path / "none-*.csv"), Form())
    (tmp_path / "a[1].csv").write_text(text)
    assert rows(read_requests(tmp_path / "a[1].csv", Form())) == SERVED, "a file of that name is no pattern"


def test_an_error_in_a_rotated_file_names_that_file(tmp_path: Path) -> None:
    header = "timestamp,adapter_id,prompt_tokens,output_tokens\n"
    (tmp_path / "a.csv").write_text(f"{header}0,a,1,1\n1,a,1,1\n")
    (tmp_path / "b.csv").write_text(f"{header}2,a,1,1\n3,a,x,1\n")
    with pytest.raises(InputError, match="'x' is not a number") as caught:
        read_requests(str(tmp_path / "*.csv"), Form())
    assert caught.value.where == f"{tmp_path / 'b.csv'}, line 3, column 'prompt_tokens'"


def test_parquet_and_zstd(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    times = [1_000_000 * T0 + int(1e6 * t) for t, _, _ in SERVED]
    for kind in (pyarrow.timestamp("us", tz="Europe/Berlin"), pyarrow.timestamp("ms"), pyarrow.int64()):
        stamp = pyarrow.array(times, pyarrow.timestamp("us", tz="UTC") if kind != pyarrow.int64() else kind)
        table = pyarrow.table({
            "time": stamp if kind == pyarrow.int64() else stamp.cast(kind), "model": ["a", "b", "a"],
            "prompt_tokens": [p for _, p, _ in SERVED], "output_tokens": [float(o) for _, _, o in SERVED],
        })  # fmt: skip
        parquet.write_table(table, tmp_path / "log.parquet")
        found = read_requests(tmp_path / "log.parquet", Form())
        assert rows(found) == SERVED
        assert found.names == ("a", "b")
    packed = pyarrow.compress(AZURE_2023.encode(), codec="zstd", asbytes=True)
    (tmp_path / "log.csv.zst").write_bytes(packed)
    assert rows(read_requests(tmp_path / "log.csv.zst", Form())) == SERVED
    broken = (tmp_path / "log.parquet").read_bytes()[:-20]
    (tmp_path / "log.parquet").write_bytes(broken)
    with pytest.raises(InputError, match="not a whole Parquet file"):
        read_requests(tmp_path / "log.parquet", Form())


def test_a_log_without_adapters_belongs_to_the_one_that_is_named_or_is_dealt(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(AZURE_2024)
    with pytest.raises(InputError, match="names no adapters") as caught:
        read_access_log(file, registry(tmp_path))
    assert "workload=trace" in caught.value.remedy
    alone = read_access_log(file, registry(tmp_path), adapter_id="b", cold="leave_out")
    assert [a.adapter_id for a in alone.adapters] == ["b"]
    dealt = read_trace(file, n_adapters=5, max_request_tokens=100)
    assert len(dealt.adapters) == 5
    assert dealt.reading is not None
    assert dealt.reading.cut_requests == 3
    assert any("cut to the longest length, which takes away" in text for text in dealt.reading.sentences())
    with pytest.raises(InputError, match="names no adapters"):
        read_recording(file)


def test_servegen_as_published(tmp_path: Path) -> None:
    lengths = {"0": {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{10: 1.0}"},
               "21600": {"input_tokens": "{}", "output_tokens": "{}"}}  # fmt: skip
    for client, rate in ((3, 2.0), (7, 0.5)):
        (tmp_path / f"chunk-{client}-trace.csv").write_text(
            f"0,{rate},1.5,Gamma,0.4,1.0\n600,0,0,,0,0\n1200,{rate},1.5,Gamma,0.4,1.0\n"
        )
        (tmp_path / f"chunk-{client}-dataset.json").write_text(json.dumps(lengths))
    workload = read_servegen(tmp_path, total_rate_req_per_s=None)
    found = {a.adapter_id.rpartition("-")[2]: a for a in workload.adapters}
    assert {k: a.rate_req_per_s for k, a in found.items()} == {"3": 2.0, "7": 0.5}, "nobody sent in the second window"
    assert found["3"].prompt_tokens.mean == pytest.approx(200)
    assert found["3"].prompt_tokens.cv == pytest.approx(0.5)
    assert found["3"].arrival_cv == pytest.approx(1.5)
    (tmp_path / "chunk-7-dataset.json").write_text("{}{")
    with pytest.raises(InputError, match=r"client chunk-7-dataset.json cannot be read"):
        read_servegen(tmp_path)
    (tmp_path / "chunk-7-trace.csv").write_text("0,-1,1,Gamma,1,1\n")
    with pytest.raises(InputError, match="not a number >= 0"):
        read_servegen(tmp_path)
