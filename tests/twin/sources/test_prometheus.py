"""Rates from Prometheus: against a real server where there is one (`PROMETHEUS_HOME`, or on the path), and against its
HTTP API as one recorded answers it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from twin.errors import InputError
from twin.sources.prometheus import read_prometheus

START, HOURS, SCRAPE_S = 1_780_000_000, 3, 30
END = START + 3600 * HOURS
#: Model -> requests/s, share that fails, prompt and output tokens of a request.
MODELS = {"support-bot": (2.0, 0.25, 400, 150), "team[/prod]": (0.5, 0.0, 90, 30), "base": (1.0, 0.0, 200, 100)}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    file = tmp_path / "ranks.csv"
    file.write_text("adapter_id,rank\nsupport-bot,16\nteam[/prod],8\nsilent,32\nbase,0\n")
    return file


def samples(kind: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Metric, labels and growth per second."""
    for model, (rate, failing, prompt, output) in MODELS.items():
        served = rate * (1 - failing)
        if kind == "litellm":
            by = {"requested_model": model, "team": "a"}
            yield "litellm_proxy_total_requests_metric_total", by, rate
            yield "litellm_proxy_failed_requests_metric_total", by, rate * failing
            yield "litellm_input_tokens_metric_total", by, served * prompt
            yield "litellm_output_tokens_metric_total", by, served * output
        elif kind == "gateway":
            by = {"model_name": "public", "target_model_name": model}
            yield "inference_objective_request_total", by, rate
            yield "inference_objective_request_error_total", by, rate * failing
            yield "inference_objective_input_tokens_sum", by, served * prompt
            yield "inference_objective_output_tokens_sum", by, served * output
        else:
            for pod in ("0", "1"):
                by = {"model_name": model, "engine": pod}
                yield "vllm:request_success_total", {**by, "finished_reason": "stop"}, served / 2
                yield "vllm:prompt_tokens_total", by, served * prompt / 2
                yield "vllm:generation_tokens_total", by, served * output / 2
                yield "vllm:prefix_cache_hits_total", by, served * prompt / 8


def open_metrics(kind: str) -> str:
    """Counters over time; they restart once, as a pod does."""
    lines = []
    for metric, labels, growth in samples(kind):
        lines.append(f"# TYPE {metric.removesuffix('_total')} counter" if metric.endswith("_total") else "")
        named = ",".join(f'{k}="{v}"' for k, v in labels.items())
        restart = START + 3600
        lines += [
            f"{metric}{{{named}}} {growth * (t - (START if t < restart else restart)):.6f} {t}"
            for t in range(START - 600, END + 1, SCRAPE_S)
            if t >= START or growth == 0
        ]
    return "\n".join(line for line in lines if line) + "\n# EOF\n"


def binary(name: str) -> str | None:
    home = os.environ.get("PROMETHEUS_HOME")
    return shutil.which(name, path=home) if home else shutil.which(name)


