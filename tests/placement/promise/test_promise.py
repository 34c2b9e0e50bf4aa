"""A deployment that answers in time keeps its promise (exit 0), one that does not breaks it (exit 1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement.__main__ import main
from placement.promise.judge import judge, share_limits
from tests.twin.client.fake_server import fake_server
from twin.workload.adapter import Adapter, Lengths
from twin.workload.requests import Requests

SETTING = {"max_loras": 4, "max_lora_rank": 8, "max_num_seqs": 16, "max_num_batched_tokens": 512, "max_model_len": 1024}


def plan(folder: Path, ttft_p99_s: float = 1.0, url: str = "") -> Path:
    adapters = [
        {"adapter_id": name, "rank": rank, "share": 1.0, "rate_req_per_s": 8.0}
        for name, rank in (("a", 8), ("base", 0))
    ]
    document: dict[str, Any] = {
        "schema_version": 1,
        "gpus": [
            {"gpu_id": "gpu000", "gpu_type": "cpu", "setting": SETTING, "adapters": adapters,
             "simulated": {"throughput_tps": 200.0, "ttft_mean_s": 0.01, "tpot_mean_ms": 5.0}, "predicted": {}}
        ],
        "verification": {"rule": "stable", "default_promises": {"ttft_p99_s": ttft_p99_s}},
        "provenance": {"calibration": {"name": "c", "gpu_type": "cpu", "model": "tiny"}},
    }  # fmt: skip
    (folder / "placement.json").write_text(json.dumps(document))
    rows = ["adapter_id,rank,rate_req_per_s,prompt_tokens,output_tokens", "a,8,8,10,4", "base,0,8,10,4"]
    (folder / "adapters.csv").write_text("\n".join(rows) + "\n")
    if url:
        (folder / "deploy").mkdir()
        (folder / "deploy" / "routes.json").write_text(json.dumps({"servers": {"gpu000": url}}))
    return folder / "placement.json"


def promise(folder: Path, *words: str) -> int:
    own = [
        f"placement={folder / 'placement.json'}", "workload=file", f"workload.path={folder / 'adapters.csv'}",
        "horizon_s=4", "warmup_s=1", f"hydra.run.dir={folder / 'out'}",
    ]  # fmt: skip
    known = {word.partition("=")[0] for word in words}
    return main(["promise", *(word for word in own if word.partition("=")[0] not in known), *words])


def test_a_quick_server_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_server() as (url, got):
        plan(tmp_path, url=url)
        assert promise(tmp_path) == 0
    assert "kept" in capsys.readouterr().out
    assert {b["model"] for b in got} == {"a", "tiny"}
    told = json.loads((tmp_path / "out" / "promise.json").read_text())
    assert told["kept"] and told["gpus"][0]["measured"]["late_fraction"] == 0


def test_a_slow_server_breaks_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(tmp_path, ttft_p99_s=0.01)
    with fake_server(token_s=0.05) as (url, _):
        assert promise(tmp_path, f"url={url}") == 1
    assert "BROKEN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["url=http://127.0.0.1:1"], "no server answers at http://127.0.0.1:1"),
        (["url='http://{host}'"], "unknown field"),
        ([], "give url="),
        (["placement=nowhere.json"], "is no placement.json"),
    ],
)
def test_mistakes_are_explained(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(tmp_path)
    assert promise(tmp_path, *words) == 2
    assert said in capsys.readouterr().err


def judged(late: int, of: int, *, promised_itl_ms: float | None = None) -> Any:
    adapters = [Adapter("a", 8, 1.0, Lengths(10, 0.5), Lengths(10, 0.5))]
    zeros = np.zeros(of, np.int32)
    requests = Requests(np.linspace(0, 80, of), zeros, zeros + 10, zeros, zeros + 11)
    first = requests.arrival_s + np.where(np.arange(of) < late, 2.0, 0.1)
    rules = {"ttft_p99_s": 1.0, "itl_mean_ms": promised_itl_ms, "tpot_mean_ms": None, "e2e_mean_s": None}
    gpu = {"gpu_id": "g", "simulated": {"throughput_tps": 1.0}, "predicted": {}}
    document = {"gpus": [gpu], "verification": {"rule": "stable", "default_promises": rules}}
    return judge(document, 0, adapters, (requests, first, first + 1.0), horizon_s=100.0, warmup_s=0.0)


def test_chance_does_not_break_a_promise_and_few_requests_do_not_prove_it() -> None:
    assert judged(0, 1000).kept and not judged(0, 1000).undecided
    assert judged(2, 100).kept and judged(2, 100).undecided
    assert not judged(40, 1000).kept
    assert not judged(0, 1000, promised_itl_ms=50.0).kept and judged(0, 1000, promised_itl_ms=150.0).kept


def test_limits_of_a_share_are_exact() -> None:
    # One bad in ten: 0.25 % to 44.5 % (Clopper and Pearson, Biometrika 26, 1934).
    assert share_limits(1, 10) == pytest.approx((0.00253, 0.44502), abs=1e-4)
    assert share_limits(0, 10)[0] == 0 and share_limits(10, 10)[1] == 1