@pytest.fixture(scope="module", params=["litellm", "gateway", "vllm"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Prometheus server that has scraped one kind of exporter."""
    if binary("prometheus") is None or binary("promtool") is None:
        pytest.skip("no Prometheus server here: apt-get install prometheus, or PROMETHEUS_HOME=/folder/of/its/binaries")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "samples").write_text(open_metrics(request.param))
    (folder / "prometheus.yml").write_text("global: {}\n")
    made = subprocess.run(
        [binary("promtool") or "", "tsdb", "create-blocks-from", "openmetrics", "samples", "data"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            binary("prometheus") or "", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
            "--storage.tsdb.retention.time=100y", f"--web.listen-address=127.0.0.1:{port}",
        ],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{url}/-/ready", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield url, request.param
    finally:
        server.terminate()
        server.wait()


def test_a_real_server_is_read(real: tuple[str, str], registry: Path) -> None:
    url, kind = real
    workload = read_prometheus(url, registry, window="150m", end=END)
    found = {a.adapter_id: a for a in workload.adapters}
    for model, (rate, failing, prompt, output) in MODELS.items():
        served = rate * (1 - failing)
        assert found[model].rate_req_per_s == pytest.approx(served, rel=0.02), kind
        assert found[model].prompt_tokens.mean == pytest.approx(prompt, rel=0.02)
        assert found[model].output_tokens.mean == pytest.approx(output, rel=0.02)
        assert found[model].cached_prompt_fraction == pytest.approx(0.25 if kind == "vllm" else 0.0, abs=0.01)
    assert 0 < found["silent"].rate_req_per_s < 1e-3
    assert workload.reading is not None
    assert workload.reading.cold_adapters == ("silent",)
    assert bool(workload.reading.left_out) == (kind != "vllm")
    peaks = read_prometheus(url, registry, window="150m", end=END, quantile=0.9, step="10m")
    assert peaks.adapters[0].rate_req_per_s == pytest.approx(1.5, rel=0.02)


def test_a_real_server_tells_what_it_does_not_have(real: tuple[str, str], registry: Path) -> None:
    url, kind = real
    for options, says in (
        ({"end": START - 10 * 86_400}, "none of the counters"),
        ({"match": "team=oops"}, "refuses the query with 400"),
        ({"match": 'model_name="x",requested_model="x"'}, "no model had requests"),
        ({"counters": "vllm" if kind != "vllm" else "litellm"}, "no model had requests"),
    ):
        with pytest.raises(InputError, match=says):
            read_prometheus(url, registry, **{"end": END, "window": "1h", **options})
    registry.write_text("adapter_id,rank\nsupport-bot,16\n")
    with pytest.raises(InputError, match="is not in the registry") as caught:
        read_prometheus(url, registry, end=END, window="1h")
    assert "base_names" in caught.value.remedy


class _Played(BaseHTTPRequestHandler):
    """Answers as a server does that has scraped LiteLLM."""

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)["query"][0]
        values = {f"{m}|{by['requested_model']}": g * 3600 for m, by, g in samples("litellm")}
        rows: list[dict[str, Any]] = []
        if "__name__" in query:
            rows = [{"metric": {"__name__": "litellm_proxy_total_requests_metric_total"}, "value": [END, "3"]}]
        for key, value in values.items():
            metric, model = key.split("|")
            if f"increase({metric}[3600s])" in query:
                rows.append({"metric": {"requested_model": model}, "value": [END, str(value)]})
        document = {"status": "success", "data": {"resultType": "vector", "result": rows}}
        wanted = self.server.token  # type: ignore[attr-defined]
        code = 200 if wanted is None or self.headers.get("Authorization") == f"Bearer {wanted}" else 401
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def played() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Played)
    server.token = None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_answers_of_a_server_become_a_workload(played: ThreadingHTTPServer, registry: Path) -> None:
    workload = read_prometheus(f"http://127.0.0.1:{played.server_port}", registry, window="1h", end=END)
    found = {a.adapter_id: (a.rank, a.rate_req_per_s, a.prompt_tokens.mean) for a in workload.adapters}
    assert found["support-bot"] == (16, pytest.approx(1.5), pytest.approx(400))
    assert found["team[/prod]"] == (8, pytest.approx(0.5), pytest.approx(90))
    assert workload.reading is not None
    assert workload.reading.left_out == {"failed": 1800}
    without = read_prometheus(
        f"http://127.0.0.1:{played.server_port}", registry, window=3600, end=END, cold="leave_out"
    )
    assert "silent" not in {a.adapter_id for a in without.adapters}


def test_a_token_is_sent(played: ThreadingHTTPServer, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played.token = "secret"  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{played.server_port}"
    with pytest.raises(InputError, match="with 401"):
        read_prometheus(url, registry, window="1h", end=END)
    monkeypatch.setenv("PROM_TOKEN", "secret")
    assert read_prometheus(url, registry, window="1h", end=END, token_variable="PROM_TOKEN").adapters
    with pytest.raises(InputError, match="'OTHER' is empty"):
        read_prometheus(url, registry, window="1h", end=END, token_variable="OTHER")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "prometheus:9090"}, "no address"),
        ({"url": "http://127.0.0.1:9"}, "does not answer"),
        ({"window": "soon"}, "'soon' is no time"),
        ({"end": "yesterday"}, "'yesterday' is no time"),
        ({"counters": "sglang"}, "'sglang' are no counters"),
        ({"quantile": 2}, "workload.quantile"),
        ({"cold": "warm"}, "'warm'"),
    ],
)
def test_wrong_options_are_named(registry: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_prometheus(**{"url": "http://127.0.0.1:9", "registry": registry, "end": END, **options})
